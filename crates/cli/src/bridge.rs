//! Joins what blocks with what must not: a thread that reads or writes an archive, and a stream of a session.
//!
//! ```text
//!   thread ── Write ──▶ [two chunks at most] ──▶ AsyncWrite       (to a guest)
//!   thread ◀── Read ─── [two chunks at most] ◀── AsyncRead        (from a guest)
//! ```

use std::io::{self, Read, Write};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// What is handed over at a time.
const CHUNK: usize = 256 << 10;
/// One being made, one being used.
const CHUNKS: usize = 2;

/// Runs `fill` on a thread and passes on what it writes, until it is done. The result is its own; writing to it fails once
/// `to` does, whose failure comes first.
///
/// # Errors
/// `to` fails.
pub(crate) async fn write_from<T: Send + 'static>(
    mut to: impl AsyncWrite + Unpin,
    fill: impl FnOnce(&mut dyn Write) -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(CHUNKS);
    let filling = tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(CHUNK, Sender(sender));
        let filled = fill(&mut out);
        let flushed = out.flush();
        // Nobody is left to read: they know why.
        drop(flushed);
        filled
    });
    let mut passed = Ok(());
    while let Some(chunk) = chunks.recv().await {
        passed = to.write_all(&chunk).await;
        if passed.is_err() {
            break;
        }
    }
    drop(chunks);
    let filled = filling.await.map_err(io::Error::other)?;
    passed.map(|()| filled)
}

/// Runs `take` on a thread, which reads what `from` gives. A failure of `from` is one of its reads.
///
/// # Errors
/// The thread broke off.
pub(crate) async fn read_into<T: Send + 'static>(
    mut from: impl AsyncRead + Unpin,
    take: impl FnOnce(&mut dyn Read) -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, chunks) = mpsc::channel::<io::Result<Vec<u8>>>(CHUNKS);
    let taking = tokio::task::spawn_blocking(move || {
        take(&mut Receiver { chunks, chunk: Vec::new(), at: 0, ended: false })
    });
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = from.read_buf(&mut chunk).await;
        let ends = !matches!(read, Ok(count) if count > 0);
        let message = read.map(|_| chunk);
        // An empty chunk is a clean end: a sender that is merely dropped must not look like one.
        if sender.send(message).await.is_err() || ends {
            break;
        }
    }
    taking.await.map_err(io::Error::other)
}

struct Sender(mpsc::Sender<Vec<u8>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.blocking_send(bytes.to_vec()) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Receiver {
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !self.ended {
            self.chunk =
                self.chunks.blocking_recv().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
            self.at = 0;
            self.ended = self.chunk.is_empty();
        }
        let rest = &self.chunk[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;

    const MUCH: usize = 3 * CHUNK + 17;

    fn pattern() -> Vec<u8> {
        (0_u8..=250).cycle().take(MUCH).collect()
    }

    #[tokio::test]
    async fn all_that_a_thread_writes_arrives_in_order() {
        let mut got = Vec::new();
        let written = write_from(&mut got, |out| {
            pattern().chunks(1000).try_for_each(|part| out.write_all(part)).is_ok()
        });
        assert!(written.await.unwrap());
        assert!(got == pattern());
    }

    #[tokio::test]
    async fn a_stream_that_fails_ends_the_thread_and_is_the_error() {
        let (reader, writer) = tokio::io::duplex(16);
        drop(reader);
        let written = write_from(writer, |out| out.write_all(&pattern()).is_ok()).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_thread_reads_all_that_comes_and_then_the_end() {
        let bytes = pattern();
        let read = read_into(&bytes[..], |from| {
            let mut all = Vec::new();
            from.read_to_end(&mut all).unwrap();
            assert_eq!(from.read(&mut [0; 4]).unwrap(), 0, "an end stays one");
            all
        });
        assert!(read.await.unwrap() == pattern());
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_is_no_end() {
        struct Cut(bool);
        impl AsyncRead for Cut {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                if std::mem::replace(&mut self.0, true) {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                buffer.put_slice(b"half");
                Poll::Ready(Ok(()))
            }
        }
        let read =
            read_into(Cut(false), |from| from.read_to_end(&mut Vec::new()).map_err(|error| error.kind()));
        assert_eq!(read.await.unwrap(), Err(io::ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn a_thread_that_has_enough_ends_the_reading() {
        let endless = tokio::io::repeat(1);
        let read = read_into(endless, |from| from.read(&mut [0; 10]).unwrap());
        assert_eq!(read.await.unwrap(), 10);
    }
}
