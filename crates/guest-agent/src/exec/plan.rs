//! Owns the check of a request: what comes out can be handed to the kernel as it is.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use cellule_protocol::v1::ExecRequest;
use cellule_protocol::v1::start_failure::Kind;

use super::failure::{Failure, quote};
use super::users::{self, Identity};

/// The kernel's limit for one string, its end included.
const MAX_STRING: usize = 128 * 1024;
const MAX_STRINGS: usize = 64 * 1024;
const MAX_PATH: usize = 4096;
/// Where programs are looked up if the environment does not say: Docker's default.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that a new process needs, resolved.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    pub(super) cwd: CString,
    pub(super) identity: Identity,
    pub(super) stdin: bool,
    /// The files to try, in order.
    pub(super) programs: Vec<CString>,
}

impl Plan {
    /// Checks the request, looks its user up in the image, and makes its working directory if it asks for that.
    pub(super) fn new(request: &ExecRequest) -> Result<Self, Failure> {
        if request.argv.first().is_none_or(Vec::is_empty) {
            return Err(Failure::invalid("argv", "names no program"));
        }
        let argv = strings("argv", &request.argv)?;
        let mut env = strings("env", &request.env)?;
        for (at, entry) in request.env.iter().enumerate() {
            if entry.iter().position(|byte| *byte == b'=').is_none_or(|at| at == 0) {
                return Err(Failure::invalid(format!("env[{at}]"), "is not of the form NAME=VALUE"));
            }
        }
        let programs = programs(&request.argv[0], &request.env)?;
        let identity = users::resolve(&request.user, &request.groups)?;
        if value_of(b"HOME", &request.env).is_none() {
            let home = [b"HOME=", identity.home.as_bytes()].concat();
            env.push(string("user", &home)?);
        }
        let cwd = working_directory(&request.cwd, request.create_cwd)?;
        Ok(Self { argv, env, cwd, identity, stdin: request.stdin, programs })
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

fn programs(program: &[u8], env: &[Vec<u8>]) -> Result<Vec<CString>, Failure> {
    if program.contains(&b'/') {
        return Ok(vec![string("argv[0]", program)?]);
    }
    let path = value_of(b"PATH", env).unwrap_or(DEFAULT_PATH);
    path.split(|byte| *byte == b':')
        // An empty element is the working directory: the caller has to say so with a dot.
        .filter(|directory| !directory.is_empty())
        .map(|directory| string("argv[0]", &[directory, b"/", program].concat()))
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
    use super::*;

    fn request(argv: &[&[u8]]) -> ExecRequest {
        ExecRequest { argv: argv.iter().map(|a| a.to_vec()).collect(), ..ExecRequest::default() }
    }

    fn refused(request: &ExecRequest) -> (Kind, String) {
        let failure = Plan::new(request).unwrap_err();
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
        Plan::new(&request(&[b"a", &long[1..]])).unwrap();
    }

    #[test]
    fn a_variable_without_a_name_or_value_is_refused() {
        for bad in [&b"NAME"[..], b"=value", b""] {
            let request = ExecRequest { env: vec![b"A=1".to_vec(), bad.to_vec()], ..request(&[b"a"]) };
            assert_eq!(refused(&request), (Kind::InvalidArgument, "env[1]".into()));
        }
    }

    #[test]
    fn a_relative_working_directory_is_refused() {
        let request = ExecRequest { cwd: b"here".to_vec(), ..request(&[b"a"]) };
        assert_eq!(refused(&request), (Kind::InvalidArgument, "cwd".into()));
    }

    #[test]
    fn programs_are_looked_up_in_the_execs_own_path() {
        let request = ExecRequest { env: vec![b"PATH=/a::/b".to_vec()], ..request(&[b"prog"]) };
        assert_eq!(Plan::new(&request).unwrap().programs, [c"/a/prog".to_owned(), c"/b/prog".to_owned()]);
    }

    #[test]
    fn a_given_home_is_kept() {
        let request = ExecRequest { env: vec![b"HOME=/mine".to_vec()], ..request(&[b"a"]) };
        assert_eq!(Plan::new(&request).unwrap().env, [c"HOME=/mine".to_owned()]);
    }
}
