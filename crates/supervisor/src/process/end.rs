//! The end of a supervisor: what is left is put in order before the last word is told, and nobody waits for a client.
//!
//! ```text
//!   machine gone ──▶ streams closed ──▶ directory: last state, or removed ──▶ lock freed ──▶ last word told ──▶ farewell
//! ```
//! From the free lock on the sandbox may be started again, by another supervisor, while the clients of this one still
//! take what is theirs.

use std::time::Duration;

use cellule_protocol::client::{Exit, ExitStatus, Usage};

use super::Supervisor;
use crate::directory::{DirectoryError, SandboxDir};
use crate::inherited::complain;
use crate::journal::Action;
use crate::life::{Gate, SIGKILL};
use crate::listener;
use crate::record::{Record, now_ns};
use crate::recorder::Change;
use crate::state::State;

/// How long the disk may take for the end.
const DISK: Duration = Duration::from_secs(10);
/// How long clients may take to read the last state.
const FAREWELL: Duration = Duration::from_secs(15);
/// How long clients may take for the last of the main program's output: somebody may be reading it page by page.
const LAST_OUTPUT: Duration = Duration::from_secs(3600);

impl Supervisor {
    pub(super) async fn end(mut self) -> Result<(), DirectoryError> {
        self.close().await;
        self.killed_main();
        self.status.state = self.life.state();
        self.status.processes.truncate(1);
        self.record.engine_pids.clear();
        self.record.ended_ns = Some(now_ns());
        self.record.supervisor_pid = None;
        self.tell(Action::Die, self.last_words());
        if self.asked_to_stop {
            self.tell(Action::Stop, None);
        }
        let mut record = self.recorded();
        record.bound();
        // A write that hangs would come after ours.
        let settled = self.recorder.settle().await;
        let Self { dir, remove, status, recorder, connections, hub, inbox, tickets, teller, .. } = self;
        // Whoever asks from here on is told that nobody answers.
        drop((inbox, tickets));
        teller.finish(DISK).await;
        let remove = remove || !record.kept;
        let ended = if settled { leave(dir, remove, &record).await } else { Ok(()) };
        if let Err(error) = &ended {
            complain(&error.to_string());
        }
        let lasting = hub.as_ref().is_some_and(crate::hub::Hub::has_clients);
        recorder.finish(Change { record, status, answers: Vec::new() });
        if let Some(hub) = hub {
            _ = tokio::time::timeout(LAST_OUTPUT, hub.delivered()).await;
        }
        let limit = if lasting { LAST_OUTPUT } else { FAREWELL };
        _ = tokio::time::timeout(limit, connections.closed()).await;
        ended
    }

    /// Closes what led to the guest.
    async fn close(&mut self) {
        self.jobs.clear();
        self.start = None;
        self.gate.send_replace(Gate::Closed);
        self.session.send_replace(None);
        self.network.send_replace(None);
        if let Some(logging) = self.logging.take() {
            logging.abort();
        }
        if let Some(machine) = self.machine.take() {
            // Reaps its processes, which takes as long as the kernel takes.
            let reap = tokio::task::spawn_blocking(move || drop(machine));
            _ = tokio::time::timeout(DISK, reap).await;
        }
        if let Some(hub) = &self.hub {
            _ = tokio::time::timeout(DISK, hub.close()).await;
            let gone = hub.rotated_away();
            if gone > 0 {
                complain(&format!(
                    "{gone} bytes of the main program's log were put aside twice, and are gone"
                ));
            }
        }
    }

    /// A main program that ended with its machine, because that was asked for, was killed.
    fn killed_main(&mut self) {
        if self.life.state() == State::Stopped
            && self.status.failure.is_none()
            && let Some(main) = &mut self.status.main
            && main.exit.is_none()
        {
            main.exit = Some(ExitStatus {
                exit: Exit::Signal(SIGKILL),
                core_dumped: false,
                timed_out: false,
                oom_killed: false,
                usage: Usage::default(),
            });
        }
    }

    fn last_words(&self) -> Vec<(&'static str, String)> {
        let mut words = Vec::new();
        if let Some(exit) = self.status.main.as_ref().and_then(|main| main.exit) {
            words.push(match exit.exit {
                Exit::Code(code) => ("exitCode", code.to_string()),
                Exit::Signal(signal) => ("exitCode", (128 + signal).to_string()),
            });
        }
        words.extend(self.cause.clone().map(|cause| ("cause", cause)));
        words
    }
}

/// Removes the directory, or leaves it with its last state. Frees its lock.
async fn leave(mut dir: SandboxDir, remove: bool, record: &Record) -> Result<(), DirectoryError> {
    let record = record.clone();
    let leave = move || {
        let left = if remove {
            // What cannot be removed is at least known to have ended.
            dir.clear().inspect_err(|_| drop(dir.write_record(&record)))
        } else {
            dir.write_record(&record)
        };
        listener::remove(dir.path());
        dir.unlock();
        left
    };
    match tokio::time::timeout(DISK, tokio::task::spawn_blocking(leave)).await {
        Ok(Ok(left)) => left,
        // The lock goes with the process; whoever looks then finds a supervisor that was killed.
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}
