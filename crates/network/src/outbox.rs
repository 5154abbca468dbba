//! Owns what waits to be written to the guest. It has a bound: whoever has data that can wait asks for room first, and the rest is dropped
//! as any network drops it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::link::{Carries, FRAME_MAX, GATEWAY_MAC, HEADER, KEPT, Link, Mac, ROOM};

/// How much may wait at all.
const FULL: usize = ROOM + (512 << 10);

/// What waits to be written to the guest.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: RefCell<Waiting>,
    /// Something waits.
    filled: Notify,
    /// There is room again.
    drained: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Frames from `written` to `end`, one after the other. What is behind is of no meaning, and need not be cleared before it is
    /// written to again.
    bytes: Vec<u8>,
    /// How long each of them is.
    frames: VecDeque<usize>,
    written: usize,
    end: usize,
    /// Where the guest is.
    guest: Mac,
    dropped: u64,
}

impl Outbox {
    pub(crate) fn new(guest: Mac) -> Self {
        let waiting = Waiting { guest, ..Waiting::default() };
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
        let frame = waiting.add(HEADER + length);
        frame[..6].copy_from_slice(&guest);
        frame[6..12].copy_from_slice(&GATEWAY_MAC);
        let result = fill(&mut frame[HEADER..]);
        let carries = carries.unwrap_or(match frame.get(HEADER).map_or(4, |first| first >> 4) {
            6 => Carries::Ipv6,
            _ => Carries::Ipv4,
        });
        frame[12..HEADER].copy_from_slice(&carries.to_bytes());
        drop(waiting);
        self.filled.notify_one();
        Ok(result)
    }

    /// How many frames there was no room for.
    pub(crate) fn dropped(&self) -> u64 {
        self.waiting.borrow().dropped
    }

    /// The frames that wait, which wait no more.
    #[cfg(test)]
    pub(crate) fn take_all(&self) -> Vec<Vec<u8>> {
        let mut waiting = self.waiting.borrow_mut();
        let mut frames = Vec::new();
        while let Some(length) = waiting.frames.pop_front() {
            frames.push(waiting.bytes[waiting.written..waiting.written + length].to_vec());
            waiting.written += length;
        }
        (waiting.written, waiting.end) = (0, 0);
        frames
    }

    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Writes what is added, until the guest's side is gone.
    pub(crate) async fn write_to(&self, link: &Link) -> io::Result<()> {
        let mut full = None;
        loop {
            let filled = self.filled.notified();
            let written = self.waiting.borrow_mut().write(link);
            match written {
                Ok(true) => {
                    full = None;
                    tokio::pin!(filled);
                    if timeout(KEPT, &mut filled).await.is_err() {
                        // A guest that is silent takes nothing.
                        self.waiting.borrow_mut().give_back();
                        filled.await;
                    }
                }
                Ok(false) => link.writable(&mut full).await?,
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
        self.end - self.written
    }

    /// Room for one more frame, which the caller fills.
    fn add(&mut self, length: usize) -> &mut [u8] {
        let (start, end) = (self.end, self.end + length);
        if end > self.bytes.len() {
            self.bytes.resize(end.next_power_of_two(), 0);
        }
        self.frames.push_back(length);
        self.end = end;
        &mut self.bytes[start..end]
    }

    fn give_back(&mut self) {
        if self.len() == 0 {
            self.bytes = Vec::new();
        }
    }

    /// Writes frames; `false` if the link takes no more of them now.
    fn write(&mut self, link: &Link) -> io::Result<bool> {
        while let Some(length) = self.frames.front() {
            match link.write(&self.bytes[self.written..self.written + length]) {
                // All or nothing: it is a message.
                Ok(_) => {
                    self.written += length;
                    self.frames.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.written > ROOM {
                        self.bytes.copy_within(self.written..self.end, 0);
                        (self.written, self.end) = (0, self.len());
                    }
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        (self.written, self.end) = (0, 0);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{pair, read_from};

    #[tokio::test]
    async fn what_waits_is_written_in_order_and_what_exceeds_the_bound_is_dropped() {
        let (ours, theirs) = pair();
        let theirs = Link::new(theirs).unwrap();
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
