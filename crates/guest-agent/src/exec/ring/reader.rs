//! Owns one reader's place in a ring.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use super::{Inner, Ring};

/// Bytes that a reader came too late for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// What a reader's step did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Sent,
    Gap(Gap),
    /// All was sent that will ever be written.
    End,
    /// The stream takes nothing any more.
    Gone,
}

/// One reader, until it leaves.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) ring: Arc<Ring>,
    pub(super) id: u64,
}

impl Reader {
    /// Moves bytes from the ring to `stream`, or tells why not.
    pub(crate) fn poll_step(
        &self,
        cx: &mut Context<'_>,
        stream: Pin<&mut (impl AsyncWrite + ?Sized)>,
    ) -> Poll<Step> {
        let mut inner = self.ring.lock();
        if let Some(gap) = inner.skip_gap(self.id) {
            return Poll::Ready(Step::Gap(gap));
        }
        let (end, closed) = (inner.end, inner.closed);
        let Some(position) = inner.readers.iter_mut().find(|position| position.reader == self.id) else {
            return Poll::Ready(Step::Gone);
        };
        let offset = position.offset;
        if offset == end {
            if closed {
                return Poll::Ready(Step::End);
            }
            position.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        match stream.poll_write(cx, inner.piece(offset)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Step::Gone),
            Poll::Ready(Ok(count)) => {
                let offset = offset + count as u64;
                for position in inner.readers.iter_mut().filter(|position| position.reader == self.id) {
                    position.offset = offset;
                }
                inner.taken = inner.taken.max(offset);
                inner.wake_writer();
                Poll::Ready(Step::Sent)
            }
        }
    }

    /// What this reader came too late for and was not yet told.
    pub(crate) fn skip_gap(&self) -> Option<Gap> {
        self.ring.lock().skip_gap(self.id)
    }

    /// Holds nobody up any more.
    pub(crate) fn leave(&self) {
        let mut inner = self.ring.lock();
        inner.readers.retain(|position| position.reader != self.id);
        inner.lose_interest();
        inner.wake_writer();
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }
}

impl Inner {
    fn skip_gap(&mut self, reader: u64) -> Option<Gap> {
        let start = self.start;
        let position = self.readers.iter_mut().find(|position| position.reader == reader)?;
        let gap = Gap { offset: position.offset, bytes: start.saturating_sub(position.offset) };
        position.offset = position.offset.max(start);
        (gap.bytes > 0).then_some(gap)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.leave();
    }
}
