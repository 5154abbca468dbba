//! What a supervisor tells of its sandbox: its state, how it came there, and why it failed.

use std::error::Error;
use std::time::Duration;

use cellule_engine::{ExitReason, HostProcess, LaunchError};
use cellule_protocol::client::{CallError, ConnectError, Lost};
use cellule_protocol::supervisor::v1;

use crate::state::State;

/// Lines of a guest's console that a failure carries are bounded by this many bytes.
const CONSOLE_BYTES: usize = 8 << 10;
/// Causes below a failure that are told at most.
const CAUSES: usize = 16;

/// A sandbox, at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where it is in its life.
    pub state: State,
    /// The steps of its start so far.
    pub phases: Vec<Phase>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Its processes on this host.
    pub processes: Vec<(String, u32)>,
}

/// A step of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// Whether the guest measured it, as a part of the phase before.
    pub in_guest: bool,
}

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

    /// An agent that lives and has forgotten what it was doing.
    pub(crate) fn dropped() -> Self {
        Self::new(FailureKind::AgentSilent, "the guest's agent dropped the command", None)
    }

    /// An agent that did not answer a call.
    pub(crate) fn call(error: &CallError) -> Self {
        Self::new(FailureKind::AgentSilent, "the guest's agent did not do what it was asked", Some(error))
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

impl Status {
    /// A sandbox whose supervisor has just begun.
    pub(crate) fn starting() -> Self {
        let supervisor = ("supervisor".to_owned(), std::process::id());
        Self { state: State::Starting, phases: Vec::new(), failure: None, processes: vec![supervisor] }
    }

    /// Replaces the engine's processes.
    pub(crate) fn set_engine_processes(&mut self, processes: &[HostProcess]) {
        self.processes.truncate(1);
        self.processes.extend(processes.iter().map(|process| ("engine".to_owned(), process.pid)));
    }
}

impl From<&Status> for v1::Status {
    fn from(status: &Status) -> Self {
        let phases = status.phases.iter().map(|phase| v1::Phase {
            name: phase.name.clone(),
            took_us: u64::try_from(phase.took.as_micros()).unwrap_or(u64::MAX),
            in_guest: phase.in_guest,
        });
        let failure = status.failure.as_ref().map(|failure| v1::Failure {
            kind: kind_to_wire(failure.kind).into(),
            message: failure.message.clone(),
            causes: failure.causes.clone(),
            console: failure.console.clone(),
            engine_stderr: failure.engine_stderr.clone(),
        });
        let processes =
            status.processes.iter().map(|(role, pid)| v1::HostProcess { role: role.clone(), pid: *pid });
        Self {
            state: state_to_wire(status.state).into(),
            phases: phases.collect(),
            failure,
            processes: processes.collect(),
        }
    }
}

/// A status of no kind that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor reports a state that this version does not know")]
pub struct UnknownState;

impl TryFrom<v1::Status> for Status {
    type Error = UnknownState;

    fn try_from(status: v1::Status) -> Result<Self, UnknownState> {
        let state = state_from_wire(status.state()).ok_or(UnknownState)?;
        let phase = |phase: v1::Phase| Phase {
            name: phase.name,
            took: Duration::from_micros(phase.took_us),
            in_guest: phase.in_guest,
        };
        let failure = status.failure.map(|failure| Failure {
            kind: kind_from_wire(failure.kind()),
            message: failure.message,
            causes: failure.causes,
            console: failure.console,
            engine_stderr: failure.engine_stderr,
        });
        Ok(Self {
            state,
            phases: status.phases.into_iter().map(phase).collect(),
            failure,
            processes: status.processes.into_iter().map(|process| (process.role, process.pid)).collect(),
        })
    }
}

fn state_to_wire(state: State) -> v1::State {
    match state {
        State::Starting => v1::State::Starting,
        State::Running => v1::State::Running,
        State::Stopping => v1::State::Stopping,
        State::Stopped => v1::State::Stopped,
        State::Failed => v1::State::Failed,
    }
}

fn state_from_wire(state: v1::State) -> Option<State> {
    Some(match state {
        v1::State::Starting => State::Starting,
        v1::State::Running => State::Running,
        v1::State::Stopping => State::Stopping,
        v1::State::Stopped => State::Stopped,
        v1::State::Failed => State::Failed,
        v1::State::Unspecified => return None,
    })
}

fn kind_to_wire(kind: FailureKind) -> v1::failure::Kind {
    use v1::failure::Kind;
    match kind {
        FailureKind::EngineUnusable => Kind::EngineUnusable,
        FailureKind::Launch => Kind::Launch,
        FailureKind::AgentSilent => Kind::AgentSilent,
        FailureKind::GuestPanic => Kind::GuestPanic,
        FailureKind::GuestMemory => Kind::GuestMemory,
        FailureKind::GuestEnded => Kind::GuestEnded,
        FailureKind::EngineDied => Kind::EngineDied,
        FailureKind::GuestUnsound => Kind::GuestUnsound,
        FailureKind::AgentVersion => Kind::AgentVersion,
        FailureKind::Supervisor => Kind::Supervisor,
    }
}

fn kind_from_wire(kind: v1::failure::Kind) -> FailureKind {
    use v1::failure::Kind;
    match kind {
        Kind::EngineUnusable => FailureKind::EngineUnusable,
        Kind::Launch => FailureKind::Launch,
        Kind::AgentSilent => FailureKind::AgentSilent,
        Kind::GuestPanic => FailureKind::GuestPanic,
        Kind::GuestMemory => FailureKind::GuestMemory,
        Kind::GuestEnded => FailureKind::GuestEnded,
        Kind::EngineDied => FailureKind::EngineDied,
        Kind::GuestUnsound => FailureKind::GuestUnsound,
        Kind::AgentVersion => FailureKind::AgentVersion,
        // A newer supervisor may know kinds that we don't; its words still say what it is.
        Kind::Supervisor | Kind::Unspecified => FailureKind::Supervisor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_the_wire() {
        let mut failure = Failure::new(FailureKind::GuestPanic, "m", Some(&std::io::Error::other("c")));
        failure.engine_stderr = "e".into();
        let status = Status {
            state: State::Failed,
            phases: vec![Phase { name: "boot".into(), took: Duration::from_millis(7), in_guest: true }],
            failure: Some(failure.with_console(b"panic\xff")),
            processes: vec![("supervisor".into(), 1), ("engine".into(), 2)],
        };
        let back = Status::try_from(v1::Status::from(&status)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{status:?}"));
    }

    #[test]
    fn a_state_from_the_future_is_refused() {
        assert_eq!(
            Status::try_from(v1::Status { state: 99, ..Default::default() }).unwrap_err(),
            UnknownState
        );
    }

    #[test]
    fn a_console_is_cut_at_its_beginning() {
        let console = vec![b'x'; 100 << 10];
        let failure = Failure::new(FailureKind::Launch, "m", None).with_console(&console);
        assert_eq!(failure.console.len(), CONSOLE_BYTES);
    }
}
