//! `cellule wait`: waits for the ends of sandboxes.

use std::process::ExitCode;
use std::time::Duration;

use cellule::{Entry, Exit, Host, Sandbox, State};

use crate::each::code;
use crate::failure::{Failure, OWN_FAILURE, TIMED_OUT};
use crate::summary::exit_code;
use crate::{completion, host, library_failure};

/// How long a sandbox may take to be gone once its command has ended, or its supervisor does not answer any more.
const SETTLE: Duration = Duration::from_secs(30);

/// Wait until sandboxes have ended, and print the exit codes of their commands
///
/// A command that a signal ended has 128 and the signal's number, one that ran into its time limit 124. For a sandbox
/// that ended without its command having done so there is no code, but a message, and this command fails.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names, or what ids begin with
    #[arg(required = true, value_name = "SANDBOX", add = completion::sandbox())]
    sandboxes: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    super::runtime()?.block_on(async {
        let host = host::locate()?;
        let mut failed = false;
        for name in &arguments.sandboxes {
            match wait(&host, name).await {
                Ok(code) => crate::answer(&format!("{code}\n"))?,
                Err(failure) => {
                    crate::say(&failure.render());
                    failed = true;
                }
            }
        }
        Ok(code(failed))
    })
}

async fn wait(host: &Host, name: &str) -> Result<u8, Failure> {
    let failed = |error: cellule::Error| library_failure::of(&error);
    let entry = host.find(name).map_err(failed)?;
    if !entry.is_live() {
        return ended(name, &entry);
    }
    let id = entry.spec.id.to_string();
    let seen = async {
        let mut sandbox = Sandbox::open(host.clone(), entry).await?;
        if sandbox.has_main() {
            return sandbox.wait().await.map(Some);
        }
        // The supervisor hangs up when it is done.
        sandbox.session().ended().await;
        Ok(None)
    };
    let seen = seen.await;
    // Whoever waited may remove it now, or start it again.
    let gone = host::wait_for_end(host, &id, SETTLE).await;
    match (seen, host.find(&id)) {
        (Ok(Some(status)), _) => Ok(number(status.timed_out, status.exit)),
        (_, Ok(entry)) if gone => ended(name, &entry),
        // It was removed when it ended, and it had no command.
        (Ok(None), Err(cellule::Error::Find(_))) => Ok(0),
        (Ok(None), _) => {
            Err(Failure::new(format!("{name} does not end, and its supervisor does not answer")))
        }
        (Err(error), _) => Err(failed(error)),
    }
}

fn number(timed_out: bool, exit: Exit) -> u8 {
    match exit {
        _ if timed_out => TIMED_OUT,
        Exit::Code(code) => code,
        Exit::Signal(signal) => u8::try_from(signal.saturating_add(128)).unwrap_or(OWN_FAILURE),
    }
}

/// The code of one that does not run.
fn ended(name: &str, entry: &Entry) -> Result<u8, Failure> {
    if let Some(code) = exit_code(entry) {
        return Ok(code);
    }
    let record = &entry.record;
    match (&record.cause, record.state) {
        (Some(cause), _) => {
            let mut failure = Failure::new(format!("{name} ended, and nobody knows its command's exit code"));
            failure.cause(cause.clone());
            Err(failure)
        }
        // As Docker has it: one that was never started does not run, which is all that is waited for.
        (None, State::Created) => Ok(0),
        (None, _) if entry.spec.main.is_none() => Ok(0),
        (None, state) => Err(Failure::new(format!("{name} is {state}, and its command has no exit code"))),
    }
}
