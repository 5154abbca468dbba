//! The way from a saved machine to one that runs on.
//!
//! ```text
//!   QEMU starts, the base mapped ──▶ is it the same QEMU, machine, clock? ──▶ changed pages ──▶ devices ──▶ it runs
//! ```
//! The pages are in their places before the devices are loaded, since those look at their queues in memory.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::host;
use super::memory::{GuestMemory, apart};
use super::process::Process;
use super::qmp::Event;
use super::state::holding;
use crate::{ControlError, DEVICES_MAX, LaunchError, MemorySize, Origin, Pages, SavedMachine};

/// How long QEMU may take to load the devices' state: milliseconds, unless the host is very busy.
const LOADED_WITHIN: Duration = Duration::from_secs(20);

/// A saved machine that looks as it should.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) base: File,
    pub(super) changes: Pages,
    pub(super) devices: File,
    pub(super) origin: Origin,
}

impl Restored {
    pub(super) fn new(saved: SavedMachine, memory: MemorySize) -> Result<Self, LaunchError> {
        let SavedMachine { base, changes, devices, origin } = saved;
        let length = base.metadata().map_err(host("look at the saved memory"))?.len();
        if length != memory.bytes() {
            return Err(LaunchError::Damaged { why: "its memory has not the size of the machine's" });
        }
        if devices.is_empty() || devices.len() > DEVICES_MAX {
            return Err(LaunchError::Damaged { why: "the state of its devices cannot be one" });
        }
        let devices = holding(&devices).map_err(host("make a file in memory"))?;
        Ok(Self { base, changes, devices, origin })
    }
}

/// Puts what differs from the base into the guest's memory.
pub(super) async fn restore(
    changes: Pages,
    process: &Arc<Process>,
    base: &File,
    size: MemorySize,
) -> Result<(), LaunchError> {
    if changes.ranges().is_empty() {
        return Ok(());
    }
    let process = Arc::clone(process);
    let base = base.try_clone().map_err(host("copy a descriptor"))?;
    let fill = move || GuestMemory::find(&process, &base, size)?.copy_in(&changes);
    apart(fill).await.map_err(host("put the saved pages in their places"))
}

/// Waits until the devices are loaded and the guest runs.
pub(super) async fn resumed(events: &mut mpsc::Receiver<Event>) -> Result<(), LaunchError> {
    let resumed = async {
        while let Some(event) = events.recv().await {
            if event == Event::Resume {
                return Ok(());
            }
        }
        Err(ControlError::Closed)
    };
    let command = "migrate-incoming";
    timeout(LOADED_WITHIN, resumed)
        .await
        .unwrap_or(Err(ControlError::Timeout { command, limit: LOADED_WITHIN }))
        .map_err(LaunchError::Control)
}
