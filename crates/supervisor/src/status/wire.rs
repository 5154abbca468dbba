//! A status, and what belongs to it, as it goes over the wire.

use std::time::Duration;

use cellule_protocol::client::{Exit, ExitStatus, StartFailure, StartFailureKind, exit_status};
use cellule_protocol::supervisor::v1;
use cellule_protocol::v1 as agent;
use prost::Message as _;

use super::{MainStatus, Phase, Status};
use crate::failure::{Failure, FailureKind};
use crate::record::StartRecord;
use crate::state::State;

impl From<&Status> for v1::Status {
    fn from(status: &Status) -> Self {
        let phases = status.phases.iter().map(|phase| v1::Phase {
            name: phase.name.clone(),
            took_us: micros(phase.took),
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
        let main = status.main.as_ref().map(|main| v1::MainProgram {
            pid: main.pid,
            started_ns: main.started_ns,
            exited: main.exit.as_ref().map(|exit| exited(exit).encode_to_vec()).unwrap_or_default(),
        });
        Self {
            state: state_to_wire(status.state).into(),
            phases: phases.collect(),
            failure,
            processes: processes.collect(),
            main,
            start: status.start.as_ref().map(|start| v1::Start {
                template: start.template.clone().unwrap_or_default(),
                note: start.note.clone().unwrap_or_default(),
                saved: start.saved.clone().unwrap_or_default(),
            }),
        }
    }
}

/// A status that this version does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnknownStatus {
    /// A state that this version does not know.
    #[error("the supervisor reports a state that this version does not know")]
    State,
    /// An end of the main program that this version does not know.
    #[error("the supervisor reports an exit that this version does not know")]
    Exit,
}

impl TryFrom<v1::Status> for Status {
    type Error = UnknownStatus;

    fn try_from(status: v1::Status) -> Result<Self, UnknownStatus> {
        let state = state_from_wire(status.state()).ok_or(UnknownStatus::State)?;
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
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Self {
            state,
            start: status.start.map(|start| StartRecord {
                template: said(start.template),
                note: said(start.note),
                saved: said(start.saved),
            }),
            phases: status.phases.into_iter().map(phase).collect(),
            failure,
            processes: status.processes.into_iter().map(|process| (process.role, process.pid)).collect(),
            main: status.main.as_ref().map(main_from_wire).transpose()?,
        })
    }
}

fn main_from_wire(main: &v1::MainProgram) -> Result<MainStatus, UnknownStatus> {
    let exit = if main.exited.is_empty() {
        None
    } else {
        let exited = agent::Exited::decode(main.exited.as_slice()).map_err(|_| UnknownStatus::Exit)?;
        Some(exit_status(&exited).map_err(|_| UnknownStatus::Exit)?)
    };
    Ok(MainStatus { pid: main.pid, started_ns: main.started_ns, exit })
}

fn exited(status: &ExitStatus) -> agent::Exited {
    let how = match status.exit {
        Exit::Code(code) => agent::exited::How::Code(code.into()),
        Exit::Signal(signal) => agent::exited::How::Signal(signal),
    };
    agent::Exited {
        how: Some(how),
        core_dumped: status.core_dumped,
        timed_out: status.timed_out,
        oom_killed: status.oom_killed,
        max_rss_bytes: status.usage.max_rss,
        user_us: micros(status.usage.user),
        system_us: micros(status.usage.system),
        memory_peak_bytes: status.usage.memory_peak,
        cpu_us: micros(status.usage.cpu),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The agent's message for a program that could not be started.
pub(crate) fn start_failure_to_wire(failure: &StartFailure) -> Vec<u8> {
    use agent::start_failure::Kind;
    let kind = match failure.kind {
        StartFailureKind::NotFound => Kind::NotFound,
        StartFailureKind::NotExecutable => Kind::NotExecutable,
        StartFailureKind::UnknownUser => Kind::UnknownUser,
        StartFailureKind::UnknownGroup => Kind::UnknownGroup,
        StartFailureKind::BadWorkingDirectory => Kind::BadWorkingDirectory,
        StartFailureKind::InvalidArgument => Kind::InvalidArgument,
        StartFailureKind::ResourceExhausted => Kind::ResourceExhausted,
        StartFailureKind::NoRootFilesystem => Kind::NoRootFilesystem,
        StartFailureKind::Internal => Kind::Internal,
    };
    let (field, message) = (failure.field.clone(), failure.message.clone());
    agent::StartFailure { kind: kind.into(), field, message, errno: failure.errno }.encode_to_vec()
}

/// Why a program could not be started, as the supervisor passed it on; `None` if it says nothing that can be read.
pub(crate) fn start_failure_from_wire(bytes: &[u8]) -> Option<StartFailure> {
    agent::StartFailure::decode(bytes).ok().map(StartFailure::from)
}

fn state_to_wire(state: State) -> v1::State {
    match state {
        // A supervisor never reports it: it is the state of a sandbox that has none.
        State::Created => v1::State::Unspecified,
        State::Starting => v1::State::Starting,
        State::Running => v1::State::Running,
        State::Pausing => v1::State::Pausing,
        State::Paused => v1::State::Paused,
        State::Resuming => v1::State::Resuming,
        State::Saving => v1::State::Saving,
        State::Stopping => v1::State::Stopping,
        State::Stopped => v1::State::Stopped,
        State::Failed => v1::State::Failed,
    }
}

fn state_from_wire(state: v1::State) -> Option<State> {
    Some(match state {
        v1::State::Starting => State::Starting,
        v1::State::Running => State::Running,
        v1::State::Pausing => State::Pausing,
        v1::State::Paused => State::Paused,
        v1::State::Resuming => State::Resuming,
        v1::State::Saving => State::Saving,
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
        FailureKind::Network => Kind::Network,
        FailureKind::Secret => Kind::Secret,
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
        Kind::Network => FailureKind::Network,
        Kind::Secret => FailureKind::Secret,
        Kind::Supervisor | Kind::Unspecified => FailureKind::Supervisor,
    }
}

#[cfg(test)]
mod tests {
    use cellule_protocol::client::Usage;

    use super::*;

    #[test]
    fn a_status_survives_the_wire() {
        let mut failure = Failure::new(FailureKind::GuestPanic, "m", Some(&std::io::Error::other("c")));
        failure.engine_stderr = "e".into();
        let exit = ExitStatus {
            exit: Exit::Signal(9),
            core_dumped: true,
            timed_out: true,
            oom_killed: true,
            usage: Usage { memory_peak: 5, cpu: Duration::from_micros(6), ..Usage::default() },
        };
        let status = Status {
            state: State::Failed,
            start: Some(StartRecord {
                template: Some("0a".into()),
                note: None,
                saved: Some("a fork".into()),
            }),
            phases: vec![Phase { name: "boot".into(), took: Duration::from_millis(7), in_guest: true }],
            failure: Some(failure.with_console(b"panic\xff")),
            processes: vec![("supervisor".into(), 1), ("engine".into(), 2)],
            main: Some(MainStatus { pid: 3, started_ns: 4, exit: Some(exit) }),
        };
        let back = Status::try_from(v1::Status::from(&status)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{status:?}"));
    }

    #[test]
    fn what_comes_from_the_future_is_refused() {
        let state = v1::Status { state: 99, ..v1::Status::default() };
        assert_eq!(Status::try_from(state).unwrap_err(), UnknownStatus::State);
        // A program that ended and does not say how must not be taken for one that ended well.
        let main = v1::MainProgram {
            exited: agent::Exited { core_dumped: true, ..agent::Exited::default() }.encode_to_vec(),
            ..v1::MainProgram::default()
        };
        let exit = v1::Status { state: v1::State::Running.into(), main: Some(main), ..v1::Status::default() };
        assert_eq!(Status::try_from(exit).unwrap_err(), UnknownStatus::Exit);
    }

    #[test]
    fn a_failed_start_survives_the_wire() {
        let failure = StartFailure {
            kind: StartFailureKind::UnknownUser,
            field: "user".into(),
            message: "m".into(),
            errno: 2,
        };
        let back = start_failure_from_wire(&start_failure_to_wire(&failure)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{failure:?}"));
    }
}
