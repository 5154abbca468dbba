//! Owns one call on the side that answers it.
//!
//! ```text
//!   request read ──▶ service asked ──▶ accepted, answers sent ──▶ outcome sent ──▶ stream ended
//!                         │                                            ▲
//!                         └── refused ─────────────────────────────────┘
//!   the other side cuts the stream, at any time ──▶ the call is dropped, with whatever it was doing
//! ```

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Body as _, Bytes, Service};

use super::{ACCEPTED, Kind, MAX_REQUEST, MESSAGE_HEAD, Outcome, message_head};
use crate::mux::MuxStream;

/// How long a request may take to come once its stream was opened.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// What is gathered of ready answers before it is sent.
const GATHERED: usize = 32 * 1024;

/// Serves the one call on `stream`, behind the stream's header.
///
/// # Errors
/// When the other side cuts the stream, or sends what is no call or too large for one. The call is over, and nothing
/// else is.
pub async fn serve<S>(mut stream: MuxStream, mut service: S) -> io::Result<()>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let request = tokio::time::timeout(REQUEST_WITHIN, request(&mut stream)).await??;
    let response = tokio::select! {
        response = service.call(request) => match response {
            Ok(response) => response,
            Err(never) => match never {},
        },
        gone = cut(&mut stream) => return Err(gone),
    };
    let (head, body) = response.into_parts();
    // A refusal has no body, and its status where an answer has none.
    match Status::from_header_map(&head.headers) {
        Some(refusal) => end(stream, Vec::new(), Outcome::new(Some(refusal))).await,
        None => answer(stream, body).await,
    }
}

/// Reads who is called and the message.
async fn request(stream: &mut MuxStream) -> io::Result<Request<Body>> {
    let length = usize::from(stream.read_u8().await?);
    let mut path = vec![0; length];
    stream.read_exact(&mut path).await?;
    let mut head = [0; MESSAGE_HEAD];
    stream.read_exact(&mut head).await?;
    let length = match message_head(head) {
        // Whoever follows the rules refuses a larger one itself.
        Some((Kind::Message, length)) if length <= MAX_REQUEST => length,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let mut message = vec![0; MESSAGE_HEAD + length];
    message[..MESSAGE_HEAD].copy_from_slice(&head);
    stream.read_exact(&mut message[MESSAGE_HEAD..]).await?;
    let request = Request::post(path.as_slice()).body(Body::new(Whole(Some(Bytes::from(message)))));
    request.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Sends what `body` has as it comes, what is ready together in one piece.
async fn answer(mut stream: MuxStream, mut body: Body) -> io::Result<()> {
    let mut gathered = ACCEPTED.to_vec();
    loop {
        let frame = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Pending if gathered.is_empty() => Poll::Pending,
            // Nothing more right now: what there is goes out first.
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
        });
        let frame = tokio::select! {
            frame = frame => frame,
            gone = cut(&mut stream) => return Err(gone),
        };
        match frame {
            None => {
                stream.write_all(&gathered).await?;
                gathered.clear();
            }
            Some(None) => return end(stream, gathered, Outcome::new(None)).await,
            Some(Some(Err(status))) => return end(stream, gathered, Outcome::new(Some(status))).await,
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    gathered.extend_from_slice(&data);
                    if gathered.len() >= GATHERED {
                        stream.write_all(&gathered).await?;
                        gathered.clear();
                    }
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return end(stream, gathered, Outcome::new(Status::from_header_map(&trailers))).await;
                }
            },
        }
    }
}

async fn end(mut stream: MuxStream, mut last: Vec<u8>, outcome: Outcome) -> io::Result<()> {
    outcome.write(&mut last);
    stream.write_all(&last).await?;
    stream.shutdown().await
}

/// Waits until the other side cuts the stream; it has nothing more to say.
async fn cut(stream: &mut MuxStream) -> io::Error {
    match stream.read(&mut [0]).await {
        Ok(0) => io::ErrorKind::ConnectionReset.into(),
        Ok(_) => io::ErrorKind::InvalidData.into(),
        Err(error) => error,
    }
}

/// A message that is there as a whole.
struct Whole(Option<Bytes>);

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}
