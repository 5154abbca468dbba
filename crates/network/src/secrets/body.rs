//! Owns bodies on their way through: as they are, with texts replaced, or made here.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::header::HeaderValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use super::replace::{Replacer, Swap};

/// How long the first bytes of a secret may be the last that came, before they are shown.
pub(super) const STALLED: Duration = Duration::from_millis(100);
/// How much is replaced at a time, where it may become much more.
const PIECE: usize = 4 << 10;

/// What ends an exchange that cannot go on.
pub(super) type Broken = Box<dyn Error + Send + Sync>;

/// Told which secret was found.
pub(super) type Found = Rc<dyn Fn(usize)>;

/// A body.
pub(super) enum Body {
    /// All of it, and what it takes of the room for such bodies.
    Whole { data: Option<Bytes>, trailers: Option<HeaderMap>, room: Option<OwnedSemaphorePermit> },
    /// As it comes.
    Passing(Incoming),
    /// With texts replaced.
    Replacing(Box<Replacing>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Whole { data: Some(text.into()), trailers: None, room: None }
    }
}

impl Body {
    pub(super) fn replacing(incoming: Incoming, swaps: Arc<[Swap]>, found: Found) -> Self {
        let grows = swaps.iter().any(Swap::grows);
        Self::Replacing(Box::new(Replacing {
            incoming,
            replacer: Replacer::new(Arc::clone(&swaps)),
            swaps,
            found,
            pending: Bytes::new(),
            piece: if grows { PIECE } else { usize::MAX },
            trailers: None,
            has_ended: false,
            stalled: None,
        }))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Whole { data, trailers, room } => {
                let data = data.take().filter(|data| !data.is_empty()).map(Frame::data);
                let frame = data.or_else(|| trailers.take().map(Frame::trailers));
                if frame.is_none() {
                    room.take();
                }
                Poll::Ready(frame.map(Ok))
            }
            Self::Passing(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Replacing(replacing) => replacing.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { data, trailers, .. } => {
                data.as_ref().is_none_or(Bytes::is_empty) && trailers.is_none()
            }
            Self::Passing(incoming) => incoming.is_end_stream(),
            Self::Replacing(replacing) => replacing.has_ended && replacing.trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
            Self::Passing(incoming) => incoming.size_hint(),
            Self::Replacing(_) => SizeHint::default(),
        }
    }
}

/// A stream in which texts are replaced.
pub(super) struct Replacing {
    incoming: Incoming,
    replacer: Replacer,
    swaps: Arc<[Swap]>,
    found: Found,
    /// What came and was not looked at.
    pending: Bytes,
    piece: usize,
    trailers: Option<HeaderMap>,
    has_ended: bool,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Replacing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            let replaced = if !self.pending.is_empty() {
                let piece = self.pending.split_to(self.pending.len().min(self.piece));
                self.replacer.push(&piece)
            } else if self.has_ended {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            } else {
                match Pin::new(&mut self.incoming).poll_frame(cx) {
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                    Poll::Ready(Some(Ok(frame))) => {
                        self.stalled = None;
                        match frame.into_data() {
                            Ok(data) => {
                                self.pending = data;
                                continue;
                            }
                            Err(frame) => {
                                let mut trailers = frame.into_trailers().unwrap_or_default();
                                replace_in(&mut trailers, &self.swaps, &*self.found);
                                self.trailers = Some(trailers);
                                self.has_ended = true;
                                self.replacer.finish()
                            }
                        }
                    }
                    Poll::Ready(None) => {
                        self.has_ended = true;
                        self.replacer.finish()
                    }
                    Poll::Pending => ready!(self.poll_stalled(cx)),
                }
            };
            if let Some(secret) = self.replacer.found() {
                (self.found)(secret);
            }
            if !replaced.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(replaced.into()))));
            }
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Vec<u8>> {
        if !self.replacer.can_show() {
            return Poll::Pending;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED)));
        ready!(stalled.as_mut().poll(cx));
        self.stalled = None;
        Poll::Ready(self.replacer.show())
    }
}

/// Replaces texts in the values of headers. A name that has one is dropped, with its value.
pub(super) fn replace_in(headers: &mut HeaderMap, swaps: &Arc<[Swap]>, found: &dyn Fn(usize)) {
    let named = |name: &str| {
        swaps
            .iter()
            .find(|swap| super::replace::contains(name.as_bytes(), &swap.from.expose().to_ascii_lowercase()))
    };
    let bad: Vec<_> = headers.keys().filter(|name| named(name.as_str()).is_some()).cloned().collect();
    for name in bad {
        named(name.as_str()).inspect(|swap| found(swap.secret));
        headers.remove(name);
    }
    for value in headers.values_mut() {
        let (replaced, secret) = Replacer::whole(Arc::clone(swaps), value.as_bytes());
        if let Some(secret) = secret {
            found(secret);
            // Placeholders fit everywhere.
            *value = HeaderValue::from_bytes(&replaced).unwrap_or(HeaderValue::from_static(""));
        }
    }
}
