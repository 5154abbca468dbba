//! Owns the death of every process: the only place that waits for children, and the only one that signals them by number.
//!
//! A process's number is its own until it is reaped. Reaping and signalling both happen under the table's lock, so a
//! signal never meets a stranger that inherited a number.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};

use crate::fault::report;

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) how: How,
    pub(crate) core_dumped: bool,
    pub(crate) max_rss_bytes: u64,
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Code(i32),
    Signal(i32),
}

/// The table of the processes that somebody waits for. All others are orphans that PID 1 inherited.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    watched: Mutex<HashMap<i32, oneshot::Sender<Ended>>>,
    /// Told whenever any process was reaped.
    pub(crate) reaped: Notify,
}

impl Reaper {
    /// Reaps until the program ends.
    pub(crate) async fn run(&self) {
        let mut children = match signal(SignalKind::child()) {
            Ok(children) => children,
            Err(error) => return report(format_args!("no process can be reaped: {error}")),
        };
        loop {
            self.reap();
            if children.recv().await.is_none() {
                return;
            }
        }
    }

    /// Makes a child by `fork`, and watches it from its first moment.
    pub(crate) fn spawn<E>(
        &self,
        fork: impl FnOnce() -> Result<Pid, E>,
    ) -> Result<(Pid, oneshot::Receiver<Ended>), E> {
        let mut watched = self.lock();
        let pid = fork()?;
        let (sender, receiver) = oneshot::channel();
        watched.insert(pid.as_raw_nonzero().get(), sender);
        Ok((pid, receiver))
    }

    /// Sends a signal to a watched process, or to its whole process group; `false` if it is gone.
    pub(crate) fn signal(&self, pid: Pid, signal: Signal, group: bool) -> io::Result<bool> {
        let watched = self.lock();
        if !watched.contains_key(&pid.as_raw_nonzero().get()) {
            return Ok(false);
        }
        let sent = if group {
            rustix::process::kill_process_group(pid, signal)
        } else {
            rustix::process::kill_process(pid, signal)
        };
        match sent {
            Ok(()) => Ok(true),
            // It has no group before it made its own: then it is alone.
            Err(rustix::io::Errno::SRCH) if group => {
                rustix::process::kill_process(pid, signal)?;
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn reap(&self) {
        let mut watched = self.lock();
        let mut any = false;
        while let Some((pid, ended)) = wait_for_any() {
            any = true;
            if let Some(waiter) = watched.remove(&pid) {
                // The exec may have been given up.
                let _nobody_waits = waiter.send(ended);
            }
        }
        drop(watched);
        if any {
            self.reaped.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<Ended>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether any process is left that this one is to reap; for PID 1 that is any at all.
pub(crate) fn has_children() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, options), Err(rustix::io::Errno::CHILD))
}

/// Reaps one dead child, if there is one. `wait4` alone tells what it used.
fn wait_for_any() -> Option<(i32, Ended)> {
    let mut status = 0;
    // SAFETY: zeroes are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals of the right types.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    if pid <= 0 {
        return None;
    }
    let how = if libc::WIFSIGNALED(status) {
        How::Signal(libc::WTERMSIG(status))
    } else {
        How::Code(libc::WEXITSTATUS(status))
    };
    let micros = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    let ended = Ended {
        how,
        core_dumped: libc::WIFSIGNALED(status) && libc::WCOREDUMP(status),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
    };
    Some((pid, ended))
}
