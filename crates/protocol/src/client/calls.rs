//! Owns the gRPC client: one HTTP/2 connection over the first stream of a session.
//!
//! tonic's own channel brings reconnection, balancing and buffering, none of which a stream in a session can use.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response, Uri};

use super::Lost;
use super::driver::Link;
use crate::stream::StreamHeader;
use crate::{supervisor, v1};

/// The largest message that the host takes from a guest, and the largest listing.
const MAX_MESSAGE: usize = 256 * 1024;
pub(super) const MAX_LISTING: usize = 4 * 1024 * 1024;
/// What one call, and all together, may send ahead of their reader.
const CALL_WINDOW: u32 = 64 * 1024;
const CALLS_WINDOW: u32 = 1024 * 1024;
/// Text of the guest's that goes into errors.
const MAX_TEXT: usize = 1024;

pub(super) type AgentClient = v1::agent_client::AgentClient<Channel>;

/// Calls to the supervisor that a session leads to.
pub type SupervisorClient = supervisor::v1::supervisor_client::SupervisorClient<Channel>;

/// Sends calls over the session's connection.
#[derive(Debug, Clone)]
pub struct Channel {
    sender: SendRequest<Body>,
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

/// Opens the stream of the calls to the agent. The channel is for its other services.
pub(super) async fn agent(link: &Arc<Link>) -> Result<(AgentClient, Channel), Lost> {
    let channel = channel(link, StreamHeader::CALLS).await?;
    let client = AgentClient::with_origin(channel.clone(), Uri::from_static("http://agent"));
    Ok((client.max_decoding_message_size(MAX_MESSAGE), channel))
}

/// Opens the stream of the calls to a supervisor.
pub(super) async fn supervisor(link: &Arc<Link>) -> Result<SupervisorClient, Lost> {
    let channel = channel(link, StreamHeader::SUPERVISOR).await?;
    let client = SupervisorClient::with_origin(channel, Uri::from_static("http://supervisor"));
    Ok(client.max_decoding_message_size(MAX_MESSAGE))
}

async fn channel(link: &Arc<Link>, header: StreamHeader) -> Result<Channel, Lost> {
    let Some(mut room) = link.reserve(1) else {
        return Err(Lost::Protocol("no room for another stream of calls".to_owned()));
    };
    let stream = link.open(header, &mut room).await?;
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CALLS_WINDOW)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Lost::Protocol(error.to_string()))?;
    // Ends with the last sender, or with the session. Its errors reach the calls themselves.
    tokio::spawn(async move { drop(connection.await) });
    Ok(Channel { sender })
}

/// Text of the guest's, cut to a bounded length and without control characters, which could forge a terminal's lines.
pub(super) fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
