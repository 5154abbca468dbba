//! Owns one exec while anything of it is known: its processes, its streams, its exit.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cellule_protocol::v1::{ExecInfo, ExecRequest, Exited, TerminalSize};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

use super::channel::Channel;
use super::pump::Input;
use super::ring::{Budget, Extent, Ring};
use super::stdio;
use crate::cgroup::{Cgroup, Cgroups};
use crate::fault::report;
use crate::reaper::Reaper;

/// What of the arguments is kept for listings.
const MAX_SHOWN: usize = 1024;

/// How often a signal to all looks for processes that had none.
const MAX_LOOKS: usize = 8;

/// An exec: one program, or a chain of them.
#[derive(Debug)]
pub(crate) struct Exec {
    id: u64,
    argv: Vec<Vec<u8>>,
    started: SystemTime,
    /// What it is to be once nobody owns it.
    lossless: bool,
    detached: AtomicBool,
    /// What kills it must keep the next program of its chain from being started.
    killed: AtomicBool,
    /// The program that runs now.
    main: Mutex<Pid>,
    cgroup: Mutex<Option<Cgroup>>,
    terminal: Mutex<Option<Arc<Channel>>>,
    has_terminal: bool,
    pub(super) stdin: Option<Input>,
    pub(super) stdout: Arc<Ring>,
    /// None: the terminal's one output is the other.
    pub(super) stderr: Option<Arc<Ring>>,
    exited: watch::Sender<Option<Exited>>,
}

/// What was made for an exec before it is one.
pub(super) struct Made {
    pub(super) pid: Pid,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) stdin: Option<Arc<Channel>>,
    pub(super) terminal: Option<Arc<Channel>>,
}

impl Exec {
    pub(super) fn new(request: &ExecRequest, made: Made, budget: &Arc<Budget>) -> Self {
        let lossless = request.lossless || !request.detached;
        let has_terminal = request.terminal.is_some();
        Self {
            id: request.exec_id,
            argv: shown(&request.argv),
            started: SystemTime::now(),
            lossless: request.lossless,
            detached: AtomicBool::new(request.detached),
            killed: AtomicBool::new(false),
            main: Mutex::new(made.pid),
            cgroup: Mutex::new(made.cgroup),
            terminal: Mutex::new(made.terminal),
            has_terminal,
            stdin: made.stdin.map(Input::new),
            stdout: Ring::new(lossless, request.detached, budget),
            stderr: (!has_terminal).then(|| Ring::new(lossless, request.detached, budget)),
            exited: watch::Sender::new(None),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    pub(crate) fn pid(&self) -> u32 {
        lock(&self.main).as_raw_nonzero().get().unsigned_abs()
    }

    pub(super) fn has_terminal(&self) -> bool {
        self.has_terminal
    }

    pub(super) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Relaxed)
    }

    /// Leaves it to itself.
    pub(super) fn detach(&self) {
        if !self.detached.swap(true, Ordering::Relaxed) {
            for ring in self.rings() {
                ring.set_kept(true);
                ring.set_lossless(self.lossless);
            }
        }
    }

    /// Nobody who is not there will read this output.
    pub(super) fn close_output(&self, stderr: bool) {
        let ring = if stderr { self.stderr.as_ref() } else { Some(&self.stdout) };
        if let Some(ring) = ring.filter(|_| !self.has_terminal) {
            ring.set_kept(false);
        }
    }

    pub(super) fn rings(&self) -> impl Iterator<Item = &Arc<Ring>> {
        [Some(&self.stdout), self.stderr.as_ref()].into_iter().flatten()
    }

    /// Memory that its output takes.
    pub(super) fn memory(&self) -> usize {
        self.rings().map(|ring| ring.memory()).sum()
    }

    /// Kills all of it.
    pub(super) fn kill(&self, reaper: &Reaper) {
        self.killed.store(true, Ordering::Relaxed);
        let killed = match &*lock(&self.cgroup) {
            Some(cgroup) => cgroup.kill().map(|()| true),
            None => reaper.signal(*lock(&self.main), Signal::KILL, true),
        };
        if let Err(error) = killed {
            report(format_args!("cannot kill the processes of {}: {error}", self.pid()));
        }
    }

    /// Whether the next program of its chain may still start.
    pub(super) fn may_go_on(&self) -> bool {
        !self.killed.load(Ordering::Relaxed)
    }

    /// The next program of its chain runs.
    pub(super) fn set_main(&self, pid: Pid) {
        *lock(&self.main) = pid;
    }

    pub(super) fn with_cgroup<T>(&self, what: impl FnOnce(Option<&Cgroup>) -> T) -> T {
        what(lock(&self.cgroup).as_ref())
    }

    /// Signals the main process; `false` if it is gone.
    pub(super) fn signal(&self, reaper: &Reaper, signal: Signal) -> io::Result<bool> {
        // Its number may be another's by now.
        if self.exit().is_some() {
            return Ok(false);
        }
        reaper.signal(*lock(&self.main), signal, false)
    }

    /// Signals all of it; `false` if it has ended.
    pub(super) fn signal_all(&self, reaper: &Reaper, signal: Signal) -> io::Result<bool> {
        if self.exit().is_some() {
            return Ok(false);
        }
        if signal == Signal::KILL {
            self.killed.store(true, Ordering::Relaxed);
        }
        let cgroup = lock(&self.cgroup);
        let Some(cgroup) = cgroup.as_ref() else {
            return reaper.signal(*lock(&self.main), signal, true);
        };
        if signal == Signal::KILL {
            cgroup.kill()?;
            return Ok(true);
        }
        let mut signalled = Vec::new();
        // What was forked in the meantime shows in the next look, unless it goes on for ever.
        for _ in 0..MAX_LOOKS {
            let new: Vec<_> =
                cgroup.processes()?.into_iter().filter(|pid| !signalled.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            // A process that was listed may be gone and its number another's by now; a descriptor of whoever has that
            // number tells, if the number is still listed once we hold it.
            let held: Vec<_> = new
                .into_iter()
                .filter_map(|pid| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?)))
                .collect();
            let still = cgroup.processes()?;
            for (pid, descriptor) in held.into_iter().filter(|(pid, _)| still.contains(pid)) {
                let _gone = pidfd_send_signal(descriptor, signal);
                signalled.push(pid);
            }
        }
        Ok(true)
    }

    /// Tells its terminal its size; `None` if it has none, or none any more.
    pub(super) fn resize(&self, size: TerminalSize) -> Option<io::Result<()>> {
        let terminal = lock(&self.terminal);
        terminal.as_ref().map(|master| stdio::resize(master.as_fd(), size))
    }

    /// Its exit, once it is known.
    pub(super) fn exit(&self) -> Option<Exited> {
        *self.exited.borrow()
    }

    /// Waits for its exit.
    pub(super) async fn exited(&self) -> Exited {
        let mut exited = self.exited.subscribe();
        // The sender is a part of this exec.
        exited.wait_for(Option::is_some).await.ok().and_then(|exited| *exited).unwrap_or_default()
    }

    /// Makes its exit known, and closes what it was written to by.
    pub(super) fn end(&self, exited: Exited) {
        if let Some(stdin) = &self.stdin {
            stdin.close();
        }
        drop(lock(&self.terminal).take());
        self.exited.send_replace(Some(exited));
    }

    /// Gives its control group back, once it has ended.
    pub(super) fn give_back(&self, cgroups: Option<&Cgroups>) {
        if let (Some(cgroups), Some(cgroup)) = (cgroups, lock(&self.cgroup).take()) {
            cgroups.give_back(cgroup);
        }
    }

    pub(super) fn info(&self) -> ExecInfo {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let stdout = self.stdout.extent();
        let stderr = self.stderr.as_ref().map_or(Extent { written: 0, dropped: 0 }, |ring| ring.extent());
        ExecInfo {
            exec_id: self.id,
            argv: self.argv.clone(),
            pid: self.pid(),
            terminal: self.has_terminal,
            detached: self.is_detached(),
            started_ns: i64::try_from(started.as_nanos()).unwrap_or(0),
            exited: self.exit(),
            stdout_bytes: stdout.written,
            stdout_dropped: stdout.dropped,
            stderr_bytes: stderr.written,
            stderr_dropped: stderr.dropped,
        }
    }
}

/// The arguments, cut where they get too long to be shown.
fn shown(argv: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut left = MAX_SHOWN;
    let cut = |argument: &Vec<u8>| {
        let kept = argument.get(..left).unwrap_or(argument).to_vec();
        // Each costs something, or there could be any number of empty ones.
        left = left.saturating_sub(kept.len() + 8);
        (!kept.is_empty() || left > 0).then_some(kept)
    };
    argv.iter().map_while(cut).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_arguments_is_bounded() {
        assert_eq!(shown(&[b"ls".to_vec(), b"-l".to_vec()]), [b"ls", b"-l"]);
        assert!(shown(&vec![Vec::new(); 100_000]).len() <= MAX_SHOWN);
        let long = shown(&vec![vec![b'x'; 5000]; 10]);
        assert_eq!(long.iter().map(Vec::len).sum::<usize>(), MAX_SHOWN);
    }
}
