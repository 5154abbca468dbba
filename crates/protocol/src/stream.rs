//! Owns the first bytes of every stream, which say what the stream is for.
//!
//! ```text
//!   0        1                                   9
//!   ├────────┼───────────────────────────────────┤
//!   │ kind   │ id, little endian                 │ then the stream's own bytes
//! ```
//! A kind that the agent does not know makes it reset that stream and nothing else.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that a [`StreamHeader`] takes.
pub const STREAM_HEADER_LEN: usize = 9;

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// One [call](crate::call) to the agent, both directions.
    Calls,
    /// What the exec reads; from the host.
    Stdin,
    /// What the exec writes to its standard output; from the guest.
    Stdout,
    /// What the exec writes to its standard error; from the guest.
    Stderr,
    /// What a file, or an archive of files, holds; in the direction of the call that names it.
    Data,
    /// A connection to a port on the guest's own loopback, whose number is the id; both directions, each with an end of its
    /// own. The agent's first byte is zero once there is one, or Linux's number of the error that there is none for.
    Port,
    /// One [call](crate::call) to a sandbox's supervisor, which stands between a client and the agent. An agent does not
    /// serve it.
    Supervisor,
}

/// The preamble of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHeader {
    /// What it carries.
    pub kind: StreamKind,
    /// Which exec, attachment, transfer or port it belongs to; zero for [`StreamKind::Calls`] and [`StreamKind::Supervisor`].
    pub id: u64,
}

/// A preamble of a kind that this side does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of stream: {0}")]
pub struct UnknownStreamKind(pub u8);

impl StreamHeader {
    /// A stream that carries a call.
    pub const CALLS: Self = Self { kind: StreamKind::Calls, id: 0 };
    /// A stream that carries a call to a supervisor.
    pub const SUPERVISOR: Self = Self { kind: StreamKind::Supervisor, id: 0 };

    /// As it goes over the wire.
    pub fn encode(self) -> [u8; STREAM_HEADER_LEN] {
        let mut bytes = [0; STREAM_HEADER_LEN];
        bytes[0] = match self.kind {
            StreamKind::Calls => 0,
            StreamKind::Stdin => 1,
            StreamKind::Stdout => 2,
            StreamKind::Stderr => 3,
            StreamKind::Data => 4,
            StreamKind::Port => 5,
            StreamKind::Supervisor => 16,
        };
        bytes[1..].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }

    /// From the wire.
    ///
    /// # Errors
    /// When the kind is unknown.
    pub fn decode(bytes: [u8; STREAM_HEADER_LEN]) -> Result<Self, UnknownStreamKind> {
        let [kind, id @ ..] = bytes;
        let kind = match kind {
            0 => StreamKind::Calls,
            1 => StreamKind::Stdin,
            2 => StreamKind::Stdout,
            3 => StreamKind::Stderr,
            4 => StreamKind::Data,
            5 => StreamKind::Port,
            16 => StreamKind::Supervisor,
            other => return Err(UnknownStreamKind(other)),
        };
        Ok(Self { kind, id: u64::from_le_bytes(id) })
    }

    /// Reads the first bytes of a stream.
    ///
    /// # Errors
    /// When the stream ends too soon, or with [`io::ErrorKind::InvalidData`] and an [`UnknownStreamKind`] inside.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut bytes = [0; STREAM_HEADER_LEN];
        stream.read_exact(&mut bytes).await?;
        Self::decode(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        for kind in [
            StreamKind::Calls,
            StreamKind::Stdin,
            StreamKind::Stdout,
            StreamKind::Stderr,
            StreamKind::Data,
            StreamKind::Port,
            StreamKind::Supervisor,
        ] {
            let header = StreamHeader { kind, id: 0x0102_0304_0506_0708 };
            assert_eq!(StreamHeader::decode(header.encode()), Ok(header));
        }
    }

    #[test]
    fn an_unknown_kind_is_named() {
        assert_eq!(StreamHeader::decode([9; STREAM_HEADER_LEN]), Err(UnknownStreamKind(9)));
    }

    #[test]
    fn the_layout_is_frozen() {
        let header = StreamHeader { kind: StreamKind::Stderr, id: 0x0102 };
        assert_eq!(header.encode(), [3, 2, 1, 0, 0, 0, 0, 0, 0]);
    }
}
