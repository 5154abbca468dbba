//! Owns the link to the guest: a stream socket with Ethernet frames, each behind its length of 4 bytes, big-endian, as QEMU's
//! `-netdev stream` has them.
//!
//! What goes to the guest is gathered in an [`Outbox`] and written in batches. It has a bound: whoever has data that can wait asks for
//! room first, and the rest is dropped as any network drops it.

use std::cell::RefCell;
use std::io;

use tokio::net::UnixStream;
use tokio::sync::Notify;

/// The bytes before a frame.
const PREFIX: usize = 4;
/// The header of a frame: two addresses and the type of what follows.
pub(crate) const HEADER: usize = 14;
/// The longest frame that IP can fill.
pub(crate) const FRAME_MAX: usize = HEADER + 65_535;
/// How much may wait before data that can wait has to.
const ROOM: usize = 1 << 20;
/// How much may wait at all.
const FULL: usize = ROOM + (512 << 10);
/// How much is read at a time: a few of the largest frames.
const BATCH: usize = 4 * FRAME_MAX;
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
    written: usize,
    /// Where the guest is.
    guest: Mac,
    dropped: u64,
}

impl Outbox {
    pub(crate) fn new(guest: Mac) -> Self {
        let waiting = Waiting { bytes: Vec::new(), written: 0, guest, dropped: 0 };
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
        let prefix = u32::try_from(HEADER + length).unwrap_or(u32::MAX).to_be_bytes();
        let bytes = &mut waiting.bytes;
        bytes.extend_from_slice(&prefix);
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
            if self.waiting.borrow().len() == 0 {
                filled.await;
                continue;
            }
            link.writable().await?;
            let mut waiting = self.waiting.borrow_mut();
            match link.try_write(&waiting.bytes[waiting.written..]) {
                Ok(count) => waiting.wrote(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            let room = waiting.len() < ROOM;
            drop(waiting);
            if room {
                self.drained.notify_waiters();
            }
        }
    }
}

impl Waiting {
    fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    fn wrote(&mut self, count: usize) {
        self.written += count;
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
            self.written = 0;
        } else if self.written > ROOM {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

/// Reads frames and gives each to `take`, until the guest's side is gone.
pub(crate) async fn read_from(link: &UnixStream, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut filled = 0;
    loop {
        buffer.resize(BATCH, 0);
        match link.try_read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Nothing is kept for a guest that is silent.
                if filled == 0 {
                    buffer = Vec::new();
                }
                link.readable().await?;
                continue;
            }
            Err(error) => return Err(error),
        }
        let mut rest = &buffer[..filled];
        while let Some((frame, after)) = next_frame(rest)? {
            take(frame);
            rest = after;
        }
        let (left, begin) = (rest.len(), filled - rest.len());
        buffer.copy_within(begin..filled, 0);
        filled = left;
        // Whoever sends without an end lets others have their turn.
        tokio::task::yield_now().await;
    }
}

/// The first whole frame of `bytes`, and what follows it.
fn next_frame(bytes: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
    if length > FRAME_MAX {
        let what = format!("a frame of {length} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(rest.split_at_checked(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_only_when_it_is_whole() {
        let bytes = [0, 0, 0, 2, b'a', b'b', 0, 0];
        assert_eq!(next_frame(&bytes[..5]).unwrap(), None);
        assert_eq!(next_frame(&bytes).unwrap(), Some((&b"ab"[..], &bytes[6..])));
        assert_eq!(next_frame(&bytes[..3]).unwrap(), None);
    }

    #[test]
    fn a_length_that_no_frame_has_ends_the_link() {
        let error = next_frame(&[0xff; 4]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn what_waits_is_written_in_order_and_what_exceeds_the_bound_is_dropped() {
        let (ours, theirs) = UnixStream::pair().unwrap();
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
