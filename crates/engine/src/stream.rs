//! One session's byte stream to the program in the guest.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// A byte stream to the program in the guest. Dropping it ends the session: the guest sees the end of the file.
/// The machine's end is the end of the stream.
#[derive(Debug)]
pub struct AgentStream {
    stream: UnixStream,
    _lease: Lease,
}

impl AgentStream {
    pub(crate) fn new(stream: UnixStream, lease: Lease) -> Self {
        Self { stream, _lease: lease }
    }
}

/// The right to the one stream that may be open at a time; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease(Arc<AtomicBool>);

impl Lease {
    /// Takes the right, unless it is taken.
    pub(crate) fn take(taken: &Arc<AtomicBool>) -> Option<Self> {
        (!taken.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(taken)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl AsyncRead for AgentStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for AgentStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ends the whole session: an engine's port has no half that could be closed alone.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_lease_is_given_until_it_comes_back() {
        let taken = Arc::new(AtomicBool::new(false));
        let first = Lease::take(&taken);
        assert!(first.is_some());
        assert!(Lease::take(&taken).is_none());
        drop(first);
        assert!(Lease::take(&taken).is_some());
    }
}
