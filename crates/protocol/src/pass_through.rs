//! Copies between two streams, both ways, and tells an end from a cut.
//!
//! ```text
//!   reading ──▶ end of the one side ──▶ the other side's writing is closed ──▶ done
//!      │
//!      └──────▶ either side is cut ──▶ both are dropped, which cuts both
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::mux::MuxStream;

/// A stream that knows how it ended.
pub trait Passable: AsyncRead + AsyncWrite + Unpin {
    /// Whether it is closed in both directions: by a reset or the end of its session, or because both sides have
    /// closed theirs.
    fn is_closed(&self) -> bool;
}

/// Copies until both sides are done, with at most so many bytes read ahead in either direction.
///
/// # Errors
/// One of them was cut before. The caller must drop both.
pub async fn pass_through(mut a: impl Passable, mut b: impl Passable, ahead: usize) -> io::Result<()> {
    let (mut forth, mut back) = (Direction::new(ahead), Direction::new(ahead));
    std::future::poll_fn(move |cx| {
        // Both are polled each time: one that waits must not keep the other from moving.
        let forth_now = forth.poll(cx, &mut a, &mut b, back.done)?;
        let back_now = back.poll(cx, &mut b, &mut a, forth.done)?;
        if forth_now.is_ready() && back_now.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

impl Passable for MuxStream {
    fn is_closed(&self) -> bool {
        self.is_reset()
    }
}

#[cfg(feature = "client")]
impl Passable for crate::client::HostStream {
    fn is_closed(&self) -> bool {
        self.is_reset()
    }
}

struct Direction {
    buffer: Box<[u8]>,
    begin: usize,
    end: usize,
    ended: bool,
    done: bool,
}

impl Direction {
    fn new(ahead: usize) -> Self {
        Self { buffer: vec![0; ahead].into(), begin: 0, end: 0, ended: false, done: false }
    }

    /// Moves what can be moved. `from_is_shut` says whether we have closed our writing to `from`, after which a stream
    /// that is closed has merely ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Passable,
        to: &mut impl Passable,
        from_is_shut: bool,
    ) -> Poll<io::Result<()>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            while self.begin < self.end {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.begin..self.end]))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.begin += written;
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            let mut free = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *from).poll_read(cx, &mut free)? {
                Poll::Ready(()) => {}
                Poll::Pending => {
                    // What was written goes out before we wait for more.
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    return Poll::Pending;
                }
            }
            (self.begin, self.end) = (0, free.filled().len());
            if self.end == 0 {
                if from.is_closed() && !from_is_shut {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                self.ended = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// One end of a pipe that can be made to look cut.
    struct End(DuplexStream, bool);

    impl AsyncRead for End {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for End {
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

    impl Passable for End {
        fn is_closed(&self) -> bool {
            self.1
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    const HANG: Duration = Duration::from_secs(20);

    #[test]
    fn each_direction_ends_by_itself() {
        runtime().block_on(async {
            let (mut left, a) = duplex(64);
            let (b, mut right) = duplex(64);
            let copied = tokio::spawn(pass_through(End(a, false), End(b, false), 64 << 10));
            left.write_all(b"question").await.unwrap();
            left.shutdown().await.unwrap();
            let mut text = String::new();
            right.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "question");
            right.write_all(b"answer").await.unwrap();
            right.shutdown().await.unwrap();
            text.clear();
            left.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "answer");
            tokio::time::timeout(HANG, copied).await.unwrap().unwrap().unwrap();
        });
    }

    #[test]
    fn a_cut_is_passed_on_as_a_cut() {
        runtime().block_on(async {
            let (left, a) = duplex(64);
            let (b, mut right) = duplex(64);
            let copied = tokio::spawn(pass_through(End(a, true), End(b, false), 64 << 10));
            drop(left);
            let error = tokio::time::timeout(HANG, copied).await.unwrap().unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(right.read(&mut [0; 1]).await.unwrap(), 0, "the other side was dropped");
        });
    }

    #[test]
    fn a_reader_that_waits_does_not_hold_the_other_direction() {
        runtime().block_on(async {
            let (mut left, a) = duplex(64);
            let (b, mut right) = duplex(64);
            let _copied = tokio::spawn(pass_through(End(a, false), End(b, false), 64 << 10));
            // Far more than buffers hold, and nobody reads it.
            let flood = tokio::spawn(async move {
                _ = left.write_all(&vec![0; 1 << 20]).await;
                left
            });
            tokio::time::sleep(Duration::from_millis(50)).await;
            right.write_all(b"x").await.unwrap();
            let drain = tokio::spawn(async move {
                let mut sink = vec![0; 1 << 20];
                right.read_exact(&mut sink).await.unwrap();
                right
            });
            let mut left = tokio::time::timeout(HANG, flood).await.unwrap().unwrap();
            let _right = drain.await.unwrap();
            assert_eq!(tokio::time::timeout(HANG, left.read_u8()).await.unwrap().unwrap(), b'x');
        });
    }
}
