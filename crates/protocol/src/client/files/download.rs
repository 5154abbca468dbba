//! Owns what comes from the guest: the contents of a file, or a tar.
//!
//! ```text
//!   opened ──▶ bytes … ──▶ the stream ends ──▶ done, and the count is right ──▶ end
//!     │           │               │
//!     └───────────┴───────────────┴──▶ the guest's reason, or the session's ──▶ error, for good
//! ```

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tonic::Streaming;

use super::super::{CallError, HostStream, Session};
use super::{FileError, FileInfo};
use crate::v1::ReadEvent;
use crate::v1::read_event::Event;

/// What is read from a file of the guest's, or a tar of its files.
///
/// Its end means that all of it came; a transfer that was cut, or failed in the guest, is an error and never a short
/// file. Dropping it ends the transfer.
pub struct FileReader {
    info: FileInfo,
    stream: HostStream,
    received: u64,
    state: State,
}

enum State {
    /// With whatever the end needs.
    Receiving(Option<Box<(Session, Streaming<ReadEvent>)>>),
    Ending(Pin<Box<dyn Future<Output = Result<u64, FileError>> + Send>>),
    Ended,
    Failed(FileError),
}

impl FileReader {
    /// Waits until the guest has opened it.
    pub(super) async fn opened(
        session: &Session,
        stream: HostStream,
        mut events: Streaming<ReadEvent>,
    ) -> Result<Self, FileError> {
        let Event::Opened(info) = event(session, &mut events).await? else {
            return Err(FileError::protocol("a transfer that ended before it began"));
        };
        Ok(Self {
            info: FileInfo::checked(Some(info))?,
            stream,
            received: 0,
            state: State::Receiving(Some(Box::new((session.clone(), events)))),
        })
    }

    /// What is read, as it was when it was opened.
    pub fn info(&self) -> &FileInfo {
        &self.info
    }
}

async fn event(session: &Session, events: &mut Streaming<ReadEvent>) -> Result<Event, FileError> {
    match super::message(session, events).await? {
        Some(ReadEvent { event: Some(event) }) => Ok(event),
        Some(ReadEvent { event: None }) => Err(FileError::protocol("an event of no known kind")),
        None => Err(FileError::protocol("a transfer whose events ended early")),
    }
}

impl AsyncRead for FileReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Receiving(rest) => {
                    let before = buf.filled().len();
                    let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
                    let count = buf.filled().len() - before;
                    if read.is_ok() && count > 0 {
                        this.received += count as u64;
                        return Poll::Ready(Ok(()));
                    }
                    // An end and a cut look alike here; which it was, and why, the guest says beside the stream.
                    this.state = match rest.take() {
                        Some(rest) => State::Ending(Box::pin(async move {
                            let (session, mut events) = *rest;
                            match event(&session, &mut events).await? {
                                Event::Done(count) => Ok(count),
                                Event::Opened(_) => Err(FileError::protocol("a transfer that began twice")),
                            }
                        })),
                        None => State::Ended,
                    };
                }
                State::Ending(ending) => {
                    this.state = match ready!(ending.as_mut().poll(cx)) {
                        Ok(count) if count == this.received => State::Ended,
                        Ok(_) => State::Failed(FileError::protocol("a transfer of which bytes are missing")),
                        Err(error) => State::Failed(error),
                    };
                }
                State::Ended => return Poll::Ready(Ok(())),
                State::Failed(error) => return Poll::Ready(Err(error.clone().into())),
            }
        }
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (info, received) = (&self.info, self.received);
        f.debug_struct("FileReader").field("info", info).field("received", &received).finish_non_exhaustive()
    }
}

/// The answer of a call that did not come in time.
pub(super) fn silent(session: &Session) -> FileError {
    FileError::Call(CallError::NoAnswer { within: session.answer })
}
