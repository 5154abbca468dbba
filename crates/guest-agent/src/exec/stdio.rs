//! Owns the making of a program's standard streams: pipes, or a terminal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use cellule_protocol::v1::TerminalSize;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::channel::Channel;
use super::failure::Failure;
use super::plan::Plan;

/// The way to a new terminal in the guest's own instance of devpts.
const MULTIPLEXER: &str = "/dev/pts/ptmx";
/// Where it is on hosts whose devpts belongs to somebody else; only tests run there.
const ELSEWHERE: &str = "/dev/ptmx";

/// The ends that programs get, held until the last program of a chain has them.
#[derive(Debug)]
pub(super) struct Theirs {
    pub(super) stdin: OwnedFd,
    /// None: the terminal, as standard input.
    pub(super) outputs: Option<[OwnedFd; 2]>,
}

/// The agent's ends.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) stdin: Option<Arc<Channel>>,
    /// None: it goes nowhere.
    pub(super) stdout: Option<Arc<Channel>>,
    /// None: that too, or a terminal, which has but one output.
    pub(super) stderr: Option<Arc<Channel>>,
}

/// Makes what `plan` asks for.
pub(super) fn make(plan: &Plan) -> Result<(Theirs, Ours), Failure> {
    match &plan.terminal {
        Some(size) => terminal(plan, *size),
        None => pipes(plan),
    }
}

fn pipes(plan: &Plan) -> Result<(Theirs, Ours), Failure> {
    let exhausted = |error: io::Error| Failure::exhausted("make pipes", &error);
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| exhausted(error.into()));
    let null = |flags| {
        let null = rustix::fs::open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty());
        null.map_err(|error| Failure::internal("open /dev/null", &error.into()))
    };
    let (stdin, stdin_ours) = if plan.stdin {
        let (theirs, ours) = pipe()?;
        (theirs, Some(ours))
    } else {
        (null(OFlags::RDONLY)?, None)
    };
    if plan.discard_output {
        let outputs = Some([null(OFlags::WRONLY)?, null(OFlags::WRONLY)?]);
        let stdin_ours = stdin_ours.map(Channel::writing).transpose().map_err(exhausted)?;
        let ours = Ours { stdin: stdin_ours.map(Arc::new), stdout: None, stderr: None };
        return Ok((Theirs { stdin, outputs }, ours));
    }
    let (stdout_ours, stdout) = pipe()?;
    let (stderr_ours, stderr) = pipe()?;
    let owner = plan.identity.uid;
    if owner != 0 {
        // Otherwise /dev/stdout, a link to the pipe, could not be opened by its own program.
        for pipe in
            [stdin_ours.is_some().then_some(&stdin), Some(&stdout), Some(&stderr)].into_iter().flatten()
        {
            let _theirs = fchown(pipe, Some(Uid::from_raw(owner)), None);
        }
    }
    let stdin_ours = stdin_ours.map(Channel::writing).transpose().map_err(exhausted)?;
    let ours = Ours {
        stdin: stdin_ours.map(Arc::new),
        stdout: Some(Arc::new(Channel::reading(stdout_ours).map_err(exhausted)?)),
        stderr: Some(Arc::new(Channel::reading(stderr_ours).map_err(exhausted)?)),
    };
    Ok((Theirs { stdin, outputs: Some([stdout, stderr]) }, ours))
}

fn terminal(plan: &Plan, size: TerminalSize) -> Result<(Theirs, Ours), Failure> {
    let failed = |doing: &str, error: io::Error| Failure::exhausted(doing, &error);
    // A name that a program of the guest put in the multiplexer's place must not keep the agent waiting.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |path| rustix::fs::openat(CWD, path, flags, Mode::empty());
    let master = open(MULTIPLEXER).or_else(|_| open(ELSEWHERE));
    let master = master.map_err(|error| failed("open a terminal", error.into()))?;
    unlockpt(&master).map_err(|error| failed("unlock a terminal", error.into()))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags);
    let slave = slave.map_err(|error| failed("open the other side of a terminal", error.into()))?;
    resize(&master, size).map_err(|error| Failure::internal("set a terminal's size", &error))?;
    // Without the means to give it away it stays the agent's, which only an agent outside a guest lacks.
    let _stays =
        fchown(&slave, Some(Uid::from_raw(plan.identity.uid)), plan.terminal_group.map(Gid::from_raw));
    let _stays = fchmod(&slave, Mode::from_raw_mode(0o620));
    let master = Channel::terminal(master).map_err(|error| failed("watch a terminal", error))?;
    let master = Arc::new(master);
    let ours = Ours { stdin: plan.stdin.then(|| Arc::clone(&master)), stdout: Some(master), stderr: None };
    Ok((Theirs { stdin: slave, outputs: None }, ours))
}

/// Tells a terminal its size, by its master.
pub(super) fn resize(master: impl AsFd, size: TerminalSize) -> io::Result<()> {
    let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    let size = Winsize { ws_row: cells(size.rows), ws_col: cells(size.columns), ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(master, size)?)
}
