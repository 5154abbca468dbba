//! Owns the link to the guest: a socket that carries Ethernet frames, one with each message.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// The header of a frame: two addresses and the type of what follows.
pub(crate) const HEADER: usize = 14;
/// The longest frame that IP can fill.
pub(crate) const FRAME_MAX: usize = HEADER + 65_535;
/// How much may wait before data that can wait has to.
pub(crate) const ROOM: usize = 1 << 20;
/// How many frames are read before others have their turn.
const TURN: usize = 64;
/// After which time a buffer that nothing waits in is given back.
pub(crate) const KEPT: Duration = Duration::from_millis(500);

/// The gateway's own address on the link: locally administered, and no guest's.
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x02, 0xce, 0x11, 0x00, 0x00, 0x01];

/// An address on the link.
pub(crate) type Mac = [u8; 6];

/// What the frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    Arp,
    Ipv4,
    Ipv6,
}

impl Carries {
    pub(crate) fn from_header(header: &[u8]) -> Option<Self> {
        match header.get(12..14)? {
            [0x08, 0x06] => Some(Self::Arp),
            [0x08, 0x00] => Some(Self::Ipv4),
            [0x86, 0xdd] => Some(Self::Ipv6),
            _ => None,
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 2] {
        match self {
            Self::Arp => [0x08, 0x06],
            Self::Ipv4 => [0x08, 0x00],
            Self::Ipv6 => [0x86, 0xdd],
        }
    }
}

/// A connected socket with messages (`SOCK_SEQPACKET`).
#[derive(Debug)]
pub(crate) struct Link {
    socket: AsyncFd<OwnedFd>,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&socket, fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
        // As much as the host allows: it wakes who writes only when three quarters are free again. It may well be less.
        _ = socket2::SockRef::from(&socket).set_send_buffer_size(ROOM);
        // Whoever waits for room is woken for each message that the other side reads: twice as often as for anything else.
        Ok(Self { socket: watched(socket, Interest::READABLE)? })
    }

    /// Writes a message: all or nothing.
    pub(crate) fn write(&self, message: &[u8]) -> io::Result<usize> {
        Ok(send(self.socket.get_ref(), message, SendFlags::NOSIGNAL)?)
    }

    /// Waits until a write that would have had to wait may be tried again. What is waited with is kept in `full`.
    pub(crate) async fn writable(&self, full: &mut Option<AsyncFd<OwnedFd>>) -> io::Result<()> {
        let waiting = match full {
            Some(waiting) => waiting,
            None => full.insert(watched(self.socket.get_ref().try_clone()?, Interest::WRITABLE)?),
        };
        waiting.writable().await?.clear_ready();
        Ok(())
    }
}

#[expect(
    deprecated,
    reason = "what it leaves to its caller an OwnedFd keeps by itself: it is the same descriptor for as long as it lives"
)]
fn watched(socket: OwnedFd, what: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, what)
}

/// Reads frames and gives each to `take`, until the guest's side is gone.
pub(crate) async fn read_from(link: &Link, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let mut ready = if let Ok(ready) = timeout(KEPT, link.socket.readable()).await {
            ready?
        } else {
            // Nothing is kept for a guest that is silent.
            buffer = Vec::new();
            link.socket.readable().await?
        };
        buffer.resize(FRAME_MAX, 0);
        let mut is_drained = false;
        for _ in 0..TURN {
            let read =
                ready.try_io(|socket| Ok(recv(socket.get_ref(), &mut buffer[..], RecvFlags::empty())?));
            match read {
                Ok(Ok((0, _))) => return Ok(()),
                Ok(Ok((count, _))) => take(&buffer[..count]),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    is_drained = true;
                    break;
                }
            }
        }
        if !is_drained {
            // Whoever sends without an end lets others have their turn.
            tokio::task::yield_now().await;
        }
    }
}

/// A link and its other end.
#[cfg(test)]
pub(crate) fn pair() -> (Link, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.unwrap();
    (Link::new(ours).unwrap(), theirs)
}
