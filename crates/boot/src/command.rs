//! Runs the host's programs: with a time limit, without a terminal, and keeping what they say.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much of a program's standard output is taken. None that is run here has this much to say.
const OUTPUT_LIMIT: u64 = 4 << 20;
/// How much of the end of a program's standard error is kept.
const STDERR_KEPT: u64 = 8 << 10;
/// How often a running program is looked at.
const TICK: Duration = Duration::from_millis(10);
/// How long a program may be busy before it starts.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// How long a killed program may take to go.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// Why one of the host's programs did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The program is not on this host.
    #[error("{program} is not installed")]
    NotInstalled {
        /// Its name.
        program: String,
    },
    /// The program could not be started, or its output not be kept.
    #[error("cannot run {program}")]
    Run {
        /// Its name.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program says that it failed.
    #[error("{command} failed ({status}): {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// Exit code or signal.
        status: ExitStatus,
        /// The end of its standard error.
        stderr: String,
    },
    /// The program was killed for taking too long.
    #[error("{command} did not end within {} s: {stderr}", limit.as_secs())]
    TimedOut {
        /// The command line.
        command: String,
        /// What it was given.
        limit: Duration,
        /// The end of its standard error.
        stderr: String,
    },
    /// The program wrote more than can be meant.
    #[error("{command} wrote more than {limit} bytes")]
    TooMuchOutput {
        /// The command line.
        command: String,
        /// The most that is taken.
        limit: u64,
    },
}

/// Runs `command` for at most `limit` and returns its standard output. `tick` is called while it runs.
///
/// Output goes to unnamed files in `scratch` rather than through pipes: a grandchild that outlives the program and
/// holds a pipe open could keep a reader waiting for ever, a file cannot.
pub(crate) fn run(
    command: &mut Command,
    limit: Duration,
    scratch: &Path,
    tick: &mut dyn FnMut(),
) -> Result<Vec<u8>, CommandError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let run_error = |source| CommandError::Run { program: program.clone(), source };

    let mut stdout = tempfile::tempfile_in(scratch).map_err(run_error)?;
    let mut stderr = tempfile::tempfile_in(scratch).map_err(run_error)?;
    command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().map_err(run_error)?)
        .stderr(stderr.try_clone().map_err(run_error)?);
    let mut child = match spawn(command) {
        Ok(child) => child,
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            return Err(CommandError::NotInstalled { program });
        }
        Err(source) => return Err(run_error(source)),
    };

    let ended = wait(&mut child, limit, tick).map_err(run_error)?;
    let said = tail(&mut stderr).map_err(run_error)?;
    match ended {
        Some(status) if status.success() => {
            let mut output = Vec::new();
            stdout.rewind().map_err(run_error)?;
            stdout.take(OUTPUT_LIMIT + 1).read_to_end(&mut output).map_err(run_error)?;
            if output.len() as u64 > OUTPUT_LIMIT {
                return Err(CommandError::TooMuchOutput { command: line(command), limit: OUTPUT_LIMIT });
            }
            Ok(output)
        }
        Some(status) => Err(CommandError::Failed { command: line(command), status, stderr: said }),
        None => Err(CommandError::TimedOut { command: line(command), limit, stderr: said }),
    }
}

/// Starts the program. One that was written a moment ago may be busy: between fork and exec, any child of this
/// process has the descriptor it was written through.
fn spawn(command: &mut Command) -> io::Result<Child> {
    let start = Instant::now();
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy && start.elapsed() < BUSY_LIMIT =>
            {
                std::thread::sleep(TICK);
            }
            other => return other,
        }
    }
}

/// Waits for the program's end; `None` when it had to be killed.
fn wait(child: &mut Child, limit: Duration, tick: &mut dyn FnMut()) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        tick();
        std::thread::sleep(TICK);
    }
    child.kill()?;
    let killed = Instant::now();
    while killed.elapsed() < DEATH_LIMIT && child.try_wait()?.is_none() {
        std::thread::sleep(TICK);
    }
    Ok(None)
}

fn tail(file: &mut File) -> io::Result<String> {
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(STDERR_KEPT)))?;
    let mut bytes = Vec::new();
    file.take(STDERR_KEPT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<Vec<u8>, CommandError> {
        let scratch = tempfile::tempdir().unwrap();
        run(Command::new("sh").args(["-c", script]), limit, scratch.path(), &mut || ())
    }

    #[test]
    fn output_is_returned() {
        assert_eq!(shell("echo out; echo err >&2", Duration::from_secs(60)).unwrap(), b"out\n");
    }

    #[test]
    fn a_failure_keeps_what_the_program_said() {
        let error = shell("echo why >&2; exit 3", Duration::from_secs(60)).unwrap_err();
        let CommandError::Failed { status, stderr, .. } = error else { panic!("{error}") };
        assert_eq!((status.code(), stderr.as_str()), (Some(3), "why"));
    }

    #[test]
    fn a_program_over_its_limit_is_killed_even_if_a_grandchild_holds_its_output() {
        let error = shell("sleep 20 & echo slow >&2; exec sleep 20", Duration::from_millis(300)).unwrap_err();
        let CommandError::TimedOut { stderr, .. } = error else { panic!("{error}") };
        assert_eq!(stderr, "slow");
    }

    #[test]
    fn a_flood_of_output_is_refused() {
        let error = shell("head -c 5000000 /dev/zero", Duration::from_secs(60)).unwrap_err();
        assert!(matches!(error, CommandError::TooMuchOutput { .. }), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = Command::new("no-such-program-of-cellule");
        let error = run(&mut command, Duration::from_secs(1), scratch.path(), &mut || ()).unwrap_err();
        let CommandError::NotInstalled { program } = error else { panic!("{error}") };
        assert_eq!(program, "no-such-program-of-cellule");
    }
}
