//! Owns what is done to an answer before the guest has it: values become placeholders.
//!
//! An answer with a length keeps it: a short one is taken whole and told its new length, in a long one the value becomes something
//! as long as itself, which begins like the placeholder. One without is replaced as it comes.
//!
//! Servers are asked not to encode answers. One that does all the same cannot be looked into: it is refused if the request had a value
//! in it, and passed on if not.

use std::rc::Rc;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{ALT_SVC, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, TRANSFER_ENCODING};
use hyper::{Response, StatusCode};

use super::body::{Body, Broken, Found, replace_in};
use super::event::What;
use super::replace::{Replacer, Swap};
use super::request::{BODY_MAX, Refusal, percent_encoded, room};
use super::{Link, SHORT};
use crate::requests::is_coded;

/// What is looked for in answers of a host: each value it may know, in the forms in which it comes back.
pub(super) fn swaps(link: &Link, forms: Vec<Swap>) -> Arc<[Swap]> {
    let mut swaps = forms;
    for (number, entry) in link.meant() {
        for value in entry.live.known() {
            // Headers do not keep blanks around it, so that the host may not have them.
            let value = value.expose();
            for plain in [value, value.trim_ascii()].into_iter().filter(|plain| plain.len() >= SHORT) {
                let json = std::str::from_utf8(plain).ok().and_then(|text| serde_json::to_vec(text).ok());
                let json = json.and_then(|json| Some(json.get(1..json.len().checked_sub(1)?)?.to_vec()));
                for form in [Some(plain.to_vec()), Some(percent_encoded(plain)), json].into_iter().flatten() {
                    if swaps.iter().all(|swap| swap.from.expose() != form) {
                        swaps.extend(Swap::new(number, &form, entry.placeholder.as_bytes()));
                    }
                }
            }
        }
    }
    swaps.into()
}

/// Takes values out of an answer.
pub(super) async fn scrub(
    link: &Rc<Link>,
    response: Response<Incoming>,
    forms: Vec<Swap>,
    has_values: bool,
) -> Result<Result<Response<Body>, Refusal>, Broken> {
    let swaps = swaps(link, forms);
    let (mut parts, incoming) = response.into_parts();
    let is_encoded = is_encoded(&parts.headers);
    // What is not passed on as it came would be taken for something else.
    let is_refused = is_encoded && has_values || is_coded(&parts.headers);
    if is_refused && !incoming.is_end_stream() {
        link.tell(None, What::Encoded);
        let why = "the server encoded its answer, so that it cannot be looked into for the secret";
        return Ok(Err(Refusal::new(StatusCode::BAD_GATEWAY, why)));
    }
    let told = Rc::clone(link);
    let found: Found = Rc::new(move |secret| told.tell(Some(secret), What::Scrubbed));
    replace_in(&mut parts.headers, &swaps, &*found);
    // Another way to the same server, on which nobody would put anything in.
    parts.headers.remove(ALT_SVC);
    parts.headers.remove(TRANSFER_ENCODING);
    parts.extensions.remove::<ReasonPhrase>();
    if incoming.is_end_stream() || is_encoded || swaps.is_empty() {
        return Ok(Ok(Response::from_parts(parts, Body::Passing(incoming))));
    }
    if !parts.headers.contains_key(CONTENT_LENGTH) {
        return Ok(Ok(Response::from_parts(parts, Body::replacing(incoming, swaps, found))));
    }
    // Places in a part are counted by its length.
    let is_part = parts.headers.contains_key(CONTENT_RANGE);
    let whole = incoming.size_hint().exact().filter(|length| *length <= BODY_MAX && !is_part);
    let Some(room) = whole.and_then(|length| room(link, length)) else {
        let swaps = swaps.iter().map(Swap::as_long).collect();
        return Ok(Ok(Response::from_parts(parts, Body::replacing(incoming, swaps, found))));
    };
    let collected = incoming.collect().await?;
    let mut trailers = collected.trailers().cloned();
    if let Some(trailers) = &mut trailers {
        replace_in(trailers, &swaps, &*found);
    }
    let (data, secret) = Replacer::whole(swaps, &collected.to_bytes());
    secret.inspect(|secret| found(*secret));
    parts.headers.insert(CONTENT_LENGTH, data.len().into());
    let body = Body::Whole { data: Some(data.into()), trailers, room: Some(room) };
    Ok(Ok(Response::from_parts(parts, body)))
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let is_plain = |value: &[u8]| value.is_empty() || value.eq_ignore_ascii_case(b"identity");
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !is_plain(value.as_bytes()))
}
