//! Owns the agent's side of a session: accepting the streams that the host opens.

use std::io;

use futures::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use yamux::{Connection, ConnectionError, FrameDecodeError, Mode};

use crate::mux::{self, MuxStream};

/// The streams of one session, from after its preface until its end.
#[derive(Debug)]
pub struct Streams<T> {
    connection: Connection<Compat<T>>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Streams<T> {
    /// Begins at the first byte behind the preface. `io` should gather small writes until it is flushed.
    pub fn new(io: T) -> Self {
        Self { connection: Connection::new(io.compat(), mux::config(), Mode::Server) }
    }

    /// The next stream that the host opens, or `None` when the host hung up between two frames.
    ///
    /// All streams move only while this is polled. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the byte stream fails, or, with [`io::ErrorKind::InvalidData`], what comes is not yamux; the session is over.
    pub async fn next(&mut self) -> io::Result<Option<MuxStream>> {
        match poll_fn(|cx| self.connection.poll_next_inbound(cx)).await {
            None => Ok(None),
            Some(Ok(stream)) => Ok(Some(MuxStream::new(stream))),
            Some(Err(ConnectionError::Io(error) | ConnectionError::Decode(FrameDecodeError::Io(error)))) => {
                Err(error)
            }
            Some(Err(other)) => Err(io::Error::new(io::ErrorKind::InvalidData, other)),
        }
    }
}
