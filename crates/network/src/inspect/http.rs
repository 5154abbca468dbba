//! Owns the reading of a request's head, as far as the host that it is for.

use super::Seen;
use crate::policy::Name;

/// What HTTP/2 begins with.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";
const VERSION: &[u8] = b"HTTP/";
const HEADERS_MAX: usize = 256;

pub(super) fn read(said: &[u8]) -> Seen {
    let start = said.iter().position(|byte| !is_blank(*byte) && *byte != b'\n').unwrap_or(said.len());
    let (before, said) = said.split_at(start);
    match looks_like_request(said) {
        None => return Seen::Incomplete,
        Some(false) => return Seen::Other,
        Some(true) => {}
    }
    // Servers skip empty lines before a request, and not all of them anything else.
    if before.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
        return Seen::Broken;
    }
    if said.starts_with(HTTP2) {
        return Seen::Http2;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(said) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Seen::Incomplete,
        Err(_) => return Seen::Broken,
    }
    let headers = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    match host(authority(&request), headers.map(|header| header.value)) {
        Ok(host) => Seen::Http { host },
        Err(()) => Seen::Broken,
    }
}

/// Whether some server may take its first line for a request's; nobody knows before that line is there. Other protocols begin with a
/// word and a blank too, and what has no version (HTTP/0.9) names no host.
fn looks_like_request(said: &[u8]) -> Option<bool> {
    let word = said.iter().take_while(|byte| is_token(**byte)).count();
    match said.get(word) {
        None => return None,
        Some(byte) if word > 0 && is_blank(*byte) => {}
        Some(_) => return Some(false),
    }
    let line = said.split(|byte| *byte == b'\n').next()?;
    let has_version = line.windows(VERSION.len()).any(|part| part.eq_ignore_ascii_case(VERSION));
    if has_version || line.len() < said.len() { Some(has_version) } else { None }
}

/// What methods are made of, of any length: RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What some server takes for a blank.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x0b | 0x0c | b'\r' | 0x1c..=0x1f | b' ' | 0x85 | 0xa0)
}

/// The target's authority, where it is a whole address.
fn authority<'a>(request: &httparse::Request<'_, 'a>) -> Option<&'a [u8]> {
    let target = request.path.unwrap_or_default();
    let authority = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => rest.split(['/', '?', '#']).next(),
        _ if request.method == Some("CONNECT") => Some(target),
        _ => None,
    };
    authority.map(str::as_bytes)
}

/// The host of a request, which must be one: in the target where it is a whole address, and in the header, of which there must not be
/// two.
pub(crate) fn host<'a>(
    authority: Option<&[u8]>,
    mut headers: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<Name>, ()> {
    let (header, more) = (headers.next(), headers.next());
    if more.is_some() || authority.is_some_and(|authority| authority.contains(&b'@')) {
        return Err(());
    }
    let (authority, header) = (authority.map(name).transpose()?, header.map(name).transpose()?);
    match (authority, header) {
        (Some(authority), Some(header)) if authority != header => Err(()),
        (authority, header) => Ok(authority.or(header).flatten()),
    }
}

/// A name without its port; an address is none.
fn name(value: &[u8]) -> Result<Option<Name>, ()> {
    let text = std::str::from_utf8(value).map_err(drop)?.trim();
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => text,
    };
    super::name(host)
}
