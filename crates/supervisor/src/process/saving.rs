//! Saves the sandbox into a directory of a client's.
//!
//! ```text
//!   files made, ──▶ programs held ──▶ machine paused ──▶ devices, pages, disk saved ──▶ resumed ──▶ released ──▶ files completed
//!   pages copied    └───────────────────── its programs stand still ─────────────────────────┘
//!   ahead
//! ```
//! Whatever fails between, the guest goes on; only one that does not is lost.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cellule_engine::{Machine, SaveError, SavedMachine};
use cellule_network::Network;
use cellule_protocol::client::Session;
use cellule_snapshot::{SandboxSubject, Saving, Subject, shares_blocks};

use super::effects::go_on;
use super::{Done, Supervisor};
use crate::connection::Reply;
use crate::failure::Failure;
use crate::journal::Action;
use crate::life::{Input, Ticket};
use crate::machine::apart;
use crate::save::{SaveOutcome, SaveRequest};
use crate::saved::{SavedMain, SavedSandbox};
use crate::warm::chain;

/// As much of a disk as is copied byte by byte, its programs standing still: some minutes.
const COPIED: u64 = 16 << 30;
/// How long all of it may take. A disk that is slower than a megabyte in a second is none.
const WITHIN: Duration = Duration::from_secs(600);

/// What came of a save: the inner error is why there is none, the outer one why there is no guest either.
pub(super) type Saved = Result<Result<SaveOutcome, String>, Failure>;

/// What saving needs to know from one time to the next.
#[derive(Debug, Default)]
pub(super) struct Saves {
    /// What the machine's memory was at first.
    pub(super) base: Option<File>,
    /// The machine's scratch disk, if it has one.
    pub(super) disk: Option<File>,
    /// What is to be saved, or was and is not answered yet.
    pub(super) asked: HashMap<Ticket, SaveRequest>,
    done: HashMap<Ticket, Result<SaveOutcome, String>>,
    /// Whether the programs of a paused guest were held before.
    pub(super) held: Arc<AtomicBool>,
}

impl Saves {
    /// It was refused.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.asked.remove(&ticket);
    }

    /// What is answered.
    pub(super) fn reply(&mut self, ticket: Ticket) -> Reply {
        match self.done.remove(&ticket) {
            Some(Ok(outcome)) => Reply::Saved(outcome),
            Some(Err(why)) => Reply::Failed(why),
            None => Reply::Failed("it was not saved".to_owned()),
        }
    }
}

impl Supervisor {
    pub(super) fn save(&mut self, ticket: Ticket, paused: bool) {
        let session = self.session.borrow().clone();
        let request = self.saves.asked.remove(&ticket);
        let (Some(machine), Some(session), Some(request)) = (self.machine.clone(), session, request) else {
            return self.pending.push_back(Input::Saved(ticket));
        };
        let copy = |file: &Option<File>| file.as_ref().map(File::try_clone).transpose();
        let files = copy(&self.saves.base).and_then(|base| Ok((base, copy(&self.saves.disk)?)));
        let files = match files {
            Ok(_) if paused && !self.saves.held.load(Ordering::Relaxed) => {
                Err("its programs did not stand still before it was paused; resume it first".to_owned())
            }
            files => files.map_err(|error| chain(&error)),
        };
        let (base, disk) = match files {
            Ok(files) => files,
            Err(why) => {
                self.saves.done.insert(ticket, Err(why));
                return self.pending.push_back(Input::Saved(ticket));
            }
        };
        let job = SaveJob {
            machine,
            session,
            base,
            disk,
            sandbox: SavedSandbox { spec: (*self.spec).clone(), main: None, connections: Vec::new() },
            network: self.network.borrow().clone(),
            name: self.dir.name().map_or_else(|| self.spec.id.to_string(), |name| name.to_string()),
            request,
        };
        let (hub, main) = (self.hub.clone(), self.status.main.clone());
        let main_at = move || {
            let (main, hub) = (main?, hub?);
            let [stdout, stderr] = hub.read();
            Some(SavedMain { started_ns: main.started_ns, stdout, stderr })
        };
        self.jobs.push(Box::pin(async move { Done::Saved(ticket, job.run(paused, main_at).await) }));
    }

    pub(super) fn saved(&mut self, ticket: Ticket, saved: Saved) {
        match saved {
            Ok(outcome) => {
                // Whoever was refused meanwhile, since it was stopped, has nothing of it.
                if self.tickets.contains_key(&ticket) {
                    if outcome.is_ok() {
                        self.tell(Action::Save, None);
                    }
                    self.saves.done.insert(ticket, outcome);
                }
                self.take(Input::Saved(ticket));
            }
            Err(failure) => {
                self.blame(failure);
                self.take(Input::AgentLost);
            }
        }
    }
}

struct SaveJob {
    machine: Arc<dyn Machine>,
    session: Session,
    base: Option<File>,
    disk: Option<File>,
    sandbox: SavedSandbox,
    network: Option<Arc<Network>>,
    name: String,
    request: SaveRequest,
}

impl SaveJob {
    async fn run(mut self, paused: bool, main_at: impl FnOnce() -> Option<SavedMain>) -> Saved {
        let (dir, base, extent) = (self.request.dir.clone(), self.base.take(), self.request.extent);
        let disk = self.disk.take();
        let looked = disk.as_ref().map(File::try_clone).transpose();
        let begun = apart(move || {
            if let Err(why) = looked.map_err(|error| chain(&error)).and_then(|disk| prepare_disk(disk, &dir))
            {
                return Ok(Err(why));
            }
            let saving = Saving::begin(&dir, base.as_ref(), extent).map_err(|error| chain(&error));
            Ok(saving.and_then(|saving| Ok((saving.memory().map_err(|error| chain(&error))?, saving))))
        });
        let (memory, mut saving) = match tokio::time::timeout(WITHIN, begun).await {
            Ok(Ok(Ok(begun))) => begun,
            Ok(Ok(Err(why))) => return Ok(Err(why)),
            Ok(Err(failure)) => return Ok(Err(failure.line())),
            Err(_) => return Ok(Err(too_slow())),
        };
        if !paused {
            // Whatever is wrong with it shows when it counts. But one that goes on would write over what is saved then.
            let Ok(_) = tokio::time::timeout(WITHIN, self.copy_ahead(&memory)).await else {
                return Ok(Err(too_slow()));
            };
        }
        let still = Instant::now();
        let copied = async {
            if !paused {
                self.session.hold().await.map_err(|error| Failure::call(&error).line())?;
                self.machine.pause().await.map_err(|error| chain(&error))?;
            }
            self.sandbox.main = main_at();
            if let Some(network) = &self.network {
                self.sandbox.connections = network.connections().await.map_err(|error| chain(&error))?;
            }
            // A disk is written to by the machine alone.
            let copied = apart(move || {
                let copied = disk.map_or(Ok(()), |disk| saving.copy_disk(&disk));
                Ok(copied.map(|()| saving).map_err(|error| chain(&error)))
            });
            let (saved, saving) = tokio::join!(self.machine.save(memory), copied);
            let saving = saving.map_err(|failure| failure.line())??;
            Ok((saving, saved.map_err(|error| chain(&error))?))
        };
        let copied = match tokio::time::timeout(WITHIN, copied).await {
            Ok(copied) => copied,
            Err(_) => Err(too_slow()),
        };
        if !paused {
            go_on(&*self.machine, &self.session, false).await?;
        }
        let stood = if paused { Duration::ZERO } else { still.elapsed() };
        let (saving, saved) = match copied {
            Ok(copied) => copied,
            Err(why) => return Ok(Err(why)),
        };
        let outcome = SaveOutcome { paused: stood, copied_bytes: saved.changes.bytes() };
        match tokio::time::timeout(WITHIN, self.finish(saving, saved)).await {
            Ok(finished) => Ok(finished.map(|()| outcome)),
            Err(_) => Ok(Err(too_slow())),
        }
    }

    async fn copy_ahead(&self, memory: &File) -> Result<(), SaveError> {
        let source = |source| SaveError::Host { what: "copy ahead", source };
        self.machine.save_ahead(memory.try_clone().map_err(source)?).await
    }

    async fn finish(self, saving: Saving, saved: SavedMachine) -> Result<(), String> {
        let subject = Subject::Sandbox(SandboxSubject {
            name: self.name,
            labels: self.request.labels,
            sandbox: serde_json::to_value(&self.sandbox).map_err(|error| error.to_string())?,
        });
        let durability = self.request.durability;
        let finished =
            apart(move || Ok(saving.finish(subject, &saved, durability).map_err(|error| chain(&error))));
        finished.await.map_err(|failure| failure.line())?.map(drop)
    }
}

/// Looks whether a disk can be copied in time, and writes what is dirty of it, while its programs still run.
fn prepare_disk(disk: Option<File>, dir: &Path) -> Result<(), String> {
    let Some(disk) = disk else { return Ok(()) };
    let bytes = disk.metadata().map_err(|error| chain(&error))?.blocks() * 512;
    if bytes > COPIED && !shares_blocks(&disk, dir) {
        return Err(format!(
            "its disk takes {} GB, and the file system of {} cannot share blocks between files: its programs would stand \
             still for too long; on Btrfs, or XFS, they do not",
            bytes / 1_000_000_000,
            dir.display()
        ));
    }
    // What is wrong with the host's disk is told where it counts.
    _ = disk.sync_data();
    Ok(())
}

fn too_slow() -> String {
    format!("it took longer than {} s", WITHIN.as_secs())
}
