//! `cellule exec`: one more program in a running sandbox.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cellule::{Child, Command, Rlimit, Sandbox};

use crate::attached::{self, Broken, Outcome, Streams, Terminal, died_of};
use crate::detach_keys::DetachKeys;
use crate::failure::Failure;
use crate::relay::Signals;
use crate::sandbox_options::parse_rlimit;
use crate::{completion, environment, host, library_failure, quantity, terminal};

/// The word that `--chain` takes for the end of one program and the beginning of the next.
const LINK: &str = "&&";

/// Run a command in a running sandbox
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
#[command(override_usage = "cellule exec [OPTIONS] SANDBOX COMMAND [ARG...]")]
pub(crate) struct Arguments {
    /// The sandbox's name, or what its id begins with; the command and its arguments follow it
    #[arg(required = true, value_name = "SANDBOX", trailing_var_arg = true, num_args = 2..,
          add = completion::sandbox())]
    words: Vec<String>,
    /// Pass standard input on to the command
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave the command running and print its id; `cellule execs` finds it again
    #[arg(short, long)]
    detach: bool,
    /// Set a variable; NAME alone takes the value that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one on a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Work in this directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as this user and group, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Kill the command, with all it started, after this time; exit code 124
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    timeout: Option<Duration>,
    /// Limit a resource, such as nofile=1024 or nproc=64:128
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse_rlimit)]
    ulimit: Vec<Rlimit>,
    /// Write a file of this host there before the command starts, in one step; larger ones go with `cellule cp`
    #[arg(long, value_name = "FILE:PATH")]
    stage: Vec<String>,
    /// Take each word && for the end of a command that the next one follows if it ended with code 0
    #[arg(long)]
    chain: bool,
    /// The keys that leave a terminal without ending its command
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let result = runtime.block_on(exec(arguments));
    // A thread may still wait for standard input, which need not end for us to.
    runtime.shutdown_background();
    result
}

async fn exec(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut signals = Signals::catch().map_err(|error| Failure::because("cannot catch signals", &error))?;
    let (name, words) = arguments.words.split_first().ok_or_else(|| Failure::new("no sandbox is named"))?;
    if !arguments.detach {
        terminal::check_input(arguments.interactive, arguments.tty)?;
    }
    let mut sandbox = host::locate()?.connect(name).await.map_err(|error| library_failure::of(&error))?;
    let command = command(arguments, &sandbox, words)?;
    if arguments.detach {
        let id = command.spawn_detached().await.map_err(|error| library_failure::of(&error))?;
        crate::answer(&format!("{id}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let spawned = tokio::select! {
        spawned = command.spawn() => spawned,
        signal = signals.next() => return Err(died_of(signal)),
    };
    let child = match spawned {
        Ok(child) => child,
        Err(error) => return Err(host::explained(&mut sandbox, error).await),
    };
    let terminal = arguments.tty.then(|| Terminal { keys: arguments.detach_keys.clone() });
    attach(&mut sandbox, child, terminal, arguments.timeout, &mut signals).await
}

/// Stays with a program that was just started.
pub(super) async fn attach(
    sandbox: &mut Sandbox,
    mut child: Child,
    terminal: Option<Terminal>,
    timeout: Option<Duration>,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let streams =
        Streams { stdin: child.stdin.take(), stdout: child.stdout.take(), stderr: child.stderr.take() };
    let (session, id) = (sandbox.session().clone(), child.id());
    let relayed = attached::relay(streams, terminal, session, id, signals, child.exit()).await;
    match relayed {
        Ok(Outcome::Exited(status)) => attached::exit_code(status, timeout, false),
        Ok(Outcome::Detached) => {
            let id = child.detach().await.map_err(|error| library_failure::of(&error))?;
            crate::say(&format!(
                "cellule: the command goes on: cellule execs attach {} {id}\n",
                sandbox.id()
            ));
            Ok(ExitCode::SUCCESS)
        }
        Err(Broken::Signal(signal)) => Err(died_of(signal)),
        Err(Broken::Lost(error)) => Err(host::explained(sandbox, error).await),
        Err(Broken::Ours(failure)) => Err(failure),
    }
}

fn command(arguments: &Arguments, sandbox: &Sandbox, words: &[String]) -> Result<Command, Failure> {
    let mut links = if arguments.chain { split(words)? } else { vec![words] }.into_iter();
    let first = links.next().and_then(|words| words.split_first());
    let (program, rest) = first.ok_or_else(|| Failure::new("no command is given"))?;
    let mut command = sandbox.command(program.as_str());
    command.args(rest.iter().map(String::as_str));
    for words in links {
        let (program, rest) = words.split_first().ok_or_else(|| Failure::new("no command is given"))?;
        command.and_then(program.as_str()).args(rest.iter().map(String::as_str));
    }
    command.variables(environment::read(&arguments.env_file, &arguments.env)?).stdin(arguments.interactive);
    if arguments.tty {
        command.terminal(attached::window());
    }
    if let Some(dir) = &arguments.workdir {
        command.current_dir(dir.as_str());
    }
    if let Some(user) = &arguments.user {
        command.user(user);
    }
    if let Some(limit) = arguments.timeout {
        command.timeout(limit);
    }
    for limit in &arguments.ulimit {
        command.rlimit(limit.clone());
    }
    for text in &arguments.stage {
        let (file, path) = text
            .split_once(':')
            .filter(|(file, path)| !file.is_empty() && path.starts_with('/'))
            .ok_or_else(|| {
                Failure::new(format!("--stage {text}: write it as FILE:PATH, the path absolute"))
            })?;
        let content = std::fs::read(file)
            .map_err(|error| Failure::because(format!("--stage: cannot read {file}"), &error))?;
        command.stage(path, content, mode(file));
    }
    Ok(command)
}

fn mode(file: &str) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Some(std::fs::metadata(file).ok()?.permissions().mode() & 0o777)
}

fn split(words: &[String]) -> Result<Vec<&[String]>, Failure> {
    let links: Vec<&[String]> = words.split(|word| word == LINK).collect();
    if links.iter().any(|link| link.is_empty()) {
        return Err(Failure::new("--chain: a command is missing before or behind a &&"));
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_split_at_its_links_and_has_no_empty_one() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let chain = words("make -j2 && make install");
        assert_eq!(split(&chain).unwrap(), [&chain[..2], &chain[3..]]);
        for bad in ["&& a", "a &&", "a && && b"] {
            assert!(split(&words(bad)).is_err(), "{bad}");
        }
    }
}
