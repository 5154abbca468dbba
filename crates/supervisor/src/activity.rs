//! Whether anybody uses a sandbox: what the rule about idle sandboxes is decided by.
//!
//! A stream of bytes to or from the guest is a use as long as it is open. The calls of a client are a use only while
//! something moves on them: a client that merely holds a connection uses nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use cellule_protocol::pass_through::Passable;

/// Counts uses; clones count the same.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<Mutex<Counted>>);

#[derive(Debug)]
struct Counted {
    open: usize,
    last: Instant,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Counted { open: 0, last: Instant::now() })))
    }

    fn with<T>(&self, what: impl FnOnce(&mut Counted) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something happened just now.
    pub(crate) fn touch(&self) {
        self.with(|counted| counted.last = Instant::now());
    }

    /// Something is used until the guard is dropped.
    pub(crate) fn begin(&self) -> Use {
        self.with(|counted| counted.open += 1);
        Use(self.clone())
    }

    /// For how long nobody has used it.
    pub(crate) fn idle_for(&self) -> Duration {
        self.with(|counted| if counted.open > 0 { Duration::ZERO } else { counted.last.elapsed() })
    }
}

/// A use that is going on.
#[derive(Debug)]
pub(crate) struct Use(Activity);

impl Drop for Use {
    fn drop(&mut self) {
        self.0.with(|counted| {
            counted.open -= 1;
            counted.last = Instant::now();
        });
    }
}

/// A stream that is used whenever something comes on it.
#[derive(Debug)]
pub(crate) struct Watched<S>(pub(crate) S, pub(crate) Activity);

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.0).poll_read(cx, buf));
        self.1.touch();
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: Passable> Passable for Watched<S> {
    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_used_and_time_counts_from_its_end() {
        let activity = Activity::new();
        let before = Instant::now();
        let (first, second) = (activity.begin(), activity.clone().begin());
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(activity.idle_for(), Duration::ZERO);
        drop(first);
        assert_eq!(activity.idle_for(), Duration::ZERO);
        drop(second);
        let ended = Instant::now();
        std::thread::sleep(Duration::from_millis(10));
        assert!(activity.idle_for() >= Duration::from_millis(10) && activity.idle_for() <= before.elapsed());
        assert!(activity.idle_for() <= ended.elapsed() + Duration::from_millis(5));
        activity.touch();
        assert!(activity.idle_for() < before.elapsed());
    }
}
