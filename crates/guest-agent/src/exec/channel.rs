//! Owns the agent's ends of what a program's standard streams are: pipes, or the master of a terminal.
//!
//! A terminal whose last user went is hung up, and stays so for the event loop even if somebody opens it again: then it
//! may be "ready" and give or take nothing, which must not be tried for ever. Either is the end of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::port::register;

/// What the kernel may hold of a terminal's output: its flip buffers and one line discipline.
const TERMINAL_HOLDS: usize = 128 * 1024;

/// One end, which never blocks.
#[derive(Debug)]
pub(super) struct Channel {
    fd: AsyncFd<OwnedFd>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The reading or writing end of a pipe.
    Pipe,
    /// A terminal's master, which is both.
    Terminal,
}

impl Channel {
    /// The end of a pipe that is read.
    pub(super) fn reading(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, Kind::Pipe, Interest::READABLE)
    }

    /// The end of a pipe that is written.
    pub(super) fn writing(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, Kind::Pipe, Interest::WRITABLE)
    }

    /// A terminal's master.
    pub(super) fn terminal(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, Kind::Terminal, Interest::READABLE | Interest::WRITABLE)
    }

    fn new(fd: OwnedFd, kind: Kind, interest: Interest) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd: register(fd, interest)?, kind })
    }

    /// Reads once, by `read`, as soon as there is something. `Ok(0)` is the end. Only one task may wait in here.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            let hung_up = guard.ready().is_read_closed();
            match guard.try_io(|fd| self.ended(read(fd.get_ref().as_fd()))) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(done) => return Poll::Ready(done),
                Err(_not_ready) if hung_up => return Poll::Ready(Ok(0)),
                Err(_not_ready) => {}
            }
        }
    }

    /// Reads what is there now, by `read`; `None` if nothing is.
    pub(super) fn read_now(
        &self,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        loop {
            match self.ended(read(self.fd.get_ref().as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                done => return done.map(Some),
            }
        }
    }

    /// A terminal whose last user is gone says so by an error.
    fn ended(&self, read: io::Result<usize>) -> io::Result<usize> {
        match read {
            Err(error)
                if self.kind == Kind::Terminal && error.raw_os_error() == Some(Errno::IO.raw_os_error()) =>
            {
                Ok(0)
            }
            other => other,
        }
    }

    /// What can be read at this moment, at the most.
    pub(super) fn holds(&self) -> io::Result<usize> {
        match self.kind {
            Kind::Pipe => {
                Ok(usize::try_from(rustix::io::ioctl_fionread(self.fd.get_ref())?).unwrap_or(usize::MAX))
            }
            // It counts only what has come as far as its line discipline.
            Kind::Terminal => Ok(TERMINAL_HOLDS),
        }
    }

    /// Writes all of it, as fast as it is taken. Any number of tasks may.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut guard = self.fd.writable().await?;
            let hung_up = guard.ready().is_write_closed();
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(Ok(count)) => bytes = &bytes[count..],
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_not_ready) if hung_up => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(_not_ready) => {}
            }
        }
        Ok(())
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}
