//! The host that commands work on: the state directory that the environment names, and this very program as supervisor.

use std::time::Duration;

use cellule::{Error, FileError, Host, Sandbox, State};
use cellule_protocol::client::CallError;

use crate::failure::Failure;
use crate::{library_failure, sandbox_failure};

/// How often the state of a sandbox is looked at by whoever waits for it.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// The host as the environment describes it.
pub(crate) fn locate() -> Result<Host, Failure> {
    let host = Host::locate().map_err(|error| library_failure::of(&error))?;
    // This very program, whatever lies at its path by now.
    Ok(host.with_program("/proc/self/exe"))
}

/// Connects to a running sandbox by what its user calls it.
///
/// # Errors
/// There is none, or it does not run.
pub(crate) async fn connect(name: &str) -> Result<Sandbox, Failure> {
    locate()?.connect(name).await.map_err(|error| library_failure::of(&error))
}

/// Whether nothing of a sandbox runs any more, by what its directory says now.
pub(crate) fn has_ended(host: &Host, id: &str) -> bool {
    match host.find(id) {
        Ok(entry) => !entry.is_live(),
        Err(error) => matches!(error, Error::Find(_)),
    }
}

/// Waits for [`has_ended`], so long at most. Says whether it has.
pub(crate) async fn wait_for_end(host: &Host, id: &str, within: Duration) -> bool {
    let ended = async {
        while !has_ended(host, id) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(within, ended).await.is_ok()
}

/// The failure of something that was asked of a running sandbox. If the sandbox is lost, or does not do this now, that is
/// why.
pub(crate) async fn explained(sandbox: &mut Sandbox, error: impl Into<Error>) -> Failure {
    match error.into() {
        Error::Lost { .. } | Error::File(FileError::Call(CallError::Lost(_))) => {
            let entry = sandbox.host().find(sandbox.id());
            if entry.is_ok_and(|entry| matches!(entry.record.state, State::Pausing | State::Paused)) {
                let name = sandbox.name().unwrap_or(sandbox.id());
                return Failure::new("the sandbox is paused")
                    .hint(format!("let it go on: cellule unpause {name}"));
            }
            sandbox_failure::failure(&sandbox.cause().await)
        }
        Error::File(FileError::Failed { message, .. }) => Failure::new(refused(&message)),
        other => library_failure::of(&other),
    }
}

/// The guest says what it could not do, such as "read /x: Permission denied"; our own words are a sentence already.
fn refused(message: &str) -> String {
    if message.starts_with("the ") { message.to_owned() } else { format!("cannot {message}") }
}
