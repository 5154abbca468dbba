//! Owns how a call goes over a stream: gRPC's messages without HTTP/2, since the session's streams already are what
//! HTTP/2 would bring, and a guest's emulated processor would pay for both.
//!
//! ```text
//!   host ──▶  header of the stream │ length │ path          │ message
//!                                    1 byte   "/service/name"
//!   host ◀──  accepted │ message …  │ outcome, then the stream ends
//! ```
//! A message is a byte of flags, its length as 32-bit big endian number, and its bytes, as in gRPC. The outcome is one more,
//! with the flag that gRPC-Web gives its trailer. `accepted` is an empty one, which a call that is refused lacks: who waits
//! for an answer of many messages knows by it that they may come. Every call has one message. A host that cuts the
//! stream has given the call up; one that is cut for the host, or ends without an outcome, has failed.

use tonic::{Code, Status};

#[cfg(feature = "server")]
pub mod serve;

/// The flags and the length of a message.
pub(crate) const MESSAGE_HEAD: usize = 5;
/// The largest request, above what Linux takes as arguments and environment.
pub(crate) const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// The longest path, which its length must have room for.
#[cfg(feature = "client")]
pub(crate) const MAX_PATH: usize = u8::MAX as usize;
/// The longest outcome: a code and a line of text.
#[cfg(feature = "client")]
pub(crate) const MAX_OUTCOME: usize = 64 * 1024;

const OUTCOME_FLAG: u8 = 0x80;
const ACCEPTED_FLAG: u8 = 0x40;
/// Begins the answer to a call that is not refused.
#[cfg(feature = "server")]
const ACCEPTED: [u8; MESSAGE_HEAD] = [ACCEPTED_FLAG, 0, 0, 0, 0];

/// Under which name a [`Status`] has the kernel's error number, where there is one.
pub const ERRNO: &str = "cellule-errno";

/// How a call went.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Outcome {
    /// One of gRPC's codes; zero is success.
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    /// The kernel's error number; zero if it is none of the kernel's.
    #[prost(int32, tag = "3")]
    errno: i32,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Accepted,
    Message,
    Outcome,
}

/// The first bytes of a message: what it is, and how many follow. `None` if it is nothing that this version has.
pub(crate) fn message_head(head: [u8; MESSAGE_HEAD]) -> Option<(Kind, usize)> {
    let [flags, a, b, c, d] = head;
    let kind = match flags {
        0 => Kind::Message,
        ACCEPTED_FLAG if [a, b, c, d] == [0; 4] => Kind::Accepted,
        OUTCOME_FLAG => Kind::Outcome,
        _ => return None,
    };
    Some((kind, usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?))
}

impl Outcome {
    #[cfg(feature = "server")]
    pub(crate) fn new(status: Option<Status>) -> Self {
        match status {
            None => Self::default(),
            Some(status) => {
                // Cut where the other side would refuse it; a line of text is far below.
                let message = status.message().chars().take(4096).collect();
                let errno = status.metadata().get(ERRNO).and_then(|value| value.to_str().ok()?.parse().ok());
                Self { code: status.code() as i32, message, errno: errno.unwrap_or(0) }
            }
        }
    }

    #[cfg(feature = "client")]
    pub(crate) fn into_status(self) -> Status {
        let mut status = Status::new(Code::from_i32(self.code), self.message);
        if self.errno != 0 {
            status.metadata_mut().insert(ERRNO, self.errno.into());
        }
        status
    }

    /// As a message, head included.
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        use prost::Message as _;
        let length = u32::try_from(self.encoded_len()).unwrap_or(u32::MAX);
        to.push(OUTCOME_FLAG);
        to.extend(length.to_be_bytes());
        // There is no end to a vector's room.
        let _always = self.encode(to);
    }

    /// From what follows the head.
    #[cfg(feature = "client")]
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        prost::Message::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_the_wire() {
        let mut of_the_kernel = Status::not_found("no such\nexec \u{1F4A5}");
        of_the_kernel.metadata_mut().insert(ERRNO, 2.into());
        for status in [None, Some(of_the_kernel)] {
            let mut wire = Vec::new();
            Outcome::new(status.clone()).write(&mut wire);
            let (head, rest) = wire.split_first_chunk().unwrap();
            assert_eq!(message_head(*head), Some((Kind::Outcome, rest.len())));
            let read = Outcome::read(rest).unwrap().into_status();
            assert_eq!(read.code(), status.as_ref().map_or(Code::Ok, Status::code));
            assert_eq!(read.message(), status.as_ref().map_or("", Status::message));
            assert_eq!(
                read.metadata().get(ERRNO),
                status.as_ref().and_then(|status| status.metadata().get(ERRNO))
            );
        }
    }

    #[test]
    fn the_layout_is_frozen() {
        let mut wire = Vec::new();
        Outcome::new(Some(Status::not_found("x"))).write(&mut wire);
        assert_eq!(wire, [0x80, 0, 0, 0, 5, 8, 5, 0x12, 1, b'x']);
        assert_eq!(message_head([0, 0, 0, 1, 2]), Some((Kind::Message, 258)));
    }

    #[test]
    fn what_has_other_flags_is_nothing() {
        // 1 is gRPC's flag of a compressed message, which no side offers.
        for flags in [1, 0x81, 0x41, 0xFF] {
            assert_eq!(message_head([flags, 0, 0, 0, 0]), None);
        }
        assert_eq!(message_head([ACCEPTED_FLAG, 0, 0, 0, 1]), None);
    }

    #[test]
    fn a_long_reason_is_cut_before_it_is_refused() {
        let mut wire = Vec::new();
        Outcome::new(Some(Status::internal("\u{1F4A5}".repeat(100_000)))).write(&mut wire);
        assert!(wire.len() < MAX_OUTCOME);
    }
}
