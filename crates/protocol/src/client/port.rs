//! Owns connections to ports in the guest.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::driver::HostStream;
use super::{CallError, Session};
use crate::pass_through::Passable;
use crate::stream::{StreamHeader, StreamKind};

/// `EAGAIN` and `ECONNREFUSED`, which mean the same in every guest.
const NO_ROOM: u8 = 11;
const REFUSED: u8 = 111;

/// Why there is no connection to a port.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PortError {
    /// Nobody listens there.
    #[error("nothing in the guest listens on port {port}")]
    Refused {
        /// The port.
        port: u16,
    },
    /// There are as many connections as there may be.
    #[error("there are as many connections to the guest's ports as there may be")]
    TooMany,
    /// The guest's kernel gives another reason.
    #[error("no connection to the guest's port {port}: {}", io::Error::from_raw_os_error(i32::from(*errno)))]
    Failed {
        /// The port.
        port: u16,
        /// The number of its error.
        errno: u8,
    },
    /// The session is lost, or the agent silent.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A connection to a program in the guest, both directions.
///
/// Shutting it down ends what the program reads, and leaves what it writes. Dropping it cuts both. Where the connection was
/// cut at the other end, or the session lost, reads fail with [`io::ErrorKind::ConnectionAborted`].
#[derive(Debug)]
pub struct PortStream {
    stream: HostStream,
    shut: bool,
}

impl Session {
    /// Connects to a port on the guest's own loopback.
    ///
    /// # Errors
    /// Nobody listens there; there is no room for one more; the session is lost or the agent does not answer in time.
    pub async fn open_port(&self, port: u16) -> Result<PortStream, PortError> {
        let room = self.link.reserve(1);
        let mut room = room.ok_or(PortError::TooMany)?;
        let header = StreamHeader { kind: StreamKind::Port, id: port.into() };
        let mut stream = self.link.open(header, &mut room).await.map_err(CallError::Lost)?;
        let word = match tokio::time::timeout(self.answer, stream.read_u8()).await {
            Ok(Ok(word)) => word,
            Ok(Err(_)) => {
                let cut = tonic::Status::internal("the connection was cut before there was one");
                return Err(CallError::Lost(self.link.lost_because(&cut).await).into());
            }
            Err(_) => return Err(CallError::NoAnswer { within: self.answer }.into()),
        };
        match word {
            0 => Ok(PortStream { stream, shut: false }),
            REFUSED => Err(PortError::Refused { port }),
            NO_ROOM => Err(PortError::TooMany),
            errno => Err(PortError::Failed { port, errno }),
        }
    }
}

impl Passable for PortStream {
    fn is_closed(&self) -> bool {
        self.stream.is_reset()
    }
}

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        let ended = read.is_ok() && buf.filled().len() == before;
        // Once both sides are done a stream is closed as well.
        let cut = ended && self.stream.is_reset() && (!self.shut || self.stream.link().has_ended());
        if cut || read.is_err() && self.stream.link().has_ended() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf).map_err(|error| blame(&error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(|error| blame(&error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = ready!(Pin::new(&mut self.stream).poll_shutdown(cx)).map_err(|error| blame(&error));
        self.shut |= shut.is_ok();
        Poll::Ready(shut)
    }
}

/// A closed stream takes nothing more, which is a broken pipe by another name.
fn blame(error: &io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WriteZero => io::ErrorKind::BrokenPipe.into(),
        kind => kind.into(),
    }
}
