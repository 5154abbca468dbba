//! One program in a sandbox, attached to this process: bytes, signals and window sizes until it ends, or until its user
//! detaches from it.
//!
//! ```text
//!   attach ──▶ relaying ──┬─▶ the program exited, its output is through ──▶ exit code
//!                         ├─▶ detach keys ──▶ Detached
//!                         ├─▶ a second interrupt, or another deadly signal ──▶ 128+n
//!                         └─▶ the sandbox is lost ──▶ its cause
//! ```

use std::process::ExitCode;
use std::time::Duration;

use cellule::{ExecId, Exit, ExitStatus, Signal, TerminalSize};
use cellule_protocol::client::{Output, Session, Stdin};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::detach_keys::DetachKeys;
use crate::failure::{Failure, TIMED_OUT};
use crate::quantity::show_duration;
use crate::relay::{self, Signals};
use crate::terminal::{ChangedMode, Resizes, WindowSize};

/// How long the last output of a program whose guest is lost may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What of this process is connected with the program.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<Stdin>,
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Option<Output>,
}

/// How the program's terminal, if it has one, is ours.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) keys: DetachKeys,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ended, and all of its output is written.
    Exited(ExitStatus),
    /// Its user went away; it goes on.
    Detached,
}

/// Why relaying ended before the program did.
#[derive(Debug)]
pub(crate) enum Broken<E> {
    /// A signal that is meant for us.
    Signal(i32),
    /// The program's end is unknown, for this reason.
    Lost(E),
    /// Our own input or output failed.
    Ours(Failure),
}

/// Relays until the program ends. `exit` is the wait for its exit; signals and sizes go to `exec` over `session`.
///
/// With a terminal, ours is in raw mode meanwhile, and restored whatever happens.
pub(crate) async fn relay<E>(
    streams: Streams,
    terminal: Option<Terminal>,
    session: Session,
    exec: ExecId,
    signals: &mut Signals,
    exit: impl Future<Output = Result<ExitStatus, E>>,
) -> Result<Outcome, Broken<E>> {
    let Streams { stdin, stdout, stderr } = streams;
    let (leave, mut left) = oneshot::channel();
    let mut keys = None;
    let mut raw = None;
    if let Some(terminal) = terminal {
        follow_window(&session, exec);
        // A terminal for the program alone needs none here.
        if stdin.is_some() {
            keys = Some(terminal.keys);
            raw = Some(ChangedMode::raw(std::io::stdin()).map_err(|error| {
                Broken::Ours(Failure::because("cannot put the terminal in raw mode", &error))
            })?);
        }
    }
    let stdout = stdout.map(|stdout| tokio::spawn(relay::output(stdout, std::io::stdout())));
    let stderr = stderr.map(|stderr| tokio::spawn(relay::output(stderr, std::io::stderr())));
    let stdin = stdin.map(|stdin| tokio::spawn(relay::input(stdin, keys, leave)));

    let to = session.clone();
    let ended = tokio::select! {
        ended = exit => ended,
        Ok(()) = &mut left => {
            drop(raw);
            // Docker's words, on a line of their own wherever the cursor was left.
            crate::say("\nread escape sequence\n");
            return Ok(Outcome::Detached);
        }
        signal = relay::pass_on(signals, to, exec) => return Err(Broken::Signal(signal)),
    };
    let input = match stdin {
        Some(stdin) if stdin.is_finished() => stdin.await.ok(),
        Some(stdin) => {
            stdin.abort();
            None
        }
        None => None,
    };
    let status = match ended {
        Ok(status) => status,
        Err(error) => {
            // What came before the end is worth seeing.
            _ = tokio::time::timeout(LAST_WORDS, async { tokio::join!(written(stdout), written(stderr)) })
                .await;
            return Err(Broken::Lost(error));
        }
    };
    // What it wrote before its end is still to come; how fast, our own readers decide.
    tokio::select! {
        both = async { tokio::join!(written(stdout), written(stderr)) } => {
            finished("standard output", both.0).map_err(Broken::Ours)?;
            finished("standard error", both.1).map_err(Broken::Ours)?;
        }
        signal = signals.next() => return Err(Broken::Signal(signal)),
    }
    drop(raw);
    if let Some(Err(error)) = input {
        // The program took it for the end of its input, so its own verdict means little.
        return Err(Broken::Ours(Failure::because("cannot read standard input", &error)));
    }
    Ok(Outcome::Exited(status))
}

/// Tells the program's terminal the size of ours, now and whenever it changes, as long as the session lives.
fn follow_window(session: &Session, exec: ExecId) {
    let session = session.clone();
    tokio::spawn(async move {
        let Ok(mut resizes) = Resizes::watch() else { return };
        let Some(mut size) = resizes.last() else { return };
        // A program that is gone needs none.
        while matches!(session.resize(exec, terminal_size(size)).await, Ok(true)) {
            size = resizes.next().await;
        }
    });
}

fn terminal_size(size: WindowSize) -> TerminalSize {
    TerminalSize { rows: size.rows, columns: size.columns }
}

/// The size of our terminal, or the customary one.
pub(crate) fn window() -> TerminalSize {
    WindowSize::here().map_or(TerminalSize { rows: 24, columns: 80 }, terminal_size)
}

type Written = Result<std::io::Result<()>, tokio::task::JoinError>;

async fn written(task: Option<JoinHandle<std::io::Result<()>>>) -> Option<Written> {
    match task {
        Some(task) => Some(task.await),
        None => None,
    }
}

fn finished(what: &str, written: Option<Written>) -> Result<(), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::because(format!("cannot pass on the command's {what}"), error)
    };
    match written {
        Some(Ok(Err(error))) => Err(failed(&error)),
        Some(Err(error)) => Err(failed(&error)),
        Some(Ok(Ok(()))) | None => Ok(()),
    }
}

/// The exit code that stands for how a program ended.
pub(crate) fn exit_code(
    status: ExitStatus,
    timeout: Option<Duration>,
    quiet: bool,
) -> Result<ExitCode, Failure> {
    if status.timed_out {
        let limit = timeout.map_or_else(|| "its time limit".to_owned(), show_duration);
        let message = format!("the command did not end within {limit} and was killed");
        return Err(Failure::new(message).code(TIMED_OUT));
    }
    match status.exit {
        Exit::Code(code) => Ok(ExitCode::from(code)),
        Exit::Signal(signal) => {
            let name = signal_name(signal);
            if status.oom_killed {
                crate::say(&format!(
                    "cellule: the command was killed by {name}: the guest ran out of memory (--memory)\n"
                ));
            } else if !quiet && signal != Signal::INT.number() {
                crate::say(&format!("cellule: the command was killed by {name}\n"));
            }
            Ok(ExitCode::from(by_signal(signal)))
        }
    }
}

/// What a command ends with that a signal ended.
pub(crate) fn died_of(signal: i32) -> Failure {
    Failure::silent(by_signal(signal))
}

fn by_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

fn signal_name(signal: i32) -> String {
    Signal::from_number(signal).map_or_else(|| format!("signal {signal}"), |signal| signal.to_string())
}

#[cfg(test)]
mod tests {
    use cellule::Usage;

    use super::*;

    fn ended(exit: Exit) -> ExitStatus {
        ExitStatus { exit, core_dumped: false, timed_out: false, oom_killed: false, usage: Usage::default() }
    }

    #[test]
    fn a_code_is_passed_on_and_a_signal_is_added_to_128() {
        let code = |exit| format!("{:?}", exit_code(ended(exit), None, true).unwrap());
        assert_eq!(code(Exit::Code(42)), format!("{:?}", ExitCode::from(42)));
        assert_eq!(code(Exit::Signal(9)), format!("{:?}", ExitCode::from(137)));
    }

    #[test]
    fn a_time_limit_is_124_whatever_the_program_did_about_it() {
        let status = ExitStatus { timed_out: true, ..ended(Exit::Code(0)) };
        let failure = exit_code(status, Some(Duration::from_secs(1)), true).unwrap_err();
        assert_eq!(failure.exit_code(), TIMED_OUT);
    }
}
