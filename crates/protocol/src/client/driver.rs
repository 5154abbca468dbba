//! Owns the task that moves a session's bytes and opens its streams.
//!
//! ```text
//!   start ──▶ moving ──┬── the byte stream ends or fails, or is no yamux ──▶ ended(HungUp | Io | Protocol)
//!                      ├── the guest opens a stream ───────────────────────▶ ended(Protocol)
//!                      └── the last handle is dropped ─────────────────────▶ ended(Closed)
//! ```
//! `ended` is set before the streams are closed, so that whoever sees a stream close can ask why.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::compat::TokioAsyncReadCompatExt;
use tonic::Status;
use yamux::{Connection, ConnectionError, FrameDecodeError, Mode};

use super::Lost;
use crate::mux::{self, MAX_CALLS, MAX_STREAMS, MuxStream};
use crate::stream::StreamHeader;

type Opened = oneshot::Sender<MuxStream>;

/// A handle to the driving task; the task ends when the last one is dropped.
#[derive(Debug)]
pub(super) struct Link {
    open: mpsc::Sender<Opened>,
    ended: watch::Receiver<Option<Lost>>,
    streams: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    /// How long the guest may take to let a stream be opened.
    answer: Duration,
}

/// A stream that this side opened. It keeps its session alive; dropped before its end, it is cut.
#[derive(Debug)]
pub struct HostStream {
    stream: MuxStream,
    link: Arc<Link>,
    _permit: OwnedSemaphorePermit,
}

mux::forward_io!(HostStream, stream);

/// Drives yamux over `io` in a task of its own.
pub(super) fn start<T>(io: T, answer: Duration) -> Link
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (open, requests) = mpsc::channel(MAX_STREAMS + MAX_CALLS);
    let (announce, ended) = watch::channel(None);
    tokio::spawn(async move {
        let mut connection = Connection::new(io.compat(), mux::config(), Mode::Client);
        let lost = drive(&mut connection, requests).await;
        announce.send_replace(Some(lost));
        drop(connection);
    });
    let places = |count| Arc::new(Semaphore::new(count));
    Link { open, ended, streams: places(MAX_STREAMS), calls: places(MAX_CALLS), answer }
}

async fn drive<T>(connection: &mut Connection<T>, mut requests: mpsc::Receiver<Opened>) -> Lost
where
    T: futures::AsyncRead + futures::AsyncWrite + Unpin,
{
    let mut waiting: Option<Opened> = None;
    poll_fn(|cx| {
        loop {
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(_))) => {
                    return Poll::Ready(Lost::Protocol("it opened a stream".to_owned()));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(cause(error)),
                Poll::Ready(None) => return Poll::Ready(Lost::HungUp),
                Poll::Pending => {}
            }
            if waiting.as_mut().is_some_and(|request| request.poll_closed(cx).is_ready()) {
                // Whoever waited for it has gone.
                waiting = None;
            }
            let request = if let Some(request) = waiting.take() {
                request
            } else {
                let Poll::Ready(request) = requests.poll_recv(cx) else { return Poll::Pending };
                let Some(request) = request else { return Poll::Ready(Lost::Closed) };
                request
            };
            match connection.poll_new_outbound(cx) {
                // Whoever asked may have gone; an unused stream has sent nothing.
                Poll::Ready(Ok(stream)) => drop(request.send(MuxStream::new(stream))),
                Poll::Ready(Err(error)) => return Poll::Ready(cause(error)),
                // So many lack an acknowledgement that the guest has to send one first, which wakes this task.
                Poll::Pending => {
                    waiting = Some(request);
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

fn cause(error: ConnectionError) -> Lost {
    match error {
        ConnectionError::Closed => Lost::HungUp,
        ConnectionError::Io(error) | ConnectionError::Decode(FrameDecodeError::Io(error)) => {
            match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    Lost::HungUp
                }
                _ => Lost::Io(Arc::new(error)),
            }
        }
        other => Lost::Protocol(other.to_string()),
    }
}

impl Link {
    /// Room for `count` streams, if the session has it.
    pub(super) fn reserve(&self, count: usize) -> Option<OwnedSemaphorePermit> {
        let count = u32::try_from(count).ok()?;
        Arc::clone(&self.streams).try_acquire_many_owned(count).ok()
    }

    /// Opens a stream on one place of `room` and queues its header.
    pub(super) async fn open(
        self: &Arc<Self>,
        header: StreamHeader,
        room: &mut OwnedSemaphorePermit,
    ) -> Result<HostStream, Lost> {
        let closed = || Lost::Protocol("more streams than were reserved".to_owned());
        let permit = room.split(1).ok_or_else(closed)?;
        self.within_answer(self.begin(&header.encode(), permit)).await
    }

    /// Opens a stream for a call, as soon as there is a place for one, and queues its first bytes, header included.
    pub(super) async fn call(self: &Arc<Self>, first: &[u8]) -> Result<HostStream, Lost> {
        self.within_answer(async {
            let Ok(permit) = Arc::clone(&self.calls).acquire_owned().await else {
                return Err(Lost::Closed);
            };
            self.begin(first, permit).await
        })
        .await
    }

    async fn within_answer(
        &self,
        opening: impl Future<Output = Result<HostStream, Lost>>,
    ) -> Result<HostStream, Lost> {
        tokio::time::timeout(self.answer, opening).await.unwrap_or_else(|_| {
            let within = self.answer.as_secs_f64();
            Err(Lost::Protocol(format!("it let no stream be opened for {within:.1} s")))
        })
    }

    async fn begin(self: &Arc<Self>, first: &[u8], permit: OwnedSemaphorePermit) -> Result<HostStream, Lost> {
        let (reply, opened) = oneshot::channel();
        if self.open.send(reply).await.is_err() {
            return Err(self.ended().await);
        }
        let Ok(stream) = opened.await else { return Err(self.ended().await) };
        let mut stream = HostStream { stream, link: Arc::clone(self), _permit: permit };
        match stream.stream.write_all(first).await {
            Ok(()) => Ok(stream),
            // The guest may have reset this stream and left the session as it is, which then never ends.
            Err(_) => Err(self.lost_because(&Status::internal("a stream was reset as it was opened")).await),
        }
    }

    /// Waits for the session's end.
    pub(super) async fn ended(&self) -> Lost {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(lost) => (*lost).clone().unwrap_or(Lost::HungUp),
            // The task was dropped together with its runtime.
            Err(_) => Lost::Closed,
        }
    }

    /// The cause of a failed call: the session's end where it has come, else what the guest did to the call.
    pub(super) async fn lost_because(&self, status: &Status) -> Lost {
        // The task may be a step behind the streams that the guest closed with its last breath.
        match tokio::time::timeout(Duration::from_secs(1), self.ended()).await {
            Ok(lost) => lost,
            Err(_) => Lost::Protocol(super::calls::bounded(&status.to_string())),
        }
    }

    /// Whether the session is over.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some() || self.ended.has_changed().is_err()
    }
}

impl HostStream {
    /// Whether the stream was cut rather than finished by the other side. True also after both sides have finished.
    pub fn is_reset(&self) -> bool {
        self.stream.is_reset()
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::client::{CallError, Limits, Session};
    use crate::preface::{PREFACE_LEN, Preface, Side};

    #[tokio::test]
    async fn a_guest_that_resets_a_stream_as_it_is_opened_does_not_keep_the_host_waiting() {
        // A byte at a time, so that the reset arrives between the stream's opening and its header.
        let (host, mut guest) = tokio::io::duplex(1);
        let guest = tokio::spawn(async move {
            let mut greeting = [0; PREFACE_LEN];
            guest.read_exact(&mut greeting).await.unwrap();
            let mut nonce = [0; 16];
            nonce.copy_from_slice(&greeting[12..]);
            guest.write_all(&Preface { versions: 1..=1, nonce }.encode(Side::Agent)).await.unwrap();
            // A window update of the first stream, with the flags that accept and reset it.
            guest.write_all(&[0, 1, 0, 10, 0, 0, 0, 1, 0, 0, 0, 1]).await.unwrap();
            let mut rest = Vec::new();
            drop(guest.read_to_end(&mut rest).await);
        });
        let session = Session::connect(host, Limits::default()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(60), session.status()).await.unwrap();
        assert!(matches!(answer, Err(CallError::Lost(Lost::Protocol(_)))), "{answer:?}");
        drop(session);
        guest.await.unwrap();
    }
}
