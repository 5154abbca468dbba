//! Owns the value of a secret while it is in memory: nothing prints it, writes it down, or leaves it behind.

use std::fmt;
use std::sync::Arc;

use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

/// The longest value.
pub(super) const LONGEST: usize = 64 << 10;
/// What every placeholder begins with, so that one look tells whether a text has any.
pub(super) const PREFIX: &str = "cellule-secret-";

/// A value that is shown to nobody. Its bytes are overwritten when its last copy is dropped; what TLS and HTTP made of them on the
/// way out is not.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

/// Why bytes cannot be the value of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// There are none.
    #[error("it is empty")]
    Empty,
    /// There are too many.
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
}

impl Secret {
    /// A value.
    ///
    /// # Errors
    /// It is empty, or longer than 64 KiB.
    pub fn new(value: Vec<u8>) -> Result<Self, SecretError> {
        let value = Zeroizing::new(value);
        match value.len() {
            0 => Err(SecretError::Empty),
            1..=LONGEST => Ok(Self(Arc::new(value))),
            _ => Err(SecretError::TooLong),
        }
    }

    /// Bytes that are made from a value, of any length.
    pub(super) fn made(value: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(value)))
    }

    /// The value, for who sends it where it belongs.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Whether a text is a placeholder as [`placeholder`] makes them.
pub(super) fn is_placeholder(text: &str) -> bool {
    let random = text.strip_prefix(PREFIX).unwrap_or_default();
    random.len() == 32 && random.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A text that nobody can guess and nobody else has, for a guest to have in a value's place.
///
/// # Errors
/// There are no random numbers.
pub fn placeholder() -> std::io::Result<String> {
    let mut random = [0; 16];
    // So few bytes come whole.
    getrandom(&mut random, GetRandomFlags::empty())?;
    Ok(format!("{PREFIX}{:032x}", u128::from_be_bytes(random)))
}
