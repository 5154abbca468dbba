//! Owns what goes to the guest: the contents of a file, or a tar.
//!
//! ```text
//!   bytes … ──▶ finish ──▶ the stream is ended ──▶ the guest's answer
//!     │            │                 └──▶ dropped: the guest may have done it, or not
//!     └────────────┴──▶ dropped, or failed: the stream is cut, and the guest undoes it
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use tonic::{Response, Status};

use super::super::{HostStream, Lost, Session};
use super::FileError;
use super::download::silent;
use crate::v1::{TarInResponse, WriteResponse};

/// What is written to a file of the guest's.
///
/// Nothing is in its place before [`finish`](Self::finish) has returned; dropped without that, it leaves what was there.
/// Only what is appended stays as far as it came. `shutdown` is no more than a flush.
#[derive(Debug)]
pub struct FileWriter(pub(super) Upload<WriteResponse>);

/// A tar that the guest unpacks.
///
/// [`finish`](Self::finish) tells whether all of it is in place. Dropped without that, or failed, it leaves what was
/// unpacked so far.
#[derive(Debug)]
pub struct TarWriter(pub(super) Upload<TarInResponse>);

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarSummary {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the files among them.
    pub bytes: u64,
}

#[derive(Debug)]
pub(super) struct Upload<R> {
    session: Session,
    stream: HostStream,
    call: Call<R>,
    sent: u64,
    /// How long the reason may take to come once the stream was cut.
    reason_within: Option<Pin<Box<Sleep>>>,
    failed: Option<FileError>,
}

/// A call under way, which ends with this.
#[derive(Debug)]
struct Call<R>(JoinHandle<Result<R, FileError>>);

impl<R> Drop for Call<R> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<R: Send + 'static> Upload<R> {
    pub(super) fn new(
        session: &Session,
        stream: HostStream,
        call: impl Future<Output = Result<Response<R>, Status>> + Send + 'static,
    ) -> Self {
        let theirs = session.clone();
        let call = Call(tokio::spawn(async move { super::patiently(&theirs, call).await }));
        Self { session: session.clone(), stream, call, sent: 0, reason_within: None, failed: None }
    }

    /// Ends the stream and waits for the guest's answer. Returns it, and how many bytes were sent.
    async fn finish(mut self) -> Result<(R, u64), FileError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        // Why the stream can't be ended, the answer tells.
        let ended = self.stream.shutdown().await;
        let answer = match ended {
            Ok(()) => (&mut self.call.0).await,
            Err(_) => match tokio::time::timeout(self.session.answer, &mut self.call.0).await {
                Ok(answer) => answer,
                Err(_) => return Err(silent(&self.session)),
            },
        };
        match answer {
            Ok(Ok(_)) if ended.is_err() => Err(FileError::protocol("a transfer that it took before its end")),
            Ok(answer) => Ok((answer?, self.sent)),
            // The runtime is at its end.
            Err(_) => Err(FileError::lost(Lost::Closed)),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.failed.is_none() && !self.call.0.is_finished() {
            match Pin::new(&mut self.stream).poll_write(cx, buf) {
                Poll::Ready(Ok(count)) => {
                    self.sent += count as u64;
                    return Poll::Ready(Ok(count));
                }
                Poll::Ready(Err(_)) => self.stream_failed(),
                // The guest may not take it any more, and say so beside the stream.
                Poll::Pending => {}
            }
        }
        self.poll_reason(cx).map(|error| Err(error.into()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed.is_none() && self.reason_within.is_none() {
            match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(_) => self.stream_failed(),
            }
        }
        self.poll_reason(cx).map(|error| Err(error.into()))
    }

    fn stream_failed(&mut self) {
        let within = self.session.answer;
        self.reason_within.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
    }

    /// Waits for what the guest says of a transfer that it breaks off.
    fn poll_reason(&mut self, cx: &mut Context<'_>) -> Poll<FileError> {
        if let Some(failed) = &self.failed {
            return Poll::Ready(failed.clone());
        }
        let error = match Pin::new(&mut self.call.0).poll(cx) {
            Poll::Ready(Ok(Err(error))) => error,
            Poll::Ready(Ok(Ok(_))) => FileError::protocol("a transfer that it took before its end"),
            Poll::Ready(Err(_)) => FileError::lost(Lost::Closed),
            Poll::Pending => {
                let Some(within) = &mut self.reason_within else { return Poll::Pending };
                ready!(within.as_mut().poll(cx));
                silent(&self.session)
            }
        };
        Poll::Ready(self.failed.insert(error).clone())
    }
}

impl FileWriter {
    /// Waits until the guest has put the file in its place, however long its disk takes. Returns how many bytes it has.
    ///
    /// # Errors
    /// When the guest could not write it, or the session is lost; then what was there is still there, unless it was
    /// lost within the last moment.
    pub async fn finish(self) -> Result<u64, FileError> {
        let (answer, sent) = self.0.finish().await?;
        if answer.bytes == sent {
            Ok(sent)
        } else {
            Err(FileError::protocol("a file of which bytes are missing"))
        }
    }
}

impl TarWriter {
    /// Waits until the guest has unpacked all of it, however long its disk takes.
    ///
    /// # Errors
    /// When the guest could not unpack an entry, or the archive is broken, or the session is lost.
    pub async fn finish(self) -> Result<TarSummary, FileError> {
        let (TarInResponse { entries, bytes }, _) = self.0.finish().await?;
        Ok(TarSummary { entries, bytes })
    }
}

macro_rules! write_through {
    ($type:ty) => {
        impl AsyncWrite for $type {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.0.poll_write(cx, buf)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.0.poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                // The end is a promise that all of it came, and only `finish` makes it.
                self.0.poll_flush(cx)
            }
        }
    };
}

write_through!(FileWriter);
write_through!(TarWriter);
