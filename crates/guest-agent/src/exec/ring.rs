//! Owns what a program wrote lately: a bounded ring of bytes for each of its output streams.
//!
//! ```text
//!   0 ········ start ═══════════════════ end        offsets count from the stream's first byte
//!     dropped    │    ▲ reader    ▲ reader │ ◀── the pipe is read straight into here
//! ```
//! Any number of readers follow, each at its own offset, and take their bytes straight out of the ring. What happens when
//! the ring is full is its policy:
//! - *lossless*: the pipe is not read before the slowest reader (or, while there is none, some reader) took the oldest
//!   bytes, so that the program waits;
//! - *dropping*: the oldest bytes go, and a reader that had not taken them is told how many.
//!
//! Memory is only taken for what was written: bytes lie at their own offset until the ring is as large as it may be, and
//! from then on at their offset modulo that size.

mod budget;
mod reader;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rustix::buffer::spare_capacity;
use tokio::sync::Notify;

pub(super) use self::budget::Budget;
pub(super) use self::reader::{Reader, Step};
use super::channel::Channel;

/// What a ring may hold, by its policy.
pub(super) const LOSSLESS_CAPACITY: usize = 256 * 1024;
pub(super) const DROPPING_CAPACITY: usize = 1024 * 1024;
/// What a ring takes first. Most programs write less.
const FIRST: usize = 4 * 1024;
/// What is overwritten at once, so that a reader that keeps up gets its turn before.
const STEP: usize = 64 * 1024;
#[derive(Debug)]
pub(super) struct Ring {
    inner: Mutex<Inner>,
    done: Notify,
}

#[derive(Debug)]
struct Inner {
    bytes: Vec<u8>,
    capacity: usize,
    start: u64,
    end: u64,
    /// How far the furthest reader ever came.
    taken: u64,
    lossless: bool,
    /// Nothing will be added.
    closed: bool,
    interest: Interest,
    readers: Vec<Position>,
    next_reader: u64,
    writer: Option<Waker>,
    budget: Arc<Budget>,
}

/// Who may want what is not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interest {
    /// Readers that may come yet.
    Kept,
    /// Those that are there: the last one that leaves takes it along.
    UntilLeft,
    /// Nobody, ever: whoever fills it may stop.
    Gone,
}

#[derive(Debug)]
struct Position {
    reader: u64,
    offset: u64,
    waker: Option<Waker>,
}

/// How much a stream had, and how much of that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) written: u64,
    pub(super) dropped: u64,
}

impl Ring {
    /// A ring that is `kept` for readers yet to come, or else lives for those that come before the first one leaves.
    pub(super) fn new(lossless: bool, kept: bool, budget: &Arc<Budget>) -> Arc<Self> {
        let capacity = if lossless { LOSSLESS_CAPACITY } else { DROPPING_CAPACITY };
        let ring = Self::with_capacity(capacity, lossless, budget);
        ring.lock().interest = if kept { Interest::Kept } else { Interest::UntilLeft };
        ring
    }

    fn with_capacity(capacity: usize, lossless: bool, budget: &Arc<Budget>) -> Arc<Self> {
        let inner = Inner {
            bytes: Vec::new(),
            capacity,
            start: 0,
            end: 0,
            taken: 0,
            lossless,
            closed: false,
            interest: Interest::Kept,
            readers: Vec::new(),
            next_reader: 0,
            writer: None,
            budget: Arc::clone(budget),
        };
        Arc::new(Self { inner: Mutex::new(inner), done: Notify::new() })
    }

    /// Reads once from `source`, when it has something and the ring room for it. `Ok(0)` is the end: of the source, or
    /// of everybody's interest.
    pub(super) fn poll_fill(&self, cx: &mut Context<'_>, source: &Channel) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        if inner.interest == Interest::Gone {
            return Poll::Ready(Ok(0));
        }
        // Also for the end of interest, which may come while the source says nothing.
        inner.writer = Some(cx.waker().clone());
        if inner.room() == 0 {
            return Poll::Pending;
        }
        source.poll_read(cx, |fd| inner.read(fd))
    }

    /// As [`Self::poll_fill`], but waits only for room: `None` if the source has nothing now.
    pub(super) fn poll_fill_now(
        &self,
        cx: &mut Context<'_>,
        source: &Channel,
    ) -> Poll<io::Result<Option<usize>>> {
        let mut inner = self.lock();
        if inner.interest == Interest::Gone {
            return Poll::Ready(Ok(None));
        }
        if inner.room() == 0 {
            inner.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(source.read_now(|fd| inner.read(fd)))
    }

    /// Adds what is no program's, as soon as there is room.
    pub(super) async fn append(&self, mut bytes: &[u8]) {
        std::future::poll_fn(|cx| {
            let mut inner = self.lock();
            while !bytes.is_empty() {
                if inner.interest == Interest::Gone {
                    break;
                }
                let count = inner.put(bytes);
                if count == 0 {
                    inner.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                bytes = &bytes[count..];
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Says that nothing more will come.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.wake_readers();
        drop(inner);
        self.done.notify_waiters();
    }

    /// Waits until nothing more will come.
    pub(super) async fn closed(&self) {
        loop {
            let done = self.done.notified();
            if self.lock().closed {
                return;
            }
            done.await;
        }
    }

    /// Says whether readers may come yet. Where none may and none is there, the source is closed, as a pipe without a
    /// reader.
    pub(super) fn set_kept(&self, kept: bool) {
        let mut inner = self.lock();
        if inner.interest != Interest::Gone {
            inner.interest = if kept { Interest::Kept } else { Interest::UntilLeft };
        }
        inner.lose_interest();
    }

    /// Changes what happens when it is full.
    pub(super) fn set_lossless(&self, lossless: bool) {
        let mut inner = self.lock();
        inner.lossless = lossless;
        inner.wake_writer();
    }

    /// Whether a reader can lose what it has not taken yet, and has not taken all.
    pub(super) fn races(&self) -> bool {
        let inner = self.lock();
        !inner.lossless && inner.readers.iter().any(|reader| reader.offset < inner.end)
    }

    pub(super) fn is_lossless(&self) -> bool {
        self.lock().lossless
    }

    pub(super) fn extent(&self) -> Extent {
        let inner = self.lock();
        Extent { written: inner.end, dropped: inner.start }
    }

    /// Memory that it holds.
    pub(super) fn memory(&self) -> usize {
        self.lock().bytes.capacity()
    }

    /// A reader from `offset` on, or from the nearest byte that there is; returns where that is.
    pub(super) fn reader(self: &Arc<Self>, offset: u64) -> (Reader, u64) {
        let mut inner = self.lock();
        let offset = offset.clamp(inner.start, inner.end);
        let id = inner.next_reader;
        inner.next_reader += 1;
        inner.readers.push(Position { reader: id, offset, waker: None });
        (Reader { ring: Arc::clone(self), id }, offset)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Bytes that may be added now.
    fn room(&self) -> usize {
        if !self.lossless {
            return STEP;
        }
        let oldest = self.readers.iter().map(|reader| reader.offset).min().unwrap_or(self.taken);
        let held = usize::try_from(self.end - oldest.max(self.start)).unwrap_or(usize::MAX);
        self.capacity.saturating_sub(held)
    }

    fn position(&self, offset: u64) -> usize {
        // The remainder is smaller than a size.
        usize::try_from(offset % self.capacity as u64).unwrap_or(0)
    }

    /// Makes room for more bytes at the end of the memory, as long as the ring may grow.
    fn grow(&mut self) {
        if self.bytes.len() >= self.capacity || self.bytes.len() < self.bytes.capacity() {
            return;
        }
        let wanted = (self.bytes.len() * 4).clamp(FIRST, self.capacity);
        if self.bytes.is_empty() || self.budget.take(wanted - self.bytes.len()) {
            self.bytes.reserve_exact(wanted - self.bytes.len());
        } else {
            // Bytes still lie at their own offsets, so this size does as well as any other.
            self.capacity = self.bytes.len();
        }
    }

    fn read(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.grow();
        let count = if self.bytes.len() < self.capacity {
            let count = rustix::io::read(fd, spare_capacity(&mut self.bytes))?;
            // The allocator may have been generous.
            self.capacity = self.capacity.max(self.bytes.len());
            count
        } else {
            let (at, len) = self.slot();
            rustix::io::read(fd, &mut self.bytes[at..at + len])?
        };
        self.added(count);
        Ok(count)
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        if self.room() == 0 {
            return 0;
        }
        self.grow();
        let count = if self.bytes.len() < self.capacity {
            let count = bytes.len().min(self.bytes.capacity().min(self.capacity) - self.bytes.len());
            self.bytes.extend_from_slice(&bytes[..count]);
            count
        } else {
            let (at, len) = self.slot();
            let count = len.min(bytes.len());
            self.bytes[at..at + count].copy_from_slice(&bytes[..count]);
            count
        };
        self.added(count);
        count
    }

    /// Where the next bytes go in a ring of full size, and how many.
    fn slot(&self) -> (usize, usize) {
        let at = self.position(self.end);
        (at, self.room().min(self.capacity - at))
    }

    fn added(&mut self, count: usize) {
        self.end += count as u64;
        self.start = self.start.max(self.end.saturating_sub(self.capacity as u64));
        self.wake_readers();
    }

    fn lose_interest(&mut self) {
        if self.interest == Interest::UntilLeft && self.readers.is_empty() {
            self.interest = Interest::Gone;
            self.wake_writer();
        }
    }

    fn wake_readers(&mut self) {
        self.readers.iter_mut().filter_map(|reader| reader.waker.take()).for_each(Waker::wake);
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// The bytes from `offset` on that lie in one piece.
    fn piece(&self, offset: u64) -> &[u8] {
        let at = self.position(offset);
        let len = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        &self.bytes[at..(at + len.min(self.capacity - at)).min(self.bytes.len())]
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes.capacity().saturating_sub(FIRST));
    }
}

#[cfg(test)]
mod tests;
