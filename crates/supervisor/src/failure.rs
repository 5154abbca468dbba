//! Why a sandbox failed: the kind that decides what helps, the words, the last that guest and engine said.

use std::error::Error;

use cellule_engine::{ControlError, ExitReason, LaunchError};
use cellule_protocol::client::{CallError, ConnectError, Lost};

use crate::record::Record;
use crate::state::State;

/// Lines of a guest's console that a failure carries are bounded by this many bytes.
const CONSOLE_BYTES: usize = 8 << 10;
/// Causes below a failure that are told at most.
const CAUSES: usize = 16;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The engine cannot be used on this host.
    EngineUnusable,
    /// The machine could not be started.
    Launch,
    /// The agent was not heard in time.
    AgentSilent,
    /// The guest's kernel panicked.
    GuestPanic,
    /// The guest's memory does not suffice to boot.
    GuestMemory,
    /// The guest powered off or reset by itself.
    GuestEnded,
    /// The engine's process died.
    EngineDied,
    /// The agent answers, and says that the guest is not sound.
    GuestUnsound,
    /// The agent is not one that this supervisor can talk to.
    AgentVersion,
    /// Something in the supervisor itself.
    Supervisor,
    /// The sandbox's network cannot be as it is wanted.
    Network,
    /// The sandbox's secrets cannot be had.
    Secret,
}

/// Why a sandbox failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What kind of thing went wrong.
    pub kind: FailureKind,
    /// What went wrong.
    pub message: String,
    /// Why, the nearest cause first.
    pub causes: Vec<String>,
    /// The end of the guest's console. The guest's words: not to be trusted, nor printed raw.
    pub console: String,
    /// The end of what the engine wrote to its standard error.
    pub engine_stderr: String,
}

impl Failure {
    /// A failure with an error, and the chain of its sources, as the cause.
    pub(crate) fn new(
        kind: FailureKind,
        message: impl Into<String>,
        error: Option<&(dyn Error + 'static)>,
    ) -> Self {
        let mut causes = Vec::new();
        let mut next = error;
        while let Some(error) = next.filter(|_| causes.len() < CAUSES) {
            causes.push(error.to_string());
            next = error.source();
        }
        Self { kind, message: message.into(), causes, console: String::new(), engine_stderr: String::new() }
    }

    /// With the end of the guest's console.
    pub(crate) fn with_console(mut self, console: &[u8]) -> Self {
        let end = &console[console.len().saturating_sub(CONSOLE_BYTES)..];
        self.console = String::from_utf8_lossy(end).into_owned();
        self
    }

    /// A machine that was not launched.
    pub(crate) fn launch(error: &LaunchError) -> Self {
        let kind = match error {
            LaunchError::Unavailable(_) => FailureKind::EngineUnusable,
            _ => FailureKind::Launch,
        };
        Self::new(kind, "the machine could not be started", Some(error))
    }

    /// An agent that was not heard, in a machine that still runs.
    pub(crate) fn connect(error: &ConnectError) -> Self {
        let kind = match error {
            ConnectError::Incompatible { .. } => FailureKind::AgentVersion,
            _ => FailureKind::AgentSilent,
        };
        Self::new(kind, "the guest booted and its agent was not heard", Some(error))
    }

    /// An agent that was heard and then not any more, in a machine that still runs.
    pub(crate) fn lost(lost: &Lost) -> Self {
        Self::new(FailureKind::AgentSilent, "the guest's agent is gone", Some(lost))
    }

    /// A main program whose last output did not come.
    pub(crate) fn output_lost(error: &(dyn Error + 'static)) -> Self {
        Self::new(FailureKind::AgentSilent, "the output of the sandbox's main program is lost", Some(error))
    }

    /// A machine that does not do what it is told.
    pub(crate) fn control(error: &ControlError) -> Self {
        Self::new(FailureKind::EngineDied, "the engine does not do what it was asked", Some(error))
    }

    /// An agent that lives and has forgotten what it was doing.
    pub(crate) fn dropped() -> Self {
        Self::new(FailureKind::AgentSilent, "the guest's agent dropped the command", None)
    }

    /// An agent that did not answer a call.
    pub(crate) fn call(error: &CallError) -> Self {
        Self::new(FailureKind::AgentSilent, "the guest's agent did not do what it was asked", Some(error))
    }

    /// A sandbox that was asked to end, as seen by whoever still wanted something of it.
    pub(crate) fn stopped() -> Self {
        Self::new(FailureKind::GuestEnded, "the sandbox was stopped", None)
    }

    /// The end of a sandbox, as its directory tells it.
    pub(crate) fn of_record(record: &Record) -> Self {
        let mut failure = Self::stopped();
        if record.state == State::Failed {
            "the sandbox failed".clone_into(&mut failure.message);
            failure.kind = FailureKind::Supervisor;
        }
        failure.causes.extend(record.cause.clone());
        failure
    }

    /// In one line: what went wrong, and why.
    pub fn line(&self) -> String {
        let mut line = self.message.clone();
        for cause in &self.causes {
            line.push_str(": ");
            line.push_str(cause);
        }
        line
    }

    /// A machine that ended by itself.
    pub(crate) fn ended(reason: &ExitReason) -> Self {
        let kind = match reason {
            ExitReason::GuestPanicked { out_of_memory: true, .. } => FailureKind::GuestMemory,
            ExitReason::GuestPanicked { .. } => FailureKind::GuestPanic,
            ExitReason::EngineDied { .. } => FailureKind::EngineDied,
            ExitReason::PoweredOff | ExitReason::Reset | ExitReason::Killed => FailureKind::GuestEnded,
        };
        let mut failure = Self::new(kind, "the sandbox ended by itself", None);
        match reason {
            ExitReason::EngineDied { status, stderr } => {
                failure.causes.push(format!("the engine's process ended ({status})"));
                failure.engine_stderr.clone_from(stderr);
            }
            reason => failure.causes.push(reason.to_string()),
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_cut_at_its_beginning() {
        let console = vec![b'x'; 100 << 10];
        let failure = Failure::new(FailureKind::Launch, "m", None).with_console(&console);
        assert_eq!(failure.console.len(), CONSOLE_BYTES);
    }

    #[test]
    fn a_line_has_the_message_and_its_causes() {
        let inner = std::io::Error::other("inner");
        let failure = Failure::new(FailureKind::Launch, "outer", Some(&inner));
        assert_eq!(failure.line(), "outer: inner");
    }
}
