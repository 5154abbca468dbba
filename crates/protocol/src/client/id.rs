//! Owns the names of execs: numbers that the host chooses at random.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

/// Which exec of a guest is meant, in whatever session. Written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecId(pub u64);

/// A text that is no [`ExecId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an exec, which has 16 hexadecimal digits")]
pub struct InvalidExecId;

impl ExecId {
    /// The sandbox's main program.
    pub const MAIN: Self = Self(1);

    /// One that no other exec has.
    pub fn random() -> Self {
        loop {
            let id = random();
            if id > Self::MAIN.0 {
                return Self(id);
            }
        }
    }
}

/// A number that nobody guesses or gets twice.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        // The standard library has seeded its tables already.
        Ok(_) | Err(_) => RandomState::new().build_hasher().finish(),
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ExecId {
    type Err = InvalidExecId;

    fn from_str(text: &str) -> Result<Self, InvalidExecId> {
        // `from_str_radix` would take a sign.
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or(InvalidExecId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for id in [ExecId::MAIN, ExecId(u64::MAX), ExecId::random()] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(ExecId::MAIN.to_string(), "0000000000000001");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for bad in
            ["", "1", "+000000000000001", "00000000000000001", "000000000000000g", "\u{ff11}00000000000000"]
        {
            assert_eq!(bad.parse::<ExecId>(), Err(InvalidExecId), "{bad}");
        }
    }
}
