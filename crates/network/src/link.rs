//! Owns the link to the guest: a socket that carries Ethernet frames, one with each message.
//!
//! What goes to the guest is gathered in an [`Outbox`]. It has a bound: whoever has data that can wait asks for room first, and the rest
//! is dropped as any network drops it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix;

use tokio::net::UnixStream;
use tokio::sync::Notify;

/// The header of a frame: two addresses and the type of what follows.
pub(crate) const HEADER: usize = 14;
/// The longest frame that IP can fill.
pub(crate) const FRAME_MAX: usize = HEADER + 65_535;
/// How much may wait before data that can wait has to.
const ROOM: usize = 1 << 20;
/// How much may wait at all.
const FULL: usize = ROOM + (512 << 10);
/// How many frames are read before others have their turn.
const TURN: usize = 64;
/// What is kept of a buffer that nothing waits in.
const KEPT: usize = 64 << 10;

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

    fn to_bytes(self) -> [u8; 2] {
        match self {
            Self::Arp => [0x08, 0x06],
            Self::Ipv4 => [0x08, 0x00],
            Self::Ipv6 => [0x86, 0xdd],
        }
    }
}

/// What waits to be written to the guest.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: RefCell<Waiting>,
    /// Something waits.
    filled: Notify,
    /// There is room again.
    drained: Notify,
}

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    /// How long the frames are that are not written, one after the other from `written` on.
    frames: VecDeque<usize>,
    written: usize,
    /// Where the guest is.
    guest: Mac,
    dropped: u64,
}

impl Outbox {
    pub(crate) fn new(guest: Mac) -> Self {
        let waiting = Waiting { bytes: Vec::new(), frames: VecDeque::new(), written: 0, guest, dropped: 0 };
        Self { waiting: RefCell::new(waiting), filled: Notify::new(), drained: Notify::new() }
    }

    /// Frames go to `mac` from now on.
    pub(crate) fn set_guest(&self, mac: Mac) {
        self.waiting.borrow_mut().guest = mac;
    }

    /// Whether data that can wait may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.borrow().len() < ROOM
    }

    /// Waits for room.
    pub(crate) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            if self.has_room() {
                return;
            }
            drained.await;
        }
    }

    /// Adds a frame with a payload of `length` bytes, which `fill` writes; gives `fill` back if it was dropped. An IP packet says by
    /// itself what it is.
    pub(crate) fn push<T, F>(&self, carries: Option<Carries>, length: usize, fill: F) -> Result<T, F>
    where
        F: FnOnce(&mut [u8]) -> T,
    {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() + length > FULL || length > FRAME_MAX - HEADER {
            waiting.dropped += 1;
            return Err(fill);
        }
        let guest = waiting.guest;
        waiting.frames.push_back(HEADER + length);
        let bytes = &mut waiting.bytes;
        bytes.extend_from_slice(&guest);
        bytes.extend_from_slice(&GATEWAY_MAC);
        let kind = bytes.len();
        let start = kind + 2;
        bytes.resize(start + length, 0);
        let result = fill(&mut bytes[start..]);
        let carries = carries.unwrap_or(match bytes.get(start).map_or(4, |first| first >> 4) {
            6 => Carries::Ipv6,
            _ => Carries::Ipv4,
        });
        bytes[kind..start].copy_from_slice(&carries.to_bytes());
        drop(waiting);
        self.filled.notify_one();
        Ok(result)
    }

    /// How many frames there was no room for.
    pub(crate) fn dropped(&self) -> u64 {
        self.waiting.borrow().dropped
    }

    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Writes what is added, until the guest's side is gone.
    pub(crate) async fn write_to(&self, link: &UnixStream) -> io::Result<()> {
        loop {
            let filled = self.filled.notified();
            let written = self.waiting.borrow_mut().write(link);
            match written {
                Ok(true) => filled.await,
                Ok(false) => link.writable().await?,
                Err(error) => return Err(error),
            }
            if self.has_room() {
                self.drained.notify_waiters();
            }
        }
    }
}

impl Waiting {
    fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes frames; `false` if the link takes no more of them now.
    fn write(&mut self, link: &UnixStream) -> io::Result<bool> {
        while let Some(length) = self.frames.front() {
            match link.try_write(&self.bytes[self.written..self.written + length]) {
                // All or nothing: it is a message.
                Ok(_) => {
                    self.written += length;
                    self.frames.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.written > ROOM {
                        self.bytes.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.written = 0;
        Ok(true)
    }
}

/// Makes a link of a connected socket with messages (`SOCK_SEQPACKET`).
pub(crate) fn open(socket: OwnedFd) -> io::Result<UnixStream> {
    // For reading and writing, one Unix socket is like the other; only that each of them is a message.
    let socket = unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// Reads frames and gives each to `take`, until the guest's side is gone.
pub(crate) async fn read_from(link: &UnixStream, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        link.readable().await?;
        buffer.resize(FRAME_MAX, 0);
        for _ in 0..TURN {
            match link.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => take(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Nothing is kept for a guest that is silent.
                    buffer = Vec::new();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        // Whoever sends without an end lets others have their turn.
        tokio::task::yield_now().await;
    }
}

/// A link and its other end.
#[cfg(test)]
pub(crate) fn pair() -> (UnixStream, UnixStream) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.unwrap();
    (open(ours).unwrap(), open(theirs).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_written_in_order_and_what_exceeds_the_bound_is_dropped() {
        let (ours, theirs) = pair();
        let outbox = Outbox::new([1; 6]);
        let mut sent = 0;
        while outbox.push(None, 65_000, |payload| payload.fill(0x45)).is_ok() {
            sent += 1;
        }
        assert!(!outbox.has_room());
        assert_eq!(outbox.dropped(), 1);
        let mut seen = 0;
        let read = read_from(&theirs, |frame| {
            assert_eq!(frame.len(), HEADER + 65_000);
            assert_eq!(Carries::from_header(frame), Some(Carries::Ipv4));
            seen += 1;
        });
        let write = async {
            let until_room = async {
                outbox.room().await;
                while outbox.waiting.borrow().len() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                _ = outbox.write_to(&ours) => {}
                () = until_room => {}
            }
            drop(ours);
        };
        let (read, ()) = tokio::join!(read, write);
        read.unwrap();
        assert_eq!(seen, sent);
    }
}
