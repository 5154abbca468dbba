//! Owns the reading of a TLS client's first message, as far as the name of the server: RFC 8446 4.1.2, RFC 6066 3.
//!
//! The message may be spread over several records. Everything has its length before it, and lengths that do not add up are refused: a
//! reader that is more generous than this one might see another name.

use super::Seen;
use crate::policy::Name;

/// The type of the records that a handshake comes in.
pub(super) const RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// What a record may hold.
const RECORD_MAX: usize = 16 << 10;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// The drafts' and the name extension that came before.
const ENCRYPTED_NAMES: [u16; 3] = [0xffce, 0xff02, 0xff03];
const HOST_NAME: u8 = 0;

pub(super) fn read(said: &[u8]) -> Seen {
    let message = match message(said) {
        Message::Whole(message) => message,
        Message::Incomplete => return Seen::Incomplete,
        Message::Broken => return Seen::Broken,
    };
    match hello(&message) {
        Some((server, encrypted)) => Seen::Tls { server, encrypted },
        None => Seen::Broken,
    }
}

enum Message {
    Whole(Vec<u8>),
    Incomplete,
    Broken,
}

/// Puts the message together from its records.
fn message(said: &[u8]) -> Message {
    let (mut message, mut rest) = (Vec::new(), Bytes(said));
    loop {
        if let Some((header, _)) = message.split_first_chunk::<4>() {
            let [kind, high, middle, low] = *header;
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if kind != CLIENT_HELLO {
                return Message::Broken;
            }
            if let Some(body) = message.get(4..4 + length) {
                return Message::Whole(body.to_vec());
            }
        }
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Message::Broken;
        }
        let Some(kind) = rest.u8() else { return Message::Incomplete };
        if kind != RECORD {
            return Message::Broken;
        }
        match rest.u8() {
            None => return Message::Incomplete,
            Some(3) => {}
            Some(_) => return Message::Broken,
        }
        let (Some(_), Some(length)) = (rest.u8(), rest.u16()) else { return Message::Incomplete };
        let length = usize::from(length);
        if length == 0 || length > RECORD_MAX {
            return Message::Broken;
        }
        let part = rest.0.get(..length).unwrap_or(rest.0);
        message.extend_from_slice(part);
        rest = Bytes(&rest.0[part.len()..]);
    }
}

/// The server's name, and whether there is an encrypted one besides.
fn hello(message: &[u8]) -> Option<(Option<Name>, bool)> {
    let mut rest = Bytes(message);
    rest.take(2 + 32)?;
    let session = rest.u8()?;
    rest.take(usize::from(session))?;
    let ciphers = rest.u16()?;
    rest.take(usize::from(ciphers))?;
    let compressions = rest.u8()?;
    rest.take(usize::from(compressions))?;
    if rest.0.is_empty() {
        // There were no extensions once.
        return Some((None, false));
    }
    let mut extensions = Bytes(rest.vector()?);
    if !rest.0.is_empty() {
        return None;
    }
    let (mut server, mut named, mut encrypted) = (None, false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let body = extensions.vector()?;
        if kind == SERVER_NAME {
            // Twice the same is no TLS, and two names are one too many.
            if std::mem::replace(&mut named, true) {
                return None;
            }
            server = super::name(server_name(body)?).ok()?;
        }
        encrypted |= kind == ENCRYPTED_CLIENT_HELLO || ENCRYPTED_NAMES.contains(&kind);
    }
    Some((server, encrypted))
}

fn server_name(body: &[u8]) -> Option<&str> {
    let mut body = Bytes(body);
    let mut names = Bytes(body.vector()?);
    if !body.0.is_empty() || names.u8()? != HOST_NAME {
        return None;
    }
    let name = names.vector()?;
    if !names.0.is_empty() {
        return None;
    }
    std::str::from_utf8(name).ok()
}

/// Bytes that are read from their beginning.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// What has its length in two bytes before it.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}
