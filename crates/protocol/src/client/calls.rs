//! Owns the calls that this side makes: each is a stream of its own, opened when it is made.
//!
//! ```text
//!   call ──▶ place taken ──▶ stream opened, request sent ──┬─▶ accepted ──▶ answers ──▶ outcome
//!                                                          ├─▶ refused: outcome
//!                                                          └─▶ the stream is cut, or ends without outcome: failed
//! ```
//! Dropping a call, or its answers, before the outcome cuts the stream, by which the other side gives the call up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body::{Body as HttpBody, Frame};
use tokio::io::AsyncRead;
use tokio::io::ReadBuf;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response, Uri};
use tonic::codegen::{Bytes, Service};

use super::driver::{HostStream, Link};
use crate::call::{Kind, MAX_OUTCOME, MAX_PATH, MAX_REQUEST, MESSAGE_HEAD, Outcome, message_head};
use crate::stream::StreamHeader;
use crate::{supervisor, v1};

/// The largest message that the host takes from a guest, and the largest listing.
const MAX_MESSAGE: usize = 256 * 1024;
pub(super) const MAX_LISTING: usize = 4 * 1024 * 1024;
/// What is read of an answer at a time.
const READ: usize = 8 * 1024;
/// Text of the guest's that goes into errors.
const MAX_TEXT: usize = 1024;

pub(super) type AgentClient = v1::agent_client::AgentClient<Channel>;

/// Calls to the supervisor that a session leads to.
pub type SupervisorClient = supervisor::v1::supervisor_client::SupervisorClient<Channel>;

/// Makes calls, each on a stream of the session.
#[derive(Debug, Clone)]
pub struct Channel {
    link: Arc<Link>,
    header: StreamHeader,
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Answer>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { link, header } = self.clone();
        Box::pin(async move {
            let bytes = encode(header, request).await?;
            // Why the session ended, whoever waits for the answer asks itself.
            let lost = |lost: super::Lost| Status::unavailable(lost.to_string());
            let stream = link.call(&bytes).await.map_err(lost)?;
            let answer = Answer { stream, came: Vec::new(), taken: 0, left: 0, done: false };
            answer.begin().await.map_err(|error| Status::unavailable(error.to_string()))
        })
    }
}

/// A whole request, as it goes over the wire.
async fn encode(header: StreamHeader, request: Request<Body>) -> Result<Vec<u8>, Status> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path();
    let length =
        u8::try_from(path.len()).map_err(|_| Status::internal(format!("{MAX_PATH} is a path's most")))?;
    let mut bytes = header.encode().to_vec();
    bytes.push(length);
    bytes.extend(path.as_bytes());
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > MAX_REQUEST {
            let message = format!("a request of more than {MAX_REQUEST} bytes");
            return Err(Status::resource_exhausted(message));
        }
    }
    Ok(bytes)
}

/// What comes back on a call.
#[derive(Debug)]
pub struct Answer {
    stream: HostStream,
    /// Bytes that came, of which so many were given on.
    came: Vec<u8>,
    taken: usize,
    /// What belongs to the message that is being given on.
    left: usize,
    done: bool,
}

impl Answer {
    /// Waits until the call is accepted or refused; a refusal has its status where tonic looks for one.
    async fn begin(mut self) -> io::Result<Response<Self>> {
        while self.came.len() < MESSAGE_HEAD {
            std::future::poll_fn(|cx| self.poll_more(cx)).await?;
        }
        if self.came.first_chunk().copied().and_then(message_head) == Some((Kind::Accepted, 0)) {
            self.taken = MESSAGE_HEAD;
            return Ok(Response::new(self));
        }
        let mut refusal = HeaderMap::new();
        if let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            refusal =
                frame?.into_trailers().map_err(|_| invalid("an answer to a call that was not accepted"))?;
        }
        let mut response = Response::new(self);
        *response.headers_mut() = refusal;
        Ok(response)
    }

    /// What can be given on from the bytes that came.
    fn take(&mut self) -> io::Result<Option<Frame<Bytes>>> {
        let came = &self.came[self.taken..];
        if self.left == 0 {
            let Some(head) = came.first_chunk() else { return Ok(None) };
            match message_head(*head) {
                Some((Kind::Message, length)) => self.left = MESSAGE_HEAD.saturating_add(length),
                Some((Kind::Outcome, length)) if length <= MAX_OUTCOME => {
                    let Some(outcome) = came.get(MESSAGE_HEAD..MESSAGE_HEAD + length) else {
                        return Ok(None);
                    };
                    let outcome = Outcome::read(outcome).map_err(invalid)?;
                    let mut trailers = HeaderMap::new();
                    outcome.into_status().add_header(&mut trailers).map_err(invalid)?;
                    self.done = true;
                    return Ok(Some(Frame::trailers(trailers)));
                }
                _ => return Err(invalid("what comes is no answer")),
            }
        }
        let count = self.left.min(came.len());
        if count == 0 {
            return Ok(None);
        }
        let data = Bytes::copy_from_slice(&came[..count]);
        self.taken += count;
        self.left -= count;
        Ok(Some(Frame::data(data)))
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.came.drain(..self.taken);
        self.taken = 0;
        let mut room = [0; READ];
        let mut room = ReadBuf::new(&mut room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        if room.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.came.extend_from_slice(room.filled());
        Poll::Ready(Ok(()))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        while !this.done {
            let taken = match this.take() {
                Ok(None) => ready!(this.poll_more(cx)).map(|()| None),
                taken => taken,
            };
            match taken {
                Ok(None) => {}
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Err(error) => {
                    this.done = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(None)
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Calls to the agent. The channel is for its other services.
pub(super) fn agent(link: &Arc<Link>) -> (AgentClient, Channel) {
    let channel = Channel { link: Arc::clone(link), header: StreamHeader::CALLS };
    let client = AgentClient::with_origin(channel.clone(), Uri::from_static("http://agent"));
    (client.max_decoding_message_size(MAX_MESSAGE), channel)
}

/// Calls to a supervisor.
pub(super) fn supervisor(link: &Arc<Link>) -> SupervisorClient {
    let channel = Channel { link: Arc::clone(link), header: StreamHeader::SUPERVISOR };
    let client = SupervisorClient::with_origin(channel, Uri::from_static("http://supervisor"));
    client.max_decoding_message_size(MAX_MESSAGE)
}

/// Text of the guest's, cut to a bounded length and without control characters, which could forge a terminal's lines.
pub(super) fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

// The guest's side of them needs that feature, which a build of the whole workspace has.
#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
