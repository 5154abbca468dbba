//! Owns the making of a process: what happens between `fork` and `execve`.
//!
//! ```text
//!   agent                                   child (nothing here may allocate or take a lock)
//!    │ clone3, inside its control group ──▶  session, signals, stdio, terminal, directory, limits, groups, user
//!    │                                       execve each candidate
//!    │ ◀── error pipe: nothing and its end: the program runs
//!    │ ◀── error pipe: step and errno: it does not
//! ```

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use cellule_protocol::v1::start_failure::Kind;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

use super::failure::{Failure, quote};
use super::plan::{Link, Plan};
use super::stdio::Theirs;
use crate::cgroup::Cgroup;
use crate::reaper::{Ended, Reaper};

/// What a child writes when it fails: the step, then the error number.
const REPORT: usize = 8;

/// Of the kernel's `sched.h`; `libc` has it in a type that is too small.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process that was made; whether its program runs is yet to be heard.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) ended: oneshot::Receiver<Ended>,
    pub(super) failed: Outcome,
}

/// The error pipe's end.
#[derive(Debug)]
pub(super) struct Outcome {
    pipe: Receiver,
    program: Vec<u8>,
    cwd: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum Step {
    Session = 1,
    Stdio,
    Terminal,
    WorkingDirectory,
    Identity,
    Execute,
    /// The first limit of the request; the others follow.
    Limits = 0x100,
}

/// Makes the process of one program of `plan`.
pub(super) fn spawn(
    plan: &Plan,
    link: &Link,
    stdio: &Theirs,
    reaper: &Reaper,
    cgroup: Option<&Cgroup>,
) -> Result<Child, Failure> {
    let pipe = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
    let pipe = pipe.and_then(|(ours, theirs)| Ok((Receiver::from_owned_fd(ours)?, theirs)));
    let (outcome_ours, outcome) = pipe.map_err(|error| Failure::exhausted("make a pipe", &error))?;
    let image = Image::new(plan, link, stdio, outcome.as_raw_fd());
    let (pid, ended) =
        reaper.spawn(|| image.fork(cgroup)).map_err(|error| Failure::exhausted("make a process", &error))?;
    let program = link.argv.first().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
    let failed = Outcome { pipe: outcome_ours, program, cwd: plan.cwd.as_bytes().to_vec() };
    Ok(Child { pid, ended, failed })
}

impl Outcome {
    /// Waits until the program runs, or until it is known why it does not.
    pub(super) async fn outcome(mut self) -> Option<Failure> {
        let mut report = [0; REPORT];
        match self.pipe.read(&mut report).await {
            Ok(0) => None,
            // Smaller than what a pipe takes in one piece.
            Ok(REPORT) => {
                let number = |at: usize| {
                    i32::from_ne_bytes([report[at], report[at + 1], report[at + 2], report[at + 3]])
                };
                Some(self.failure(number(0), &io::Error::from_raw_os_error(number(4))))
            }
            Ok(_) => Some(Failure::internal("start a process", &io::ErrorKind::InvalidData.into())),
            Err(error) => Some(Failure::internal("hear of a new process", &error)),
        }
    }

    fn failure(&self, step: i32, error: &io::Error) -> Failure {
        if step == Step::Execute as i32 {
            return Failure::of_execution(&self.program, error);
        }
        if step == Step::WorkingDirectory as i32 {
            let message = format!("enter {}: {error}", quote(&self.cwd));
            return Failure::new(Kind::BadWorkingDirectory, "cwd", message).with_errno(error);
        }
        if let Ok(at) = usize::try_from(step - Step::Limits as i32) {
            return Failure::invalid(format!("rlimits[{at}]"), error.to_string()).with_errno(error);
        }
        let doing = match step {
            step if step == Step::Identity as i32 => "take on the user",
            step if step == Step::Terminal as i32 => "take hold of the terminal",
            _ => "set the process up",
        };
        Failure::internal(doing, error)
    }
}

/// All that the child needs, in the kernel's form, made before there is a child.
struct Image<'a> {
    plan: &'a Plan,
    link: &'a Link,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    stdio: [RawFd; 3],
    outcome: RawFd,
}

impl<'a> Image<'a> {
    fn new(plan: &'a Plan, link: &'a Link, stdio: &Theirs, outcome: RawFd) -> Self {
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let input = stdio.stdin.as_raw_fd();
        let [output, error] =
            stdio.outputs.as_ref().map_or([input; 2], |outputs| outputs.each_ref().map(AsRawFd::as_raw_fd));
        Self {
            plan,
            link,
            argv: pointers(&link.argv),
            env: pointers(&plan.env),
            stdio: [input, output, error],
            outcome,
        }
    }

    fn fork(&self, cgroup: Option<&Cgroup>) -> io::Result<Pid> {
        let pid = match cgroup {
            Some(cgroup) => fork_into(cgroup.as_fd().as_raw_fd()),
            // SAFETY: the child calls only what is allowed between fork and exec.
            None => unsafe { libc::fork() },
        };
        if pid == 0 {
            // SAFETY: this is the new process, and it does nothing else.
            unsafe { self.become_program() }
        }
        match Pid::from_raw(pid) {
            Some(child) if pid > 0 => Ok(child),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The child's whole life as a copy of the agent.
    ///
    /// # Safety
    /// Only in a child that was just forked. Calls nothing but async-signal-safe functions and plain system calls.
    unsafe fn become_program(&self) -> ! {
        // SAFETY: every pointer below is to memory of the copy that `self` borrows; see each call.
        unsafe {
            let (step, errno) = match self.prepare() {
                Err(failed) => failed,
                Ok(()) => (Step::Execute as i32, self.execute()),
            };
            let mut report = [0_u8; REPORT];
            report[..4].copy_from_slice(&step.to_ne_bytes());
            report[4..].copy_from_slice(&errno.to_ne_bytes());
            libc::write(self.outcome, report.as_ptr().cast(), REPORT);
            libc::_exit(127)
        }
    }

    /// # Safety
    /// As [`Self::become_program`].
    unsafe fn prepare(&self) -> Result<(), (i32, i32)> {
        let check = |step: Step, result: i64| if result < 0 { Err((step as i32, errno())) } else { Ok(()) };
        let identity = &self.plan.identity;
        // SAFETY: plain system calls; the pointers are to locals, or to what the plan owns. The raw identity calls
        // are meant: libc's own would try to synchronise threads that the child does not have.
        unsafe {
            check(Step::Session, i64::from(libc::setsid()))?;
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            check(
                Step::Session,
                i64::from(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())),
            )?;
            // The only signal that the agent ignores; what it handles, execve resets.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            for (fd, target) in self.stdio.into_iter().zip(0..) {
                check(Step::Stdio, i64::from(libc::dup2(fd, target)))?;
            }
            if self.plan.terminal.is_some() {
                check(Step::Terminal, i64::from(libc::ioctl(0, libc::TIOCSCTTY, 0)))?;
            }
            // All are opened so; this makes it true of whatever a library opened.
            libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            // As root, since a container's user may be placed where it could not go by itself.
            check(Step::WorkingDirectory, i64::from(libc::chdir(self.plan.cwd.as_ptr())))?;
            // As root, too, which alone may raise a hard limit.
            if let Some(open_files) = &self.plan.open_files {
                check(Step::Session, i64::from(libc::setrlimit(libc::RLIMIT_NOFILE, open_files)))?;
            }
            for (limit, step) in self.plan.limits.iter().zip(Step::Limits as i32..) {
                if libc::setrlimit(limit.resource, &raw const limit.value) < 0 {
                    return Err((step, errno()));
                }
            }
            if libc::geteuid() == 0 {
                let groups = &identity.groups;
                check(Step::Identity, libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
                let gid = identity.gid;
                check(Step::Identity, libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
                let uid = identity.uid;
                check(Step::Identity, libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
            }
        }
        Ok(())
    }

    /// Tries each candidate; returns the error number of the one that says most.
    ///
    /// # Safety
    /// As [`Self::become_program`].
    unsafe fn execute(&self) -> i32 {
        let mut worst = libc::ENOENT;
        for program in &self.link.programs {
            // SAFETY: all three are terminated, and of strings that the plan owns.
            unsafe { libc::execve(program.as_ptr(), self.argv.as_ptr(), self.env.as_ptr()) };
            match errno() {
                libc::ENOENT | libc::ENOTDIR if self.link.programs.len() > 1 => {}
                // One that may not be executed is passed over, and named if nothing better follows.
                libc::EACCES => worst = libc::EACCES,
                other => return other,
            }
        }
        worst
    }
}

/// Forks a child that is inside the control group from its first instruction: moving it there later makes the kernel wait
/// for a grace period.
fn fork_into(cgroup: RawFd) -> i32 {
    // SAFETY: zeroes mean "nothing special" in every field.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    arguments.cgroup = u64::try_from(cgroup).unwrap_or(u64::MAX);
    // SAFETY: without a new stack or shared memory this is fork; the child calls only what is allowed after that.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    i32::try_from(pid).unwrap_or(-1)
}

fn errno() -> i32 {
    // SAFETY: the pointer is to this thread's own variable.
    unsafe { *libc::__errno_location() }
}
