//! Owns the ends of an exec's standard streams that the host holds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::driver::HostStream;

/// The standard streams of an exec, opened for a supervisor to join.
#[derive(Debug)]
pub struct Stdio {
    /// Its standard input, if that was asked for.
    pub stdin: Option<Stdin>,
    /// Its standard output.
    pub stdout: Output,
    /// Its standard error, if that was asked for.
    pub stderr: Option<Output>,
}

/// What an exec reads from its standard input.
///
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) ends the program's input. So does dropping it, unless the exec is a
/// detached one, to which another may come. A terminal's input has no end. Writes wait while the
/// program does not read; they fail with [`io::ErrorKind::BrokenPipe`] once it no longer can, and with
/// [`io::ErrorKind::ConnectionAborted`] once the session is lost.
#[derive(Debug)]
pub struct Stdin(HostStream);

/// What an exec writes to its standard output or error.
///
/// Its end means that everything came that was written before the program ended; if the session is lost before, reads
/// fail with [`io::ErrorKind::ConnectionAborted`] instead. The program waits for a reader that does not read; a
/// reader that is dropped looks to it like a closed pipe. A detached exec waits for nobody, unless it was asked to: what
/// is missing in an attachment's stream then is told by its [events](super::AttachEvent).
#[derive(Debug)]
pub struct Output(HostStream);

impl Stdin {
    pub(super) fn new(stream: HostStream) -> Self {
        Self(stream)
    }

    fn blame(&self, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::WriteZero {
            error
        } else if self.0.link().has_ended() {
            io::ErrorKind::ConnectionAborted.into()
        } else {
            io::ErrorKind::BrokenPipe.into()
        }
    }
}

impl Output {
    pub(super) fn new(stream: HostStream) -> Self {
        Self(stream)
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf).map_err(|error| self.blame(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx).map_err(|error| self.blame(error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx).map_err(|error| self.blame(error))
    }
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(Pin::new(&mut self.0).poll_read(cx, buf)) {
            // This side never closes its half, so a stream that is closed for both was cut.
            Ok(()) if buf.filled().len() == before && self.0.is_reset() => {
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) if self.0.link().has_ended() => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}
