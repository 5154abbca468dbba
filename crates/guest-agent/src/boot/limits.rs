//! Owns what the agent makes of itself: limits that every exec inherits, and its own place among the processes.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::fault::{Context, Fault};

/// Soft and hard limit of open files for programs, as systemd gives them to its services. Docker's former million made
/// programs that close every possible descriptor crawl, all the more on an emulated CPU.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Limits that every exec inherits.
pub(super) fn set() -> Result<(), Fault> {
    let (soft, hard) = OPEN_FILES;
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: Some(hard) })
        .context("limit open files")?;
    // The kernel's default is made from the machine's memory; the machine is the limit already.
    setrlimit(Resource::Nproc, Rlimit { current: None, maximum: None }).context("limit processes")?;
    let core = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: core }).context("limit core dumps")
}

/// Lets the agent run when a program waits or has had its turn, not as soon as a program has written a line: so output
/// gathers in the pipe, and is moved in large pieces. A program that waits for the agent makes way for it at once.
/// Programs themselves start as ordinary processes.
pub(super) fn yield_to_programs() -> Result<(), Fault> {
    let parameter = libc::sched_param { sched_priority: 0 };
    let policy = libc::SCHED_BATCH | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the parameter is a local that the call only reads.
    let set = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("schedule the agent as batch") }
}
