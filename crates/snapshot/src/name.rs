//! What snapshots are called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
const LONGEST: usize = 64;

/// A snapshot's name: 1 to 64 of `a-z A-Z 0-9 _ . -`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotName(String);

/// A text that is no snapshot's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a snapshot's name has 1 to {LONGEST} of a-z A-Z 0-9 _ . -, the first a letter or digit")]
pub struct InvalidSnapshotName;

impl SnapshotName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotName {
    type Err = InvalidSnapshotName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
        let begins = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if begins && text.len() <= LONGEST && text.as_bytes().iter().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSnapshotName)
        }
    }
}

impl TryFrom<String> for SnapshotName {
    type Error = InvalidSnapshotName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SnapshotName> for String {
    fn from(name: SnapshotName) -> Self {
        name.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path() {
        for good in ["a", "web-1", "2024.01_x", &"x".repeat(64)] {
            assert_eq!(good.parse::<SnapshotName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".tmp-1", "a/b", "-a", "a b", "ä", "a\0", &"x".repeat(65)] {
            assert_eq!(bad.parse::<SnapshotName>(), Err(InvalidSnapshotName), "{bad:?}");
        }
    }
}
