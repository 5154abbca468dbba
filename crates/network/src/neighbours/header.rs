//! Owns what a gateway says first to a neighbour's, and what it is answered.
//!
//! ```text
//!   version  protocol  family  port  asker's port  length of id  asker's id        answer: one byte
//!      1         1        1      2        2             1          1 to 64
//! ```

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::policy::Protocol;

/// Of this form of it. Gateways of other versions of the program say another number, and do not reach one another.
const VERSION: u8 = 1;
/// What comes before the id.
const FIXED: usize = 8;
/// The longest id.
const LONGEST_ID: usize = 64;

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// TCP or UDP.
    pub(super) protocol: Protocol,
    /// Whether the address that was asked for is of IPv6.
    pub(super) is_v6: bool,
    pub(super) port: u16,
    /// The port that the asker's guest has.
    pub(super) from: u16,
    /// Who asks.
    pub(super) id: String,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is open, and the bytes that follow are the guests'.
    Open,
    /// Nobody listens there.
    Refused,
    /// The guest does not answer, or may have no more connections.
    Unreachable,
}

/// Whether a text can be an id: it becomes the name of a file.
pub(super) fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'))
}

/// The header in all of `bytes`; none if it is not one.
pub(super) fn parse(bytes: &[u8]) -> Option<Header> {
    let (fixed, id) = bytes.split_first_chunk::<FIXED>()?;
    let [VERSION, protocol, family, p0, p1, f0, f1, length] = *fixed else { return None };
    let protocol = match protocol {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return None,
    };
    let is_v6 = match family {
        4 => false,
        6 => true,
        _ => return None,
    };
    if id.len() != usize::from(length) {
        return None;
    }
    let id = str::from_utf8(id).ok().filter(|id| is_id(id))?.to_owned();
    Some(Header {
        protocol,
        is_v6,
        port: u16::from_be_bytes([p0, p1]),
        from: u16::from_be_bytes([f0, f1]),
        id,
    })
}

impl Header {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let protocol = if self.protocol == Protocol::Tcp { 6 } else { 17 };
        let mut bytes = vec![VERSION, protocol, if self.is_v6 { 6 } else { 4 }];
        bytes.extend(self.port.to_be_bytes());
        bytes.extend(self.from.to_be_bytes());
        // No id is longer than what fits.
        bytes.push(u8::try_from(self.id.len()).unwrap_or(u8::MAX));
        bytes.extend(self.id.bytes());
        bytes
    }

    /// Reads one, and not a byte of what is behind it.
    pub(super) async fn read(stream: &mut UnixStream) -> io::Result<Self> {
        let mut bytes = vec![0; FIXED];
        stream.read_exact(&mut bytes).await?;
        let length = usize::from(bytes[FIXED - 1]);
        if length > LONGEST_ID {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.resize(FIXED + length, 0);
        stream.read_exact(&mut bytes[FIXED..]).await?;
        parse(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Answer {
    pub(super) async fn write(self, stream: &mut UnixStream) -> io::Result<()> {
        stream.write_all(&[self as u8]).await
    }

    pub(super) async fn read(stream: &mut UnixStream) -> io::Result<Self> {
        match stream.read_u8().await? {
            0 => Ok(Self::Open),
            1 => Ok(Self::Refused),
            2 => Ok(Self::Unreachable),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// What is written of the header that these bytes are, if they are one.
#[cfg(fuzzing)]
pub fn written_again(bytes: &[u8]) -> Option<Vec<u8>> {
    parse(bytes).map(|header| header.bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header { protocol: Protocol::Tcp, is_v6: false, port: 80, from: 5000, id: "0123456789ab".into() }
    }

    #[test]
    fn what_is_written_is_read() {
        let udp = Header { protocol: Protocol::Udp, is_v6: true, id: "a".repeat(64), ..header() };
        for header in [header(), udp] {
            assert_eq!(parse(&header.bytes()), Some(header));
        }
    }

    #[test]
    fn what_is_nearly_one_is_none() {
        let good = header().bytes();
        assert_eq!(parse(&good[..good.len() - 1]), None);
        assert_eq!(parse(&[&good[..], b"x"].concat()), None);
        for (at, value) in [(0, 2), (1, 1), (2, 5), (7, 0), (7, 255), (8, b'/'), (8, b'.'), (9, 0xff)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(parse(&bytes), None, "{at}: {value}");
        }
        let too_long = Header { id: "a".repeat(65), ..header() };
        assert_eq!(parse(&too_long.bytes()), None);
    }

    #[test]
    fn an_id_leads_nowhere_else() {
        assert!(is_id("0123456789ab") && is_id("a_b-c.d"));
        for text in ["", ".", "..", "../x", "a/b", "A", "a\0", ".a", "ä"] {
            assert!(!is_id(text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_a_header_is_written_as_it_came(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..80),
                ("[a-z./A-Z]{0,70}", any::<u32>()).prop_map(|(id, ports)| {
                    let length = u8::try_from(id.len()).unwrap();
                    [&[1, 6, 4][..], &ports.to_be_bytes(), &[length], id.as_bytes()].concat()
                }),
            ]
        ) {
            if let Some(header) = parse(&bytes) {
                prop_assert_eq!(header.bytes(), bytes);
            }
        }
    }
}
