//! QEMU's process: started with as little as it needs, and never outliving its owner.
//!
//! One thread belongs to each process: it starts it, keeps the last of its stderr, and reaps it. It must be the same
//! one throughout, since the kernel sends the "parent died" signal when the *thread* that started a child ends.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getpid, getppid, pidfd_open, pidfd_send_signal,
};
use tokio::sync::{oneshot, watch};

use super::filter::Filters;

/// How much of stderr's end is kept.
const STDERR_TAIL: usize = 4096;

/// What to start.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// The descriptors that the process gets, under the numbers that they have here.
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) limits: Limits,
    /// Whether the file behind its memory is others' too, into which it may cut no hole.
    pub(super) shares_memory: bool,
}

/// What the process may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Private writable memory, in bytes.
    pub(super) data: u64,
    /// Address space, in bytes.
    pub(super) address_space: u64,
    /// A thread's stack, in bytes.
    pub(super) stack: u64,
    /// The largest file that it may write, in bytes; 0 for none.
    pub(super) file_size: u64,
    /// Open descriptors.
    pub(super) files: u64,
}

/// How the process ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) status: ExitStatus,
    pub(super) stderr: String,
}

/// A process that was started. Dropping it kills and reaps it.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    /// Names the process itself, so that a signal never reaches another one that got its number.
    pidfd: OwnedFd,
    end: watch::Receiver<Option<End>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Process {
    pub(super) async fn start(spec: Spec) -> io::Result<Self> {
        let (started, start) = oneshot::channel();
        let (ended, end) = watch::channel(None);
        let thread = thread::Builder::new().name("qemu".to_owned()).spawn(move || match spawn(spec) {
            Ok((mut child, pidfd)) => {
                let stderr = child.stderr.take();
                if started.send(Ok((Pid::from_child(&child), pidfd))).is_err() {
                    // The launch was given up; nobody would ever end the process.
                    let _ = child.kill();
                }
                let stderr = stderr.map(tail_of).unwrap_or_default();
                if let Ok(status) = child.wait() {
                    ended.send_replace(Some(End { status, stderr }));
                }
            }
            Err(e) => {
                let _ = started.send(Err(e));
            }
        })?;
        let (pid, pidfd) = start.await.map_err(io::Error::other)??;
        Ok(Self { pid, pidfd, end, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it still runs, so that its number is its own.
    pub(super) fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut ended, Some(&Timespec::default())), Ok(0))
    }

    pub(super) fn kill(&self) {
        // It can only fail because the process is gone.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Blocks until a process that was killed is gone: milliseconds, in which the kernel frees its memory.
    pub(super) fn reap(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// Waits until it ended and was reaped. `None` would mean that the kernel lost it.
    pub(super) async fn ended(&self) -> Option<End> {
        let mut end = self.end.clone();
        // An error means that the thread is gone: what it left is the last word.
        let _ = end.wait_for(Option::is_some).await;
        end.borrow().clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.reap();
    }
}

/// Starts the process on this thread. Its copies of the descriptors are closed here when this returns.
fn spawn(spec: Spec) -> io::Result<(Child, OwnedFd)> {
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.arguments)
        .env_clear()
        // Each further heap would reserve 64 MiB of the address space that is allowed.
        .env("MALLOC_ARENA_MAX", "4")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A terminal's Ctrl-C goes to the foreground's group: not to this process.
        .process_group(0);
    let owner = getpid();
    let Spec { descriptors, limits, shares_memory, .. } = spec;
    let filters = if shares_memory { Some(Filters::no_holes()?) } else { None };
    // SAFETY: between fork and exec the closure only makes system calls, which are safe after a fork, and allocates
    // nothing: an error is made of the call's own number.
    unsafe { command.pre_exec(move || confine(owner, &descriptors, limits, filters.as_ref())) };
    let mut child = command.spawn()?;
    match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(pidfd) => Ok((child, pidfd)),
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(e.into())
        }
    }
}

/// What the child does to itself before it becomes QEMU.
fn confine(owner: Pid, descriptors: &[OwnedFd], limits: Limits, filters: Option<&Filters>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The owner may have died before the line above.
    if getppid() != Some(owner) {
        return Err(io::Error::from(rustix::io::Errno::SRCH));
    }
    rustix::thread::set_no_new_privs(true)?;
    for (resource, limit) in [
        (Resource::Core, 0),
        (Resource::Fsize, limits.file_size),
        (Resource::Nofile, limits.files),
        (Resource::Stack, limits.stack),
        (Resource::Data, limits.data),
        (Resource::As, limits.address_space),
    ] {
        // Nobody may raise what their own owner has limited further.
        let allowed = rustix::process::getrlimit(resource).maximum;
        let limit = Some(allowed.map_or(limit, |allowed| allowed.min(limit)));
        rustix::process::setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    if let Some(filters) = filters {
        filters.set()?;
    }
    // Whatever this process itself inherited from a careless parent goes no further. Linux 5.11 or later.
    // SAFETY: no pointer is passed, and flags of descriptors concern nobody but the exec to come.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Only here, in the child, are they made to survive the exec: no other child of this process ever gets one.
    for descriptor in descriptors {
        rustix::io::fcntl_setfd(descriptor.as_fd(), FdFlags::empty())?;
    }
    Ok(())
}

/// Reads to the end, and keeps the last of it, line breaks and printable characters only.
fn tail_of(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => kept.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        let surplus = kept.len().saturating_sub(STDERR_TAIL);
        kept.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&kept);
    text.trim().chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests;
