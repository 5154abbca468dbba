//! What a supervisor tells of its sandbox: its state, how it came there, its main program, and why it failed.

pub(crate) mod wire;

use std::time::Duration;

use cellule_engine::HostProcess;
use cellule_protocol::client::{Exit, ExitStatus};

pub use self::wire::UnknownStatus;
use crate::failure::Failure;
use crate::record::{ExitRecord, MainRecord, PhaseRecord, ProcessRecord, StartRecord};
use crate::recovery;
use crate::state::State;

/// A sandbox, at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where it is in its life.
    pub state: State,
    /// How its machine was started, once it was.
    pub start: Option<StartRecord>,
    /// The steps of its start so far.
    pub phases: Vec<Phase>,
    /// Why it failed, or ended by itself.
    pub failure: Option<Failure>,
    /// Its processes on this host.
    pub processes: Vec<(String, u32)>,
    /// Its main program, once it was started.
    pub main: Option<MainStatus>,
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

/// A main program that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainStatus {
    /// In the guest's numbering.
    pub pid: u32,
    /// When it was started: wall clock, nanoseconds since 1970.
    pub started_ns: i64,
    /// How it ended.
    pub exit: Option<ExitStatus>,
}

impl Status {
    /// A sandbox whose supervisor has just begun.
    pub(crate) fn starting() -> Self {
        let supervisor = ("supervisor".to_owned(), std::process::id());
        Self {
            state: State::Starting,
            start: None,
            phases: Vec::new(),
            failure: None,
            processes: vec![supervisor],
            main: None,
        }
    }

    /// Replaces the engine's processes.
    pub(crate) fn set_engine_processes(&mut self, processes: &[HostProcess]) {
        self.processes.truncate(1);
        self.processes.extend(processes.iter().map(|process| ("engine".to_owned(), process.pid)));
    }
}

impl From<&Phase> for PhaseRecord {
    fn from(phase: &Phase) -> Self {
        let took_us = u64::try_from(phase.took.as_micros()).unwrap_or(u64::MAX);
        Self { name: phase.name.clone(), took_us, in_guest: phase.in_guest }
    }
}

impl From<&MainStatus> for MainRecord {
    fn from(main: &MainStatus) -> Self {
        Self { pid: main.pid, started_ns: main.started_ns, exit: main.exit.as_ref().map(ExitRecord::from) }
    }
}

impl From<&ExitStatus> for ExitRecord {
    fn from(status: &ExitStatus) -> Self {
        let (code, signal) = match status.exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
        };
        Self { code, signal, timed_out: status.timed_out, oom_killed: status.oom_killed }
    }
}

/// The engine's processes, with what tells them from others that get their numbers later.
pub(crate) fn process_records(processes: &[(String, u32)]) -> Vec<ProcessRecord> {
    let of_engine = processes.iter().filter(|(role, _)| role == "engine");
    of_engine
        .filter_map(|(role, pid)| {
            let start_time = recovery::start_time(*pid)?;
            Some(ProcessRecord { role: role.clone(), pid: *pid, start_time })
        })
        .collect()
}
