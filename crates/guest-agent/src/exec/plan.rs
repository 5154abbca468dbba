//! Owns the check of a request: what comes out can be handed to the kernel as it is.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use cellule_protocol::v1::start_failure::Kind;
use cellule_protocol::v1::{ExecRequest, TerminalSize};

use super::failure::{Failure, quote};
use super::limits::{self, Limit};
use super::staging;
use super::users::{self, Identity};

/// The kernel's limit for one string, its end included.
const MAX_STRING: usize = 128 * 1024;
const MAX_STRINGS: usize = 64 * 1024;
const MAX_PATH: usize = 4096;
/// Programs that one request chains.
const MAX_LINKS: usize = 256;
/// Where programs are looked up if the environment does not say: Docker's default.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that the new processes of an exec need, resolved.
#[derive(Debug)]
pub(super) struct Plan {
    /// The programs that run one after the other; at least one.
    pub(super) links: Vec<Link>,
    pub(super) env: Vec<CString>,
    pub(super) cwd: CString,
    pub(super) identity: Identity,
    pub(super) stdin: bool,
    pub(super) terminal: Option<TerminalSize>,
    /// Whether what it writes goes nowhere.
    pub(super) discard_output: bool,
    /// The image's group of terminals, if it has one.
    pub(super) terminal_group: Option<u32>,
    pub(super) limits: Vec<Limit>,
    /// Open files, unless `limits` has them too: the agent itself has more.
    pub(super) open_files: Option<libc::rlimit>,
}

/// One program.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) argv: Vec<CString>,
    /// The files to try, in order.
    pub(super) programs: Vec<CString>,
}

impl Plan {
    /// Checks the request, looks its user up in the image, and makes its working directory if it asks for that.
    pub(super) fn new(request: &ExecRequest, open_files: Option<libc::rlimit>) -> Result<Self, Failure> {
        let mut links = vec![Link::new("argv", &request.argv, &request.env)?];
        if request.then.len() >= MAX_LINKS {
            return Err(Failure::invalid("then", format!("has more than {} entries", MAX_LINKS - 1)));
        }
        for (at, then) in request.then.iter().enumerate() {
            links.push(Link::new(&format!("then[{at}].argv"), &then.argv, &request.env)?);
        }
        let mut env = strings("env", &request.env)?;
        for (at, entry) in request.env.iter().enumerate() {
            if entry.iter().position(|byte| *byte == b'=').is_none_or(|at| at == 0) {
                return Err(Failure::invalid(format!("env[{at}]"), "is not of the form NAME=VALUE"));
            }
        }
        if request.discard_output && request.terminal.is_some() {
            return Err(Failure::invalid("discard_output", "does not go with a terminal"));
        }
        let limits = limits::check(&request.rlimits)?;
        staging::check(&request.files)?;
        let identity = users::resolve(&request.user, &request.groups)?;
        if value_of(b"HOME", &request.env).is_none() {
            let home = [b"HOME=", identity.home.as_bytes()].concat();
            env.push(string("user", &home)?);
        }
        let cwd = working_directory(&request.cwd, request.create_cwd)?;
        Ok(Self {
            links,
            env,
            cwd,
            identity,
            stdin: request.stdin,
            terminal: request.terminal,
            discard_output: request.discard_output,
            terminal_group: request.terminal.and_then(|_| users::group("tty")),
            limits,
            open_files,
        })
    }
}

impl Link {
    fn new(field: &str, argv: &[Vec<u8>], env: &[Vec<u8>]) -> Result<Self, Failure> {
        let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
            return Err(Failure::invalid(field, "names no program"));
        };
        Ok(Self { argv: strings(field, argv)?, programs: programs(field, program, env)? })
    }
}

fn string(field: &str, bytes: &[u8]) -> Result<CString, Failure> {
    if bytes.len() >= MAX_STRING {
        return Err(Failure::invalid(
            field,
            format!("is longer than the {} bytes that Linux allows", MAX_STRING - 1),
        ));
    }
    CString::new(bytes)
        .map_err(|error| Failure::invalid(field, format!("has a NUL byte at {}", error.nul_position())))
}

fn strings(field: &str, all: &[Vec<u8>]) -> Result<Vec<CString>, Failure> {
    if all.len() > MAX_STRINGS {
        return Err(Failure::invalid(field, format!("has more than {MAX_STRINGS} entries")));
    }
    all.iter().enumerate().map(|(at, bytes)| string(&format!("{field}[{at}]"), bytes)).collect()
}

fn value_of<'a>(name: &[u8], env: &'a [Vec<u8>]) -> Option<&'a [u8]> {
    env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"="))
}

fn programs(argv: &str, program: &[u8], env: &[Vec<u8>]) -> Result<Vec<CString>, Failure> {
    let field = format!("{argv}[0]");
    if program.contains(&b'/') {
        return Ok(vec![string(&field, program)?]);
    }
    let path = value_of(b"PATH", env).unwrap_or(DEFAULT_PATH);
    path.split(|byte| *byte == b':')
        // An empty element is the working directory: the caller has to say so with a dot.
        .filter(|directory| !directory.is_empty())
        .map(|directory| string(&field, &[directory, b"/", program].concat()))
        .collect()
}

fn working_directory(cwd: &[u8], create: bool) -> Result<CString, Failure> {
    let cwd = if cwd.is_empty() { b"/" } else { cwd };
    let path = Path::new(std::ffi::OsStr::from_bytes(cwd));
    if cwd.len() >= MAX_PATH || !path.is_absolute() {
        return Err(Failure::invalid("cwd", "is no absolute path of less than 4096 bytes"));
    }
    let checked = string("cwd", cwd)?;
    if create {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.map_err(|error| {
            Failure::new(Kind::BadWorkingDirectory, "cwd", format!("make {}: {error}", quote(cwd)))
                .with_errno(&error)
        })?;
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use cellule_protocol::v1;

    use super::*;

    fn request(argv: &[&[u8]]) -> ExecRequest {
        ExecRequest { argv: argv.iter().map(|a| a.to_vec()).collect(), ..ExecRequest::default() }
    }

    fn plan(request: &ExecRequest) -> Result<Plan, Failure> {
        Plan::new(request, None)
    }

    fn refused(request: &ExecRequest) -> (Kind, String) {
        let failure = plan(request).unwrap_err();
        let (kind, field) = failure.parts();
        (kind, field.to_owned())
    }

    #[test]
    fn an_empty_argv_is_refused() {
        assert_eq!(refused(&request(&[])), (Kind::InvalidArgument, "argv".into()));
        assert_eq!(refused(&request(&[b""])), (Kind::InvalidArgument, "argv".into()));
    }

    #[test]
    fn a_nul_is_refused_where_it_is() {
        assert_eq!(refused(&request(&[b"a", b"b\0c"])), (Kind::InvalidArgument, "argv[1]".into()));
    }

    #[test]
    fn an_argument_beyond_the_kernels_limit_is_refused() {
        let long = vec![b'x'; MAX_STRING];
        assert_eq!(refused(&request(&[b"a", &long])), (Kind::InvalidArgument, "argv[1]".into()));
        plan(&request(&[b"a", &long[1..]])).unwrap();
    }

    #[test]
    fn each_program_of_a_chain_is_checked_before_the_first_runs() {
        let then = |argv: &[&[u8]]| v1::Argv { argv: argv.iter().map(|a| a.to_vec()).collect() };
        let chain = |last| ExecRequest { then: vec![then(&[b"b"]), last], ..request(&[b"a"]) };
        assert_eq!(refused(&chain(then(&[]))), (Kind::InvalidArgument, "then[1].argv".into()));
        assert_eq!(refused(&chain(then(&[b"c", b"\0"]))), (Kind::InvalidArgument, "then[1].argv[1]".into()));
        assert_eq!(plan(&chain(then(&[b"c"]))).unwrap().links.len(), 3);
    }

    #[test]
    fn a_staged_file_needs_the_absolute_path_of_a_file() {
        for bad in [&b"relative"[..], b"/", b"/etc/", b"/..", b"", b"/a\0b"] {
            let file = v1::StagedFile { path: bad.to_vec(), ..v1::StagedFile::default() };
            let request = ExecRequest { files: vec![file], ..request(&[b"a"]) };
            assert_eq!(refused(&request), (Kind::InvalidArgument, "files[0]".into()));
        }
    }

    #[test]
    fn a_variable_without_a_name_or_value_is_refused() {
        for bad in [&b"NAME"[..], b"=value", b""] {
            let request = ExecRequest { env: vec![b"A=1".to_vec(), bad.to_vec()], ..request(&[b"a"]) };
            assert_eq!(refused(&request), (Kind::InvalidArgument, "env[1]".into()));
        }
    }

    #[test]
    fn a_terminal_whose_output_goes_nowhere_is_refused() {
        let terminal = Some(TerminalSize { rows: 24, columns: 80 });
        let request = ExecRequest { terminal, discard_output: true, ..request(&[b"a"]) };
        assert_eq!(refused(&request), (Kind::InvalidArgument, "discard_output".into()));
    }

    #[test]
    fn a_relative_working_directory_is_refused() {
        let request = ExecRequest { cwd: b"here".to_vec(), ..request(&[b"a"]) };
        assert_eq!(refused(&request), (Kind::InvalidArgument, "cwd".into()));
    }

    #[test]
    fn programs_are_looked_up_in_the_execs_own_path() {
        let request = ExecRequest { env: vec![b"PATH=/a::/b".to_vec()], ..request(&[b"prog"]) };
        assert_eq!(plan(&request).unwrap().links[0].programs, [c"/a/prog".to_owned(), c"/b/prog".to_owned()]);
    }

    #[test]
    fn a_given_home_is_kept() {
        let request = ExecRequest { env: vec![b"HOME=/mine".to_vec()], ..request(&[b"a"]) };
        assert_eq!(plan(&request).unwrap().env, [c"HOME=/mine".to_owned()]);
    }
}
