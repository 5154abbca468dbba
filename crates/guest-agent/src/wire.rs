//! Owns the bytes between the port and the session: gathers writes, reads ahead, and finds where a session begins.
//!
//! The buffers outlive a session, since the bytes that break one may begin the next: a host that came anew without
//! this side noticing greets in the middle of what was the old session.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use cellule_protocol::mux::{READ_SIZE, WRITE_SIZE};
use cellule_protocol::preface::{Preface, Scanner, Side, VERSIONS};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// What yamux had read when it found that this is no frame: its header.
const LOOK_BACK: usize = 12;

/// A byte stream with buffers.
#[derive(Debug)]
pub(crate) struct Wire<I> {
    io: I,
    read: Box<[u8]>,
    start: usize,
    end: usize,
    last: [u8; LOOK_BACK],
    unsent: Vec<u8>,
    sent: usize,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Wire<I> {
    pub(crate) fn new(io: I) -> Self {
        Self {
            io,
            read: vec![0; READ_SIZE].into_boxed_slice(),
            start: 0,
            end: 0,
            last: [0; LOOK_BACK],
            unsent: Vec::with_capacity(WRITE_SIZE),
            sent: 0,
        }
    }

    /// Waits for a host's preface and answers it. Returns whether a session now begins, else the host hung up.
    pub(crate) async fn accept(&mut self) -> io::Result<bool> {
        self.unsent.clear();
        self.sent = 0;
        let mut scanner = Scanner::new(Side::Host);
        let look_back = std::mem::replace(&mut self.last, [0; LOOK_BACK]);
        for byte in look_back {
            // Too short for a whole preface.
            scanner.push(byte);
        }
        loop {
            let mut byte = [0];
            if self.read(&mut byte).await? == 0 {
                return Ok(false);
            }
            let Some(preface) = scanner.push(byte[0]) else { continue };
            let answer = Preface { versions: VERSIONS, nonce: preface.nonce };
            self.write_all(&answer.encode(Side::Agent)).await?;
            self.flush().await?;
            self.last = [0; LOOK_BACK];
            // A host that can't be served knows that from the answer, and another may come.
            if preface.shared_version(&VERSIONS).is_some() {
                return Ok(true);
            }
        }
    }

    fn remember(&mut self, delivered: &[u8]) {
        if let Some(tail) = delivered.last_chunk::<LOOK_BACK>() {
            self.last = *tail;
        } else {
            self.last.rotate_left(delivered.len());
            self.last[LOOK_BACK - delivered.len()..].copy_from_slice(delivered);
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.unsent[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        self.unsent.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.start == this.end {
            // The body of a large frame needs no stop on its way.
            if buf.remaining() >= this.read.len() {
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                this.remember(&buf.filled()[before..]);
                return Poll::Ready(Ok(()));
            }
            let mut ahead = ReadBuf::new(&mut this.read);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut ahead))?;
            this.start = 0;
            this.end = ahead.filled().len();
        }
        let count = buf.remaining().min(this.end - this.start);
        buf.put_slice(&this.read[this.start..this.start + count]);
        this.start += count;
        this.remember(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.unsent.len() + buf.len() > WRITE_SIZE {
            ready!(self.poll_send(cx))?;
        }
        let count = buf.len().min(WRITE_SIZE - self.unsent.len());
        self.unsent.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }
}
