//! What sandboxes are called: the id that each draws, the name that its user may give it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a type of names has in common with the others: it holds a text that `is_valid` takes, and comes from no other.
macro_rules! name {
    ($name:ident, $invalid:ident, $is_valid:expr) => {
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                let is_valid: fn(&str) -> bool = $is_valid;
                if is_valid(&text) { Ok(Self(text)) } else { Err(InvalidName::$invalid(text)) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

/// A sandbox's own name: 12 hexadecimal digits drawn at random.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);

name!(SandboxId, Id, |text| {
    text.len() == SandboxId::DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
});

impl SandboxId {
    pub(crate) const DIGITS: usize = 12;

    /// Draws a new one.
    ///
    /// # Errors
    /// The kernel has no random bytes to give.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; Self::DIGITS / 2];
        let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        if got < bytes.len() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self(hex::encode(bytes)))
    }
}

/// A name that a user gave, by Docker's rule: letters, digits and `_.-`, the first a letter or digit, 2 to 64 long.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxName(String);

name!(SandboxName, Name, |text| {
    (2..=64).contains(&text.len())
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
});

/// A name that a user gave a network: a label of a domain name, in lower case, that is no word for what may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);

name!(NetworkName, Network, |text| {
    (2..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !matches!(text, "none" | "public" | "all")
});

/// A text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not a name that a user may give.
    #[error("{0:?} is not a name: 2 to 64 of a-z A-Z 0-9 _ . -, the first a letter or digit")]
    Name(String),
    /// Not a network's name.
    #[error(
        "{0:?} is not a network's name: 2 to 63 of a-z 0-9 -, none at an end, and not none, public or all"
    )]
    Network(String),
    /// Not an id.
    #[error("{0:?} is not a sandbox's id: 12 hexadecimal digits")]
    Id(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "web-1", "A.b_c", "0x"] {
            assert!(good.parse::<SandboxName>().is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "a", "-ab", ".ab", "a/b", "a b", "..", "ä1", long.as_str()] {
            assert!(bad.parse::<SandboxName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_networks_name_is_a_label_and_no_word_for_what_may_be_reached() {
        for good in ["db", "back-end", "0x"] {
            assert!(good.parse::<NetworkName>().is_ok(), "{good}");
        }
        for bad in ["", "a", "-ab", "ab-", "Ab", "a.b", "a_b", "..", "none", "public", "all"] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_that_was_not_drawn_is_refused() {
        let id = SandboxId::random().unwrap();
        assert_eq!(SandboxId::try_from(id.to_string()), Ok(id));
        for bad in ["", "../../etc", "0123456789AB", "0123456789abc"] {
            assert!(SandboxId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
