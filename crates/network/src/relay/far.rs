//! Owns the end of a connection that is not the guest, whatever it is.

use std::future::pending;
use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// The end of a connection that is not the guest.
#[derive(Debug)]
pub(crate) enum Far {
    /// A socket of the host's.
    Host(TcpStream),
    /// Something in this program.
    Service(UnixStream),
    /// A neighbour's gateway, which relays too.
    Neighbour(UnixStream),
}

impl Far {
    pub(super) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Host(stream) => stream.try_read(into),
            Self::Service(stream) | Self::Neighbour(stream) => stream.try_read(into),
        }
    }

    pub(super) fn write(&self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Host(stream) => stream.try_write(from),
            Self::Service(stream) | Self::Neighbour(stream) => stream.try_write(from),
        }
    }

    pub(super) fn shut_write(&self) -> io::Result<()> {
        let shut = match self {
            Self::Host(stream) => rustix::net::shutdown(stream, Shutdown::Write),
            Self::Service(stream) | Self::Neighbour(stream) => rustix::net::shutdown(stream, Shutdown::Write),
        };
        Ok(shut?)
    }

    /// Whether the other end is not only at its end, but gone. A neighbour's gateway closes once both ends have ended: one that is gone before
    /// has broken it off, or was.
    pub(super) fn is_gone(&self) -> bool {
        let Self::Neighbour(stream) = self else { return false };
        let mut asked = [PollFd::new(stream, PollFlags::empty())];
        poll(&mut asked, Some(&Timespec::default())).is_ok() && asked[0].revents().contains(PollFlags::HUP)
    }

    /// Breaks it off, so that its other end hears of it at once.
    pub(super) fn abort(self) {
        if let Self::Host(stream) = self {
            _ = stream.set_zero_linger();
        }
    }

    /// Waits until it can be read or written, whichever is wanted.
    pub(super) async fn ready(&self, read: bool, write: bool) {
        let interest = match (read, write) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return pending().await,
        };
        // If it fails, so does what is tried next.
        match self {
            Self::Host(stream) => drop(stream.ready(interest).await),
            Self::Service(stream) | Self::Neighbour(stream) => drop(stream.ready(interest).await),
        }
    }
}
