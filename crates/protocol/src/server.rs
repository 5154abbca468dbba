//! Owns the agent's side of a session: accepting the streams that the host opens.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use futures::AsyncWrite as _;
use futures::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use yamux::{Connection, ConnectionError, FrameDecodeError, Mode};

use crate::mux::{self, MuxStream};

/// A stream is acknowledged with the first bytes that go back on it, which some never have. The other side opens no more
/// once 256 lack it, so from this many on each is acknowledged at once, at the price of a frame.
const ACKNOWLEDGE_FROM: usize = 64;

/// The streams of one session, from after its preface until its end.
#[derive(Debug)]
pub struct Streams<T> {
    connection: Connection<Compat<T>>,
    /// Held by each stream that lives.
    live: Arc<()>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Streams<T> {
    /// Begins at the first byte behind the preface. `io` should gather small writes until it is flushed.
    pub fn new(io: T) -> Self {
        Self { connection: Connection::new(io.compat(), mux::config(), Mode::Server), live: Arc::new(()) }
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
            Some(Ok(mut stream)) => {
                if Arc::strong_count(&self.live) > ACKNOWLEDGE_FROM {
                    acknowledge(&mut stream);
                }
                Ok(Some(MuxStream::counted(stream, &self.live)))
            }
            Some(Err(ConnectionError::Io(error) | ConnectionError::Decode(FrameDecodeError::Io(error)))) => {
                Err(error)
            }
            Some(Err(other)) => Err(io::Error::new(io::ErrorKind::InvalidData, other)),
        }
    }
}

/// Sends a frame without bytes, which carries the acknowledgement. The first frame of a stream never has to wait.
fn acknowledge(stream: &mut yamux::Stream) {
    let _queued = Pin::new(stream).poll_write(&mut Context::from_waker(Waker::noop()), &[]);
}
