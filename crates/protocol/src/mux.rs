//! Owns how yamux is set up on either side: frame sizes, windows, numbers of streams.
//!
//! The windows are what bounds memory: a side that does not read holds at most one window per stream, and then the
//! other side's writes wait.

use std::sync::Arc;

use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// Streams of bytes that one session may have open at a time, as the host counts them.
pub const MAX_STREAMS: usize = 1024;

/// Calls that one session may have under way at a time, each on a stream of its own. One more waits.
pub const MAX_CALLS: usize = 512;

/// What either side hands to the byte stream in one piece. The Linux driver of virtio-serial cuts writes into pieces of
/// 32 KiB; a frame with its header fills whole ones.
pub const WRITE_SIZE: usize = 128 * 1024;
/// What either side takes from the byte stream in one piece, unless a frame's body wants more.
pub const READ_SIZE: usize = 64 * 1024;
const FRAME_HEADER: usize = 12;

/// yamux itself counts streams that are closed but not yet forgotten, and an excess ends the session, so its own
/// limit lies far above [`MAX_STREAMS`] and [`MAX_CALLS`].
const YAMUX_STREAMS: usize = 4096;

/// What windows may grow to beyond 256 KiB per stream, all streams together.
const WINDOW_GROWTH: usize = 8 * 1024 * 1024;

pub(crate) fn config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(YAMUX_STREAMS);
    config.set_max_connection_receive_window(Some(
        YAMUX_STREAMS * yamux::DEFAULT_CREDIT as usize + WINDOW_GROWTH,
    ));
    config.set_split_send_size(WRITE_SIZE - FRAME_HEADER);
    config
}

/// Makes a type read and write as one of its fields does.
macro_rules! forward_io {
    ($type:ty, $field:tt) => {
        impl tokio::io::AsyncRead for $type {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.$field).poll_read(cx, buf)
            }
        }

        impl tokio::io::AsyncWrite for $type {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.$field).poll_write(cx, buf)
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.$field).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.$field).poll_shutdown(cx)
            }
        }
    };
}
#[cfg(feature = "client")]
pub(crate) use forward_io;

/// One stream of a session.
#[derive(Debug)]
pub struct MuxStream {
    io: Compat<yamux::Stream>,
    /// Lives as long as the stream, for whoever counts them.
    _counted: Option<Arc<()>>,
}

forward_io!(MuxStream, io);

impl MuxStream {
    #[cfg(feature = "client")]
    pub(crate) fn new(stream: yamux::Stream) -> Self {
        Self { io: stream.compat(), _counted: None }
    }

    #[cfg(feature = "server")]
    pub(crate) fn counted(stream: yamux::Stream, by: &Arc<()>) -> Self {
        Self { io: stream.compat(), _counted: Some(Arc::clone(by)) }
    }

    /// Whether the end came from a reset or the end of the session, rather than from the other side being done.
    ///
    /// True also after both sides have closed theirs.
    pub fn is_reset(&self) -> bool {
        self.io.get_ref().is_closed()
    }
}
