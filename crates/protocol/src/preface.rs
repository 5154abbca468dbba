//! Owns how a session begins on a byte stream that may still hold bytes of an earlier one.
//!
//! ```text
//!   host                                        agent
//!    │ HOST_MAGIC, versions, nonce ───────────▶  │ discards input until it has found the magic
//!    │                                           │
//!    │ ◀─────────── AGENT_MAGIC, versions, nonce │ the same nonce
//!    │ discards input until exactly this answer  │
//!    │                                           │
//!    ╞═══════════ yamux, if a version is shared ═╡
//! ```
//! A preface is 28 bytes: 8 of magic, the lowest and the highest version served as 16-bit little endian numbers, 16 of
//! nonce. The magic never begins a yamux frame, whose first byte is zero; so a preface that lands inside a session the
//! agent takes for alive breaks that session, and the agent looks at the same bytes again. Should the preface have
//! vanished inside a half-sent frame, the host repeats it with a new nonce behind [`FILLER`] bytes, more than a frame
//! has, none of which begins one.

use std::ops::RangeInclusive;

/// Bytes of a preface and of its answer.
pub const PREFACE_LEN: usize = 28;

/// Versions of the protocol that this build serves: what follows the preface, and the meaning of the services.
pub const VERSIONS: RangeInclusive<u16> = 1..=1;

/// How many bytes precede a repeated preface.
pub const FILLER: usize = crate::mux::WRITE_SIZE;

const HOST_MAGIC: [u8; 8] = *b"\xCE\x11ULE>\r\n";
const AGENT_MAGIC: [u8; 8] = *b"\xCE\x11ULE<\r\n";

/// Who wrote a preface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that begins.
    Host,
    /// The one that answers.
    Agent,
}

/// One side's offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preface {
    /// The versions that this side serves.
    pub versions: RangeInclusive<u16>,
    /// Chosen by the host, repeated by the agent.
    pub nonce: [u8; 16],
}

impl Preface {
    /// As it goes over the wire.
    pub fn encode(&self, side: Side) -> [u8; PREFACE_LEN] {
        let mut bytes = [0; PREFACE_LEN];
        bytes[..8].copy_from_slice(side.magic());
        bytes[8..10].copy_from_slice(&self.versions.start().to_le_bytes());
        bytes[10..12].copy_from_slice(&self.versions.end().to_le_bytes());
        bytes[12..].copy_from_slice(&self.nonce);
        bytes
    }

    fn decode(bytes: &[u8; PREFACE_LEN]) -> Self {
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&bytes[12..]);
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self { versions: number(8)..=number(10), nonce }
    }

    /// The highest version that both sides serve.
    pub fn shared_version(&self, ours: &RangeInclusive<u16>) -> Option<u16> {
        let highest = *self.versions.end().min(ours.end());
        let lowest = *self.versions.start().max(ours.start());
        (lowest <= highest).then_some(highest)
    }
}

impl Side {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Host => &HOST_MAGIC,
            Self::Agent => &AGENT_MAGIC,
        }
    }
}

/// Looks for the other side's preface, a byte at a time, and forgets all that precedes it.
#[derive(Debug)]
pub struct Scanner {
    side: Side,
    held: [u8; PREFACE_LEN],
    len: usize,
}

impl Scanner {
    /// Looks for what `side` writes.
    pub fn new(side: Side) -> Self {
        Self { side, held: [0; PREFACE_LEN], len: 0 }
    }

    /// Takes the next byte; a preface that it completes is returned, and the search begins anew.
    pub fn push(&mut self, byte: u8) -> Option<Preface> {
        self.held[self.len] = byte;
        self.len += 1;
        // What is held is always the beginning of a possible preface; where it stops being one, a later byte of
        // it may begin another.
        while !self.may_begin() {
            self.held.copy_within(1..self.len, 0);
            self.len -= 1;
        }
        if self.len < PREFACE_LEN {
            return None;
        }
        self.len = 0;
        Some(Preface::decode(&self.held))
    }

    fn may_begin(&self) -> bool {
        let magic = self.side.magic();
        let compared = self.len.min(magic.len());
        self.held[..compared] == magic[..compared]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn preface() -> Preface {
        Preface { versions: 1..=3, nonce: *b"0123456789abcdef" }
    }

    fn scan(side: Side, bytes: &[u8]) -> Vec<Preface> {
        let mut scanner = Scanner::new(side);
        bytes.iter().filter_map(|byte| scanner.push(*byte)).collect()
    }

    #[test]
    fn the_layout_is_frozen() {
        let bytes = preface().encode(Side::Host);
        assert_eq!(&bytes, b"\xCE\x11ULE>\r\n\x01\x00\x03\x000123456789abcdef");
    }

    #[test]
    fn a_preface_is_found_behind_a_false_start() {
        let mut bytes = b"noise \xCE\x11UL\xCE\x11ULE\xCE".to_vec();
        bytes.extend(preface().encode(Side::Host));
        assert_eq!(scan(Side::Host, &bytes), [preface()]);
    }

    #[test]
    fn an_echo_is_no_answer() {
        assert_eq!(scan(Side::Agent, &preface().encode(Side::Host)), []);
    }

    #[test]
    fn versions_that_do_not_meet_share_none() {
        let theirs = |versions| Preface { versions, nonce: [0; 16] };
        assert_eq!(theirs(2..=5).shared_version(&(1..=3)), Some(3));
        assert_eq!(theirs(4..=5).shared_version(&(1..=3)), None);
        // A range that a hostile side has turned round.
        #[expect(clippy::reversed_empty_ranges, reason = "that is the case")]
        let reversed = 5..=1;
        assert_eq!(theirs(reversed).shared_version(&(1..=3)), None);
    }

    proptest! {
        #[test]
        fn a_preface_is_found_behind_any_bytes(mut noise in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assume!(scan(Side::Host, &noise).is_empty());
            noise.extend(preface().encode(Side::Host));
            prop_assert_eq!(scan(Side::Host, &noise), [preface()]);
        }
    }
}
