//! A machine in a QEMU process, and how the reason of its end is put together.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::command::STATE_FILE;
use super::memory::{GuestMemory, apart, without};
use super::port::Port;
use super::process::{End, Process};
use super::qmp::{Event, LIMIT, Qmp};
use super::state::StateFile;
use super::{GRACE, balloon};
use crate::console::Console;
use crate::exit::panic_in;
use crate::{
    AgentStream, ConnectError, ControlError, ExitReason, HostProcess, Machine, MachineState, MemorySize,
    Origin, PageRange, Pages, ProcessRole, SaveError, SavedMachine,
};

/// How long the rest of the console may take once QEMU is gone.
const CONSOLE_LIMIT: Duration = Duration::from_secs(1);

/// How long QEMU may take to stop the processors of a machine with a disk: it writes all that is dirty of the disk first.
const FLUSHED: Duration = Duration::from_secs(120);

/// How often pages are copied again because something came over the agent's port meanwhile.
const RESTLESS: usize = 20;

/// What a machine is put together from.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) process: Arc<Process>,
    pub(super) qmp: Qmp,
    pub(super) console: Console,
    pub(super) port: Port,
    pub(super) state: StateFile,
    /// What the memory was at first.
    pub(super) base: File,
    pub(super) memory: MemorySize,
    pub(super) origin: Origin,
    /// Disks that the guest writes to.
    pub(super) disks: Vec<File>,
}

#[derive(Debug)]
pub(super) struct QemuMachine {
    shared: Arc<Shared>,
    qmp: Qmp,
    state: watch::Receiver<MachineState>,
    port: Port,
    /// One save at a time.
    saved: Mutex<StateFile>,
    base: File,
    memory: MemorySize,
    origin: Origin,
    disks: Vec<File>,
    /// What was copied ahead of the save to come.
    ahead: std::sync::Mutex<Vec<PageRange>>,
}

/// What the machine and the task that follows its events both hold.
#[derive(Debug)]
struct Shared {
    process: Arc<Process>,
    console: Console,
    /// Whether we killed it.
    killed: AtomicBool,
}

impl QemuMachine {
    pub(super) fn new(
        parts: Parts,
        events: mpsc::Receiver<Event>,
        console_end: oneshot::Receiver<()>,
    ) -> Self {
        let Parts { process, qmp, console, port, state: saved, base, memory, origin, disks } = parts;
        let (sender, state) = watch::channel(MachineState::Running);
        let shared = Arc::new(Shared { process, console, killed: AtomicBool::new(false) });
        tokio::spawn(follow(Arc::clone(&shared), events, console_end, sender));
        let (saved, ahead) = (Mutex::new(saved), std::sync::Mutex::default());
        Self { shared, qmp, state, port, saved, base, memory, origin, disks, ahead }
    }

    /// Has QEMU write the state of processors and devices.
    async fn save_devices(&self, file: &mut StateFile) -> Result<Vec<u8>, SaveError> {
        let failed = |source| SaveError::Host { what: "make room for the devices' state", source };
        file.clear().map_err(failed)?;
        // Not as a part of moving the machine elsewhere, for which QEMU would let go of the disks.
        let arguments = json!({ "filename": STATE_FILE, "live": false });
        if let Err(error) = self.qmp.execute_with("xen-save-devices-state", arguments).await {
            return Err(self.explain(error).await.into());
        }
        file.take()
    }

    /// The state of the devices, and the pages that differ from the base, of one moment.
    ///
    /// The processors stand still, and yet what comes over the agent's port is put into the guest's memory. So the devices
    /// are saved before and after: as long as they are not the same, pages may have been copied on either side of a change.
    /// It ends: a guest that stands still has no more buffers before long.
    async fn copy_still(
        &self,
        file: &mut StateFile,
        memory: File,
        ahead: Vec<PageRange>,
    ) -> Result<(Vec<u8>, Pages), SaveError> {
        // One asks QEMU, the other its process.
        let again = || memory.try_clone().map_err(not_kept);
        let (before, changes) = tokio::join!(self.save_devices(file), self.copy_changes(again()?, ahead));
        let (mut devices, mut changes) = (before?, changes?);
        for _ in 0..RESTLESS {
            let after = self.save_devices(file).await?;
            if after == devices {
                return Ok((devices, changes));
            }
            (devices, changes) = (after, self.copy_changes(again()?, Vec::new()).await?);
        }
        let source = io::Error::other("what comes over the agent's port never ends");
        Err(SaveError::Host { what: "keep the guest's memory", source })
    }

    /// Copies the pages that differ from the base; and those that did and that the guest has given back since, which have the
    /// base's bytes again.
    async fn copy_changes(&self, memory: File, ahead: Vec<PageRange>) -> Result<Pages, SaveError> {
        let (process, size) = (Arc::clone(&self.shared.process), self.memory);
        let base = self.base.try_clone().map_err(not_kept)?;
        let copy = move || {
            let guest = GuestMemory::find(&process, &base, size)?;
            let ranges = guest.changed()?;
            memory.set_len(size.bytes())?;
            guest.copy_out(&ranges, &memory)?;
            guest.copy_out(&without(&ahead, &ranges), &memory)?;
            Pages::new(memory, ranges, size).map_err(io::Error::other)
        };
        apart(copy).await.map_err(not_kept)
    }

    /// Has QEMU execute a command, and waits until its event is heard too.
    async fn turn(
        &self,
        command: &'static str,
        to: MachineState,
        limit: Duration,
    ) -> Result<(), ControlError> {
        if let Err(error) = self.qmp.execute_within(command, limit).await {
            return Err(self.explain(error).await);
        }
        let mut state = self.state.clone();
        let reached = |now: &MachineState| *now == to || matches!(now, MachineState::Exited(_));
        let now = timeout(GRACE, async { state.wait_for(reached).await.map(|now| now.clone()) }).await;
        match now {
            Ok(Ok(MachineState::Exited(reason))) => Err(ControlError::Exited(reason)),
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.explain(ControlError::Timeout { command, limit: GRACE }).await),
        }
    }

    /// The same of what a machine goes on without.
    async fn explained<T>(&self, result: Result<T, ControlError>) -> Result<T, ControlError> {
        match result {
            Err(error @ ControlError::Closed) => Err(self.explain(error).await),
            other => other,
        }
    }

    /// A QEMU that doesn't answer is of no use and is killed. One that hung up is about to end: the reason of the end
    /// says more.
    async fn explain(&self, error: ControlError) -> ControlError {
        match error {
            ControlError::Timeout { .. } => {
                self.shared.process.kill();
                error
            }
            ControlError::Closed => match timeout(GRACE, self.wait()).await {
                Ok(reason) => ControlError::Exited(reason),
                Err(_) => error,
            },
            other => other,
        }
    }
}

fn not_kept(source: io::Error) -> SaveError {
    SaveError::Host { what: "keep the guest's memory", source }
}

#[async_trait]
impl Machine for QemuMachine {
    async fn connect(&self) -> Result<AgentStream, ConnectError> {
        match self.port.connect().await {
            // Nobody listens: QEMU is gone or going.
            Err(error @ ConnectError::Socket { .. }) => match timeout(GRACE, self.wait()).await {
                Ok(reason) => Err(ConnectError::Exited(reason)),
                Err(_) => Err(error),
            },
            other => other,
        }
    }

    async fn pause(&self) -> Result<(), ControlError> {
        if self.disks.is_empty() {
            return self.turn("stop", MachineState::Paused, LIMIT).await;
        }
        // As far as it can be, while the guest goes on. What is wrong with the disk its guest hears of.
        for disk in &self.disks {
            if let Ok(disk) = disk.try_clone() {
                _ = timeout(FLUSHED, apart(move || disk.sync_data())).await;
            }
        }
        self.turn("stop", MachineState::Paused, FLUSHED).await
    }

    async fn resume(&self) -> Result<(), ControlError> {
        self.turn("cont", MachineState::Running, LIMIT).await
    }

    async fn save(&self, memory: File) -> Result<SavedMachine, SaveError> {
        let mut file = self.saved.lock().await;
        match self.state() {
            MachineState::Paused => {}
            MachineState::Running => return Err(SaveError::NotPaused),
            MachineState::Exited(reason) => return Err(ControlError::Exited(reason).into()),
        }
        let ahead = std::mem::take(&mut *self.ahead.lock().unwrap_or_else(PoisonError::into_inner));
        let (devices, changes) = self.copy_still(&mut file, memory, ahead).await?;
        // Somebody may have let it go on meanwhile; then what was copied is of no use.
        match self.state() {
            MachineState::Exited(reason) => Err(ControlError::Exited(reason).into()),
            MachineState::Running => Err(SaveError::NotPaused),
            MachineState::Paused => {
                let base = self.base.try_clone().map_err(not_kept)?;
                Ok(SavedMachine { base, changes, devices, origin: self.origin.clone() })
            }
        }
    }

    async fn save_ahead(&self, memory: File) -> Result<(), SaveError> {
        let copied = self.copy_changes(memory, Vec::new()).await;
        match copied {
            Err(_) if matches!(self.state(), MachineState::Exited(_)) => {
                Err(ControlError::Exited(self.wait().await).into())
            }
            copied => {
                let ranges = copied?.ranges().to_vec();
                *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = ranges;
                Ok(())
            }
        }
    }

    async fn set_memory(&self, target: MemorySize) -> Result<(), ControlError> {
        let asked = balloon::ask(&self.qmp, target.min(self.memory)).await;
        self.explained(asked).await
    }

    async fn memory(&self) -> Result<u64, ControlError> {
        let left = balloon::left(&self.qmp, self.memory).await;
        self.explained(left).await
    }

    fn state(&self) -> MachineState {
        self.state.borrow().clone()
    }

    fn kill(&self) {
        self.shared.killed.store(true, Ordering::Release);
        self.shared.process.kill();
    }

    async fn wait(&self) -> ExitReason {
        let mut state = self.state.clone();
        loop {
            if let MachineState::Exited(reason) = &*state.borrow_and_update() {
                return reason.clone();
            }
            if state.changed().await.is_err() {
                // The task that follows the events went down with its runtime. It never gets here while one runs.
                return ExitReason::Killed;
            }
        }
    }

    fn console(&self) -> Vec<u8> {
        self.shared.console.tail()
    }

    fn processes(&self) -> Vec<HostProcess> {
        if matches!(*self.state.borrow(), MachineState::Exited(_)) {
            return Vec::new();
        }
        let pid = self.shared.process.pid().as_raw_nonzero().get().unsigned_abs();
        vec![HostProcess { pid, role: ProcessRole::Vmm }]
    }
}

impl Drop for QemuMachine {
    fn drop(&mut self) {
        self.kill();
        self.shared.process.reap();
    }
}

/// Follows a machine to its end, and says the reason.
async fn follow(
    shared: Arc<Shared>,
    mut events: mpsc::Receiver<Event>,
    console_end: oneshot::Receiver<()>,
    state: watch::Sender<MachineState>,
) {
    let mut last_word = None;
    while let Some(event) = events.recv().await {
        match event {
            Event::Stop => drop(state.send_replace(MachineState::Paused)),
            Event::Resume => drop(state.send_replace(MachineState::Running)),
            Event::Shutdown { guest, reason } => last_word = Some((guest, reason)),
        }
    }
    // QEMU closed the channel, so it is about to end; or said what can't be understood, and has to.
    let end = if let Ok(end) = timeout(GRACE, shared.process.ended()).await {
        end
    } else {
        shared.process.kill();
        shared.process.ended().await
    };
    // What it had written before it ended is still on its way.
    let _ = timeout(CONSOLE_LIMIT, console_end).await;
    let killed = shared.killed.load(Ordering::Acquire);
    let reason = match end {
        Some(end) => reason_of(end, last_word.as_ref(), killed, &shared.console),
        None => ExitReason::Killed,
    };
    state.send_replace(MachineState::Exited(reason));
}

/// Puts together what QEMU said last (whether the guest did it, and QEMU's word for it), how its process ended, and
/// what is on the console.
fn reason_of(end: End, last_word: Option<&(bool, String)>, killed: bool, console: &Console) -> ExitReason {
    let by_guest = match last_word {
        Some((true, reason)) if end.status.success() => Some(reason.as_str()),
        _ => None,
    };
    match by_guest {
        Some("guest-shutdown") => ExitReason::PoweredOff,
        Some(_) => panic_in(&console.tail()).unwrap_or(ExitReason::Reset),
        None if killed && end.status.signal() == Some(Signal::KILL.as_raw()) => ExitReason::Killed,
        None => ExitReason::EngineDied { status: end.status, stderr: end.stderr },
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use super::*;

    fn reason(raw_status: i32, last_word: Option<(bool, &str)>, killed: bool) -> ExitReason {
        let end = End { status: ExitStatus::from_raw(raw_status), stderr: "words".to_owned() };
        let last_word = last_word.map(|(guest, word)| (guest, word.to_owned()));
        reason_of(end, last_word.as_ref(), killed, &Console::default())
    }

    #[test]
    fn a_guests_end_is_told_from_an_engines() {
        assert_eq!(reason(0, Some((true, "guest-shutdown")), false), ExitReason::PoweredOff);
        assert_eq!(reason(0, Some((true, "guest-reset")), false), ExitReason::Reset);
        assert_eq!(reason(9, None, true), ExitReason::Killed);
    }

    #[test]
    fn a_death_that_nobody_here_caused_keeps_its_status_and_words() {
        // A signal, an error, an orderly end that somebody else asked for, and a crash after the guest's last word.
        let cases =
            [(9, None), (256, None), (0, Some((false, "host-signal"))), (11, Some((true, "guest-reset")))];
        for (raw, word) in cases {
            match reason(raw, word, false) {
                ExitReason::EngineDied { status, stderr } => {
                    assert_eq!((status, stderr.as_str()), (ExitStatus::from_raw(raw), "words"));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_crash_is_not_hidden_by_a_kill() {
        assert!(matches!(reason(11, None, true), ExitReason::EngineDied { .. }));
    }
}
