//! Owns the making of a process: what happens between `clone3` and `execve`.
//!
//! ```text
//!   agent                                   child (nothing here may allocate or take a lock)
//!    │ clone3, inside its control group ──▶  session, signals, stdio, terminal, directory, limits, groups, user
//!    ┊ its thread stands still               execve each candidate
//!    │ ◀── the child has a program: it runs
//!    │ ◀── the child has exited, step and errno left in the agent's memory: it does not
//! ```
//! The child borrows the agent's memory, as `vfork` and `posix_spawn` do: copying the page tables of a process that holds
//! everybody's output costs more, under emulation, than all the rest. It has a stack of its own, and its thread of the
//! agent does not run before it gives the memory back.

use std::arch::asm;
use std::ffi::{CString, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use cellule_protocol::v1::start_failure::Kind;
use rustix::process::Pid;
use tokio::sync::oneshot;

use super::failure::{Failure, quote};
use super::plan::{Link, Plan};
use super::stdio::Theirs;
use crate::cgroup::Cgroup;
use crate::reaper::{Ended, Reaper};

/// The child's stack. Its calls go three deep and keep nothing large.
const STACK: usize = 32 * 1024;

/// Of the kernel's `sched.h`; `libc` has them in a type that is too small.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process that was made.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) ended: oneshot::Receiver<Ended>,
    /// Why it never became its program; then it is about to be reaped.
    pub(super) failed: Option<Failure>,
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
    let image = Image::new(plan, link, stdio);
    let (pid, ended) = reaper
        .spawn(|| image.clone_into(cgroup))
        .map_err(|error| Failure::exhausted("make a process", &error))?;
    Ok(Child { pid, ended, failed: image.failure() })
}

/// All that the child needs, in the kernel's form, made before there is a child.
struct Image<'a> {
    plan: &'a Plan,
    link: &'a Link,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    stdio: [RawFd; 3],
    /// What the child could not do, zero for nothing, and the error number. It writes them where we read them.
    failed: (AtomicI32, AtomicI32),
}

impl<'a> Image<'a> {
    fn new(plan: &'a Plan, link: &'a Link, stdio: &Theirs) -> Self {
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
            failed: (AtomicI32::new(0), AtomicI32::new(0)),
        }
    }

    /// Makes the child, in the control group from its first instruction: moving it there later makes the kernel wait for
    /// a grace period. Returns once it has its program, or has exited.
    fn clone_into(&self, cgroup: Option<&Cgroup>) -> io::Result<Pid> {
        let mut stack = vec![MaybeUninit::<u128>::uninit(); STACK / size_of::<u128>()];
        // SAFETY: zeroes mean "nothing special" in every field.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK;
        arguments.flags = u64::from(flags.unsigned_abs()) | CLONE_CLEAR_SIGHAND;
        arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
        arguments.stack = stack.as_mut_ptr() as u64;
        arguments.stack_size = STACK as u64;
        if let Some(cgroup) = cgroup {
            arguments.flags |= CLONE_INTO_CGROUP;
            arguments.cgroup = u64::try_from(cgroup.as_fd().as_raw_fd()).unwrap_or(u64::MAX);
        }
        let mut result: i64 = libc::SYS_clone3;
        // SAFETY: the parent sees a system call that clobbers what such calls do and writes memory, which is what this
        // block says. The child begins on the stack above, aligned as a call needs it, with the registers of here, and
        // calls `child`, which never returns. It shares this memory while this thread stands still; it only reads what
        // `self` borrows, and writes its stack and `failed`. Signals of the agent have no handlers in it.
        unsafe {
            asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, {image}",
                "call {child}",
                "ud2",
                "2:",
                image = in(reg) std::ptr::from_ref(self),
                child = in(reg) child as unsafe extern "C" fn(*const Image<'static>) -> !,
                inout("rax") result,
                in("rdi") &raw const arguments,
                in("rsi") size_of::<libc::clone_args>(),
                out("rcx") _,
                out("r11") _,
            );
        }
        drop(stack);
        match i32::try_from(result).ok().and_then(Pid::from_raw) {
            Some(child) if result > 0 => Ok(child),
            _ => Err(io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EIO))),
        }
    }

    /// Why the child never became its program, once it has given our memory back.
    fn failure(&self) -> Option<Failure> {
        let step = self.failed.0.load(Ordering::Relaxed);
        let error = io::Error::from_raw_os_error(self.failed.1.load(Ordering::Relaxed));
        if step == 0 {
            return None;
        }
        if step == Step::Execute as i32 {
            let program = self.link.argv.first().map_or(&[][..], |name| name.as_bytes());
            return Some(Failure::of_execution(program, &error));
        }
        if step == Step::WorkingDirectory as i32 {
            let message = format!("enter {}: {error}", quote(self.plan.cwd.as_bytes()));
            return Some(Failure::new(Kind::BadWorkingDirectory, "cwd", message).with_errno(&error));
        }
        if let Ok(at) = usize::try_from(step - Step::Limits as i32) {
            return Some(Failure::invalid(format!("rlimits[{at}]"), error.to_string()).with_errno(&error));
        }
        let doing = match step {
            step if step == Step::Identity as i32 => "take on the user",
            step if step == Step::Terminal as i32 => "take hold of the terminal",
            _ => "set the process up",
        };
        Some(Failure::internal(doing, &error))
    }

    /// The child's whole life in the agent's memory.
    ///
    /// # Safety
    /// Only in a child that was just made by [`Self::clone_into`]. Calls nothing but async-signal-safe functions and plain
    /// system calls.
    unsafe fn become_program(&self) -> ! {
        // SAFETY: every pointer below is to what `self` borrows; see each call.
        unsafe {
            let (step, errno) = match self.prepare() {
                Err(failed) => failed,
                Ok(()) => (Step::Execute as i32, self.execute()),
            };
            self.failed.0.store(step, Ordering::Relaxed);
            self.failed.1.store(errno, Ordering::Relaxed);
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

/// Where a child begins.
///
/// # Safety
/// As [`Image::become_program`], of an image that outlives the loan of the memory.
unsafe extern "C" fn child(image: *const Image<'static>) -> ! {
    // SAFETY: as above.
    unsafe { (*image).become_program() }
}

fn errno() -> i32 {
    // SAFETY: the pointer is to this thread's own variable; a child has that of the thread that waits for it.
    unsafe { *libc::__errno_location() }
}
