//! Owns what is done to a request before it goes out: placeholders become values, in headers and the query, and in the body where
//! that was asked for.
//!
//! A request must be for the host of its connection, or a guest could have the value carried to a neighbour behind the same server.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue,
    SEC_WEBSOCKET_EXTENSIONS, TE, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{Method, Request, StatusCode, Uri};

use super::body::{Body, Broken};
use super::event::What;
use super::replace::{Replacer, Swap, contains};
use super::secret::PREFIX;
use super::{Entry, Link};
use crate::policy::Name;

/// How long the head of a request may become by its values.
const HEAD_MAX: usize = 256 << 10;
/// The longest body that is kept to be sent in one piece.
pub(super) const BODY_MAX: u64 = 1 << 20;
/// Clients write it with padding and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A request that is answered here.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

/// Why there is no request to send.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Refusal),
    /// The guest did not send all of it.
    Broken(Broken),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A request to send.
pub(super) struct Prepared {
    pub(super) request: Request<Body>,
    /// Whether any value is in it.
    pub(super) has_values: bool,
    /// Forms of values in it that nobody would find by the value, and the guest's own.
    pub(super) forms: Vec<Swap>,
}

pub(super) async fn prepare(link: &Link, request: Request<Incoming>) -> Result<Prepared, Stop> {
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not passed on").into());
    }
    if !is_for(&parts, &link.host) {
        link.tell(None, What::OtherHost);
        let why = format!("the connection is for {}, and the request is not", link.host);
        return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, why).into());
    }
    let mut filled = Filled { link, grown: 0, has_values: false, forms: Vec::new() };
    filled.headers(&mut parts.headers)?;
    if let Some(uri) = filled.uri(&parts.uri)? {
        parts.uri = uri;
    }
    // What is encoded cannot be looked into on the way back.
    parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if parts.headers.get(TE).is_some_and(|te| te != "trailers") {
        parts.headers.remove(TE);
    }
    parts.headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    // The body's length, or that it has none, is told by who sends it.
    parts.headers.remove(TRANSFER_ENCODING);
    let (body, is_searched) = self::body(link, &mut parts.headers, body).await?;
    let has_values = filled.has_values || is_searched;
    let forms = filled.forms;
    Ok(Prepared { request: Request::from_parts(parts, body), has_values, forms })
}

/// Whether all that says whom a request is for says `host`; something must.
fn is_for(parts: &Parts, host: &Name) -> bool {
    let is_host = |authority: &Authority| {
        !authority.as_str().contains('@') && Name::from_wire(authority.host().as_bytes()).as_ref() == Ok(host)
    };
    let mut headers = parts.headers.get_all(HOST).iter();
    let (header, more) = (headers.next(), headers.next());
    let header = header.map(|header| Authority::try_from(header.as_bytes()));
    let target = parts.uri.authority();
    more.is_none()
        && (header.is_some() || target.is_some())
        && header.is_none_or(|header| header.is_ok_and(|header| is_host(&header)))
        && target.is_none_or(is_host)
}

/// What has been put in so far.
struct Filled<'a> {
    link: &'a Link,
    grown: usize,
    has_values: bool,
    forms: Vec<Swap>,
}

impl Filled<'_> {
    /// A text with values in the places of their placeholders, if it has any, and whose value the last one is.
    fn text(
        &mut self,
        text: &[u8],
        encode: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
        if !contains(text, PREFIX.as_bytes()) {
            return Ok(None);
        }
        let mut swaps = Vec::new();
        for (number, entry) in self.link.secrets.entries.iter().enumerate() {
            if !contains(text, entry.placeholder.as_bytes()) {
                continue;
            }
            if !entry.spec.is_for(&self.link.host) {
                self.link.tell(Some(number), What::WrongHost);
                continue;
            }
            let Some(value) = entry.live.value() else { return Err(expired(self.link, number, entry)) };
            swaps.extend(Swap::new(number, entry.placeholder.as_bytes(), &encode(value.expose())));
        }
        // A guest may repeat a placeholder as often as it likes.
        let most = swaps.iter().map(|swap| swap.to.expose().len()).max().unwrap_or_default();
        let most = most.saturating_mul(text.len() / PREFIX.len()).saturating_add(text.len());
        if most > HEAD_MAX && self.counted(text, &swaps) > HEAD_MAX {
            return Err(too_long());
        }
        let (filled, secret) = Replacer::whole(swaps.into(), text);
        let Some(secret) = secret else { return Ok(None) };
        self.grown += filled.len();
        if self.grown > HEAD_MAX {
            return Err(too_long());
        }
        self.has_values = true;
        Ok(Some((filled, secret)))
    }

    /// How long a text would become.
    fn counted(&self, text: &[u8], swaps: &[Swap]) -> usize {
        let grown = swaps.iter().map(|swap| {
            let from = swap.from.expose();
            let count = text.windows(from.len()).filter(|window| *window == from).count();
            count.saturating_mul(swap.to.expose().len())
        });
        grown.fold(text.len() + self.grown, usize::saturating_add)
    }

    fn headers(&mut self, headers: &mut HeaderMap) -> Result<(), Refusal> {
        for (name, value) in headers.iter_mut() {
            let filled = match basic(value.as_bytes()).filter(|_| name == AUTHORIZATION) {
                Some((scheme, credentials)) => {
                    let given = value.as_bytes()[scheme.len()..].to_vec();
                    self.text(&credentials, <[u8]>::to_vec)?.map(|(filled, secret)| {
                        let encoded = BASE64.encode(filled);
                        self.forms.extend(Swap::new(secret, encoded.as_bytes(), &given));
                        ([scheme, encoded.into_bytes()].concat(), secret)
                    })
                }
                None => self.text(value.as_bytes(), <[u8]>::to_vec)?,
            };
            let Some((filled, secret)) = filled else { continue };
            *value = HeaderValue::from_bytes(&filled).map_err(|_| {
                self.link.tell(Some(secret), What::Unfit);
                let why = "the value of a secret has characters that a header cannot have";
                Refusal::new(StatusCode::BAD_GATEWAY, why)
            })?;
            // So that nobody prints it, and HTTP/2 does not keep it in its tables.
            value.set_sensitive(true);
        }
        Ok(())
    }

    /// The target with the query filled, if that changes it.
    fn uri(&mut self, uri: &Uri) -> Result<Option<Uri>, Refusal> {
        let Some(query) = uri.query().filter(|query| query.contains(PREFIX)) else { return Ok(None) };
        let Some((filled, _)) = self.text(query.as_bytes(), percent_encoded)? else { return Ok(None) };
        let unfit =
            || Refusal::new(StatusCode::URI_TOO_LONG, "the query is too long with the value of its secret");
        let target = [uri.path().as_bytes(), b"?", &filled].concat();
        let mut parts = uri.clone().into_parts();
        parts.path_and_query =
            Some(PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| unfit())?);
        Uri::from_parts(parts).map(Some).map_err(|_| unfit())
    }
}

/// The body, and whether values may be in it. One that the guest has encoded goes out as it is.
async fn body(link: &Link, headers: &mut HeaderMap, incoming: Incoming) -> Result<(Body, bool), Stop> {
    let meant = || link.meant().filter(|(_, entry)| entry.spec.in_body);
    if incoming.is_end_stream() || headers.contains_key(CONTENT_ENCODING) || meant().next().is_none() {
        return Ok((Body::Passing(incoming), false));
    }
    let mut swaps = Vec::new();
    for (number, entry) in meant() {
        // Whether its placeholder is in the body shows when half of it has been sent.
        let value = entry.live.value().ok_or_else(|| expired(link, number, entry))?;
        swaps.extend(Swap::new(number, entry.placeholder.as_bytes(), value.expose()));
    }
    let swaps: Arc<[Swap]> = swaps.into();
    let whole = incoming.size_hint().exact().filter(|length| *length <= BODY_MAX);
    let room = whole.and_then(|length| room(link, length)).filter(|_| !swaps.iter().any(Swap::grows));
    if headers.remove(CONTENT_LENGTH).is_none() || room.is_none() {
        return Ok((Body::replacing(incoming, swaps, std::rc::Rc::new(|_| ())), true));
    }
    let collected = incoming.collect().await.map_err(|error| Stop::Broken(error.into()))?;
    let trailers = collected.trailers().cloned();
    let (data, found) = Replacer::whole(swaps, &collected.to_bytes());
    headers.insert(CONTENT_LENGTH, data.len().into());
    Ok((Body::Whole { data: Some(data.into()), trailers, room }, found.is_some()))
}

/// Room for a body that is kept whole, if there is some.
pub(super) fn room(link: &Link, length: u64) -> Option<tokio::sync::OwnedSemaphorePermit> {
    // Twice: as it came, and as it goes.
    let length = u32::try_from(length.saturating_mul(2)).ok()?;
    Arc::clone(&link.secrets.room).try_acquire_many_owned(length).ok()
}

fn expired(link: &Link, number: usize, entry: &Entry) -> Refusal {
    link.tell(Some(number), What::Expired);
    let why =
        format!("the value of the secret {} has expired, and its source gives no other", entry.spec.name);
    Refusal::new(StatusCode::BAD_GATEWAY, why)
}

fn too_long() -> Refusal {
    let why = "the head of the request is too long with the values of its secrets";
    Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why)
}

/// The credentials in `Basic …`, and what is before them.
fn basic(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let length = value.iter().position(|byte| *byte == b' ')?;
    if !value[..length].eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let blanks = value[length..].iter().take_while(|byte| **byte == b' ').count();
    let (scheme, credentials) = value.split_at(length + blanks);
    Some((scheme.to_vec(), BASE64.decode(credentials.trim_ascii_end()).ok()?))
}

/// As a query has it.
pub(super) fn percent_encoded(value: &[u8]) -> Vec<u8> {
    let encoded = value.iter().flat_map(|byte| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => vec![*byte],
        byte => format!("%{byte:02X}").into_bytes(),
    });
    encoded.collect()
}
