//! One program in a sandbox, attached to this process from its start to its exit code.

use std::process::ExitCode;
use std::time::Duration;

use cellule_protocol::client::{
    CallError, Exec, ExecError, ExecSpec, Exit, ExitStatus, StartFailure, StartFailureKind,
};
use cellule_supervisor::Sandbox;

use crate::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND, TIMED_OUT};
use crate::quantity::show_duration;
use crate::relay::{self, Signals};
use crate::report::Report;
use crate::sandbox_failure;

/// Beyond a program's own time limit, which its guest keeps, how long its end may take to be heard of.
const GRACE: Duration = Duration::from_secs(30);

/// How long the last output of a program whose guest is lost may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Waits for the guest, runs the program, and gives the exit code that stands for how it ended.
pub(crate) async fn run(
    sandbox: &mut Sandbox,
    spec: ExecSpec,
    signals: &mut Signals,
    report: &Report,
    quiet: bool,
) -> Result<ExitCode, Failure> {
    let status = tokio::select! {
        status = sandbox.running() => status.map_err(|error| sandbox_failure::failure(&error))?,
        signal = signals.next() => return Err(died_of(signal)),
    };
    for phase in &status.phases {
        let name = if phase.in_guest { format!("  guest: {}", phase.name) } else { phase.name.clone() };
        report.tell(&name, phase.took);
    }
    for (role, pid) in &status.processes {
        report.note(&format!("{role} has process id {pid}"));
    }

    let timeout = spec.timeout;
    let program = String::from_utf8_lossy(spec.argv.first().map_or(&[][..], Vec::as_slice)).into_owned();
    let started = tokio::select! {
        started = report.step("command started", sandbox.exec(spec)) => started,
        signal = signals.next() => return Err(died_of(signal)),
    };
    let exec = match started {
        Ok(exec) => exec,
        Err(ExecError::Failed(failure)) => return Err(not_started(&program, &failure)),
        Err(ExecError::Call(CallError::Lost(_))) => {
            return Err(sandbox_failure::failure(&sandbox.cause().await));
        }
        Err(ExecError::Call(error)) => return Err(Failure::because("cannot run the command", &error)),
        Err(error @ ExecError::TooMany { .. }) => {
            return Err(Failure::because("cannot run the command", &error));
        }
    };
    let Exec { stdin, stdout, stderr, mut process } = exec;
    let stdout = tokio::spawn(relay::output(stdout, std::io::stdout()));
    let stderr = tokio::spawn(relay::output(stderr, std::io::stderr()));
    let stdin = stdin.map(|stdin| tokio::spawn(relay::input(stdin)));

    let signaller = process.signaller();
    let ended = tokio::select! {
        ended = report.step("command", within(timeout, process.wait())) => ended,
        signal = relay::pass_on(signals, signaller) => return Err(died_of(signal)),
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
        Some(Ok(status)) => status,
        Some(Err(_)) => {
            let cause = sandbox.cause().await;
            // What came before the end is worth seeing.
            _ = tokio::time::timeout(LAST_WORDS, async { tokio::join!(stdout, stderr) }).await;
            return Err(sandbox_failure::failure(&cause));
        }
        None => return Err(too_late(timeout)),
    };
    // What it wrote before its end is still to come; how fast, our own readers decide.
    tokio::select! {
        written = report.step("rest of the output", async { tokio::join!(stdout, stderr) }) => {
            finished("standard output", written.0)?;
            finished("standard error", written.1)?;
        }
        signal = signals.next() => return Err(died_of(signal)),
    }
    if let Some(Err(error)) = input {
        // The program took it for the end of its input, so its own verdict means little.
        return Err(Failure::because("cannot read standard input", &error));
    }
    exit_code(status, timeout, quiet)
}

/// Waits no longer than the guest should take to keep a limit.
async fn within<T>(limit: Option<Duration>, wait: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit.saturating_add(GRACE), wait).await.ok(),
        None => Some(wait.await),
    }
}

fn finished(what: &str, written: Result<std::io::Result<()>, tokio::task::JoinError>) -> Result<(), Failure> {
    match written {
        Ok(Err(error)) => Err(Failure::because(format!("cannot pass on the command's {what}"), &error)),
        Err(error) => Err(Failure::because(format!("cannot pass on the command's {what}"), &error)),
        Ok(Ok(())) => Ok(()),
    }
}

fn exit_code(status: ExitStatus, timeout: Option<Duration>, quiet: bool) -> Result<ExitCode, Failure> {
    if status.timed_out {
        return Err(too_late(timeout));
    }
    match status.exit {
        Exit::Code(code) => Ok(ExitCode::from(code)),
        Exit::Signal(signal) => {
            let name = signal_name(signal);
            if status.oom_killed {
                crate::say(&format!(
                    "cellule: the command was killed by {name}: the guest ran out of memory (--memory)\n"
                ));
            } else if !quiet && signal != relay::INTERRUPT {
                crate::say(&format!("cellule: the command was killed by {name}\n"));
            }
            Ok(ExitCode::from(by_signal(signal)))
        }
    }
}

fn too_late(timeout: Option<Duration>) -> Failure {
    let limit = show_duration(timeout.unwrap_or_default());
    Failure::new(format!("the command did not end within {limit} and was killed")).code(TIMED_OUT)
}

fn not_started(program: &str, failure: &StartFailure) -> Failure {
    let message = format!("cannot run {program:?}");
    match failure.kind {
        StartFailureKind::NotFound => Failure::because(message, failure)
            .hint("see whether the image has it, and where: --entrypoint and PATH decide what is found")
            .code(NOT_FOUND),
        StartFailureKind::NotExecutable => Failure::because(message, failure)
            .hint("it must be a program for x86-64 Linux, or a script whose interpreter the image has, with mode +x")
            .code(NOT_EXECUTABLE),
        _ => Failure::because(message, failure),
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
    match rustix::process::Signal::from_named_raw(signal) {
        // What it shows for debugging is `Signal::KILL`.
        Some(signal) => format!("{signal:?}").trim_matches('"').replace("Signal::", "SIG"),
        None => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use cellule_protocol::client::Usage;

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

    #[test]
    fn signals_have_their_names() {
        assert_eq!([9, 11, 15, 40].map(signal_name), ["SIGKILL", "SIGSEGV", "SIGTERM", "signal 40"]);
    }
}
