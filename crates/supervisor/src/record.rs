//! The state of a sandbox as its directory keeps it. Owns the format of `state.json`.
//!
//! Written by the holder of the directory's lock alone. Who reads it takes it for what a file is: it may be anybody's.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use cellule_network::Forward;
use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentError};
use crate::spec::FORMAT;
use crate::state::State;

/// Bounds of what is written, and so of what is taken.
const PHASES: usize = 128;
const PROCESSES: usize = 16;
pub(crate) const WORDS: usize = 512;
pub(crate) const CAUSE: usize = 4 << 10;

/// The state of a sandbox, as last written. Times are of the wall clock, in nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The format of this document, [`FORMAT`].
    pub format: u32,
    /// Where it is in its life.
    pub state: State,
    /// When it came there.
    pub changed_ns: i64,
    /// Whether somebody may rely on it: it was made to be started later, or it ran. What was never kept is removed with
    /// whoever made it.
    pub kept: bool,
    /// How often its machine was started.
    pub starts: u32,
    /// When its machine was last started.
    pub started_ns: Option<i64>,
    /// When its machine last ended.
    pub ended_ns: Option<i64>,
    /// Why it failed, or ended by itself.
    pub cause: Option<String>,
    /// Its main program, once it was started.
    pub main: Option<MainRecord>,
    /// The process that owns it, while there is one.
    pub supervisor_pid: Option<u32>,
    /// The processes of the engine.
    pub engine_pids: Vec<ProcessRecord>,
    /// How the machine was last started.
    pub start: Option<StartRecord>,
    /// The steps of the last start.
    pub phases: Vec<PhaseRecord>,
    /// What the guest was asked to keep of its machine's memory, in MiB, if that is not all of it.
    pub memory_target_mib: Option<u64>,
    /// The ports of the host that lead in, with those that were chosen.
    pub ports: Vec<Forward>,
    /// The boot of the host that it was last started in.
    pub boot_id: String,
}

/// A main program that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MainRecord {
    /// In the guest's numbering.
    pub pid: u32,
    /// When it was started.
    pub started_ns: i64,
    /// How it ended.
    pub exit: Option<ExitRecord>,
}

/// How a main program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitRecord {
    /// Its code, unless a signal killed it.
    pub code: Option<u8>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Whether it was killed for its time limit.
    pub timed_out: bool,
    /// Whether the kernel killed one of its processes for want of memory.
    pub oom_killed: bool,
}

/// A process of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessRecord {
    /// What it does.
    pub role: String,
    /// Its number.
    pub pid: u32,
    /// When it began, as in field 22 of `/proc/PID/stat`: another one of the same number began at another time.
    pub start_time: u64,
}

/// How a machine was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRecord {
    /// The template that it was restored from; without one its kernel booted.
    pub template: Option<String>,
    /// Why it was not restored, where it should have been, or that its template had to be made.
    pub note: Option<String>,
    /// What it goes on from, in words for people, if it was saved as a sandbox's.
    pub saved: Option<String>,
}

/// A step of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseRecord {
    /// What was done.
    pub name: String,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// Whether the guest measured it, as a part of the phase before.
    pub in_guest: bool,
}

impl Record {
    /// Larger than any that keeps the bounds above.
    pub(crate) const LIMIT: u64 = 1 << 20;

    /// Of a sandbox that was just made.
    pub(crate) fn created() -> Self {
        Self {
            format: FORMAT,
            state: State::Created,
            changed_ns: now_ns(),
            kept: false,
            starts: 0,
            started_ns: None,
            ended_ns: None,
            cause: None,
            main: None,
            supervisor_pid: None,
            engine_pids: Vec::new(),
            start: None,
            phases: Vec::new(),
            memory_target_mib: None,
            ports: Vec::new(),
            boot_id: boot_id(),
        }
    }

    /// The same sandbox, whose supervisor is about to be started.
    pub(crate) fn starting(&self) -> Self {
        let now = now_ns();
        Self {
            state: State::Starting,
            changed_ns: now,
            kept: self.kept,
            starts: self.starts.saturating_add(1),
            memory_target_mib: None,
            started_ns: Some(now),
            ..Self::created()
        }
    }

    /// A sandbox of which nothing is known but that it does not run.
    pub(crate) fn lost() -> Self {
        Self {
            state: State::Stopped,
            kept: true,
            cause: Some("its state was lost".to_owned()),
            ..Self::created()
        }
    }

    /// Reads the contents of a `state.json`.
    ///
    /// # Errors
    /// It is not a document of this version's, or larger than this version writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let record: Self = document::parse(bytes)?;
        record.check()?;
        Ok(record)
    }

    fn check(&self) -> Result<(), DocumentError> {
        let bounded = |text: &str| text.len() <= 4 * WORDS;
        let exit = self.main.as_ref().and_then(|main| main.exit);
        let fits = [
            ("boot_id", bounded(&self.boot_id)),
            ("cause", self.cause.as_ref().is_none_or(|cause| cause.len() <= 4 * CAUSE)),
            (
                "start",
                self.start.as_ref().is_none_or(|start| {
                    [&start.template, &start.note, &start.saved]
                        .into_iter()
                        .all(|text| text.as_deref().is_none_or(bounded))
                }),
            ),
            ("phases", self.phases.len() <= PHASES && self.phases.iter().all(|phase| bounded(&phase.name))),
            (
                "engine_pids",
                self.engine_pids.len() <= PROCESSES
                    && self.engine_pids.iter().all(|process| bounded(&process.role) && is_pid(process.pid)),
            ),
            ("supervisor_pid", self.supervisor_pid.is_none_or(is_pid)),
            ("exit", exit.is_none_or(|exit| exit.code.is_some() != exit.signal.is_some())),
            ("signal", exit.and_then(|exit| exit.signal).is_none_or(|signal| (1..=64).contains(&signal))),
        ];
        match fits.into_iter().find(|(_, fits)| !fits) {
            Some((field, _)) => Err(DocumentError::Bounds { field }),
            None => Ok(()),
        }
    }

    /// Cuts what is too long to be written.
    pub(crate) fn bound(&mut self) {
        self.phases.truncate(PHASES);
        self.engine_pids.truncate(PROCESSES);
        for phase in &mut self.phases {
            phase.name = cut(&phase.name, WORDS);
        }
        if let Some(start) = &mut self.start {
            start.template = start.template.as_deref().map(|template| cut(template, WORDS));
            start.note = start.note.as_deref().map(|note| cut(note, WORDS));
            start.saved = start.saved.as_deref().map(|saved| cut(saved, WORDS));
        }
        self.cause = self.cause.as_deref().map(|cause| cut(cause, CAUSE));
    }
}

fn is_pid(pid: u32) -> bool {
    (1..=i32::MAX.unsigned_abs()).contains(&pid)
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// The wall clock.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Which boot of the host this is; empty if the kernel does not say.
pub(crate) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    cut(id.trim(), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Record {
        Record {
            state: State::Paused,
            kept: true,
            cause: Some("why".to_owned()),
            main: Some(MainRecord {
                pid: 7,
                started_ns: 1,
                exit: Some(ExitRecord { code: Some(3), signal: None, timed_out: false, oom_killed: true }),
            }),
            supervisor_pid: Some(12),
            engine_pids: vec![ProcessRecord { role: "engine".to_owned(), pid: 13, start_time: 99 }],
            start: Some(StartRecord {
                template: Some("0a".to_owned()),
                note: Some("made".to_owned()),
                saved: None,
            }),
            phases: vec![PhaseRecord { name: "boot".to_owned(), took_us: 5, in_guest: false }],
            ..Record::created().starting()
        }
    }

    fn parse(record: &Record) -> Result<Record, DocumentError> {
        Record::parse(&serde_json::to_vec(record).unwrap())
    }

    #[test]
    fn what_was_written_is_read() {
        let record = full();
        assert_eq!(parse(&record).unwrap(), record);
        assert_eq!(parse(&Record::created()).unwrap().state, State::Created);
    }

    #[test]
    fn one_field_out_of_bounds_is_refused_and_named() {
        let with = |change: &dyn Fn(&mut Record)| {
            let mut record = full();
            change(&mut record);
            match parse(&record) {
                Err(DocumentError::Bounds { field }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(with(&|record| record.boot_id = "x".repeat(10_000)), "boot_id");
        assert_eq!(with(&|record| record.cause = Some("x".repeat(100_000))), "cause");
        assert_eq!(with(&|record| record.phases = vec![record.phases[0].clone(); 1000]), "phases");
        assert_eq!(with(&|record| record.start.as_mut().unwrap().note = Some("x".repeat(10_000))), "start");
        assert_eq!(with(&|record| record.engine_pids[0].pid = 0), "engine_pids");
        assert_eq!(with(&|record| record.supervisor_pid = Some(u32::MAX)), "supervisor_pid");
        let exit = |code, signal| ExitRecord { code, signal, timed_out: false, oom_killed: false };
        let set = |record: &mut Record, exit| record.main.as_mut().unwrap().exit = Some(exit);
        assert_eq!(with(&|record| set(record, exit(None, None))), "exit");
        assert_eq!(with(&|record| set(record, exit(Some(0), Some(9)))), "exit");
        assert_eq!(with(&|record| set(record, exit(None, Some(99)))), "signal");
    }

    #[test]
    fn another_format_and_a_half_document_are_refused() {
        let text = serde_json::to_string(&full()).unwrap();
        let other = text.replace(&format!("\"format\":{FORMAT}"), "\"format\":99");
        assert!(matches!(Record::parse(other.as_bytes()), Err(DocumentError::Format { found: 99 })));
        assert!(matches!(Record::parse(&text.as_bytes()[..text.len() / 2]), Err(DocumentError::Shape(_))));
        let unknown = text.replace("\"cause\"", "\"cuase\"");
        assert!(matches!(Record::parse(unknown.as_bytes()), Err(DocumentError::Shape(_))));
    }

    #[test]
    fn what_is_bounded_before_it_is_written_is_read_again() {
        let mut record = full();
        record.cause = Some("ü".repeat(100_000));
        record.phases = vec![record.phases[0].clone(); 1000];
        record.start.as_mut().unwrap().note = Some("ü".repeat(100_000));
        record.bound();
        assert_eq!(parse(&record).unwrap(), record);
    }
}
