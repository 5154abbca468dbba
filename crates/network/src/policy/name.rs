//! Domain names in the one form in which they are compared.

use std::fmt;
use std::str::FromStr;

use idna::AsciiDenyList;
use serde::{Deserialize, Serialize};

/// The longest name, in bytes, without a dot at its end.
const LONGEST: usize = 253;
/// The longest label, in bytes.
const LONGEST_LABEL: usize = 63;
/// The longest text that is looked at: characters become more or fewer bytes when they are converted.
const LONGEST_TEXT: usize = 1024;

/// A domain name: lower case, in ASCII (IDNA's A-labels), without the dot at its end.
///
/// It never is an address: what a C library would read as one (`10.1`, `0x7f.1`) is no name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Box<str>);

/// Why a text is no domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing, or the root.
    #[error("it is empty")]
    Empty,
    /// More than fits in a message.
    #[error("it is longer than {LONGEST} characters")]
    TooLong,
    /// Two dots in a row, or one at the beginning.
    #[error("a part of it between dots is empty")]
    EmptyLabel,
    /// More than fits in a message.
    #[error("a part of it between dots is longer than {LONGEST_LABEL} characters")]
    LongLabel,
    /// Something that names of hosts do not have.
    #[error("it has something other than letters, digits, - and _, or begins with -")]
    Character,
    /// An address, or half of one.
    #[error("it ends in a number, as addresses do")]
    Numeric,
    /// The letters of other scripts make no name.
    #[error("its letters cannot be converted (IDNA)")]
    Idna,
}

impl Name {
    /// The name in bytes that came over a network. What is not ASCII there is no name: a server might read it in another way.
    ///
    /// # Errors
    /// They are no domain name.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, NameError> {
        let text = std::str::from_utf8(bytes).map_err(|_| NameError::Character)?;
        if text.is_ascii() { Self::from_ascii(text) } else { Err(NameError::Character) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a name below `parent`, which no name is of itself.
    pub fn is_below(&self, parent: &Self) -> bool {
        self.0.strip_suffix(&*parent.0).is_some_and(|rest| rest.ends_with('.'))
    }

    fn from_ascii(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        match text.len() {
            0 => return Err(NameError::Empty),
            1..=LONGEST => {}
            _ => return Err(NameError::TooLong),
        }
        for label in text.split('.') {
            match label.len() {
                0 => return Err(NameError::EmptyLabel),
                1..=LONGEST_LABEL => {}
                _ => return Err(NameError::LongLabel),
            }
            if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
                return Err(NameError::Character);
            }
        }
        // Elsewhere a hyphen does no harm, and there are hosts with one. At the beginning C libraries refuse it.
        if text.starts_with('-') {
            return Err(NameError::Character);
        }
        if text.rsplit('.').next().is_some_and(is_number) {
            return Err(NameError::Numeric);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

/// Whether a C library would read it as a part of an address.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The name in what a person wrote, in any script.
impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_ascii() {
            return Self::from_ascii(text);
        }
        if text.len() > LONGEST_TEXT {
            return Err(NameError::TooLong);
        }
        let ascii = idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::EMPTY);
        Self::from_ascii(&ascii.map_err(|_| NameError::Idna)?)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_a_name_are_one_name() {
        for (text, name) in [
            ("example.com", "example.com"),
            ("EXAMPLE.Com.", "example.com"),
            ("_dns.a-.9a", "_dns.a-.9a"),
            ("münchen.DE", "xn--mnchen-3ya.de"),
            ("XN--MNCHEN-3YA.de", "xn--mnchen-3ya.de"),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
            ("ｅxample．com", "example.com"),
            ("localhost", "localhost"),
            ("0x7f.com", "0x7f.com"),
        ] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), name, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_reason() {
        let label = "a".repeat(64);
        let long = ["a".repeat(63).as_str(); 4].join(".");
        for (text, error) in [
            ("", NameError::Empty),
            (".", NameError::Empty),
            ("..", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a.com..", NameError::EmptyLabel),
            (&label, NameError::LongLabel),
            (&long, NameError::TooLong),
            ("-a.com", NameError::Character),
            ("a b.com", NameError::Character),
            ("a.com\0.b", NameError::Character),
            ("*.a.com", NameError::Character),
            ("a.com/x", NameError::Character),
            ("10.0.0.1", NameError::Numeric),
            ("10.0", NameError::Numeric),
            ("0x7f.1", NameError::Numeric),
            ("1.2.3.0X7F", NameError::Numeric),
            ("a.0x", NameError::Numeric),
            ("１０.0.0.１", NameError::Numeric),
            ("2130706433", NameError::Numeric),
            ("xn--a.ü", NameError::Idna),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_name_from_the_wire_is_ascii() {
        assert_eq!(Name::from_wire("münchen.de".as_bytes()), Err(NameError::Character));
        assert_eq!(Name::from_wire(b"\xff.de"), Err(NameError::Character));
        assert_eq!(Name::from_wire(b"Example.com.").unwrap().as_str(), "example.com");
    }

    #[test]
    fn only_whole_labels_make_a_name_one_below_another() {
        let below = |name: &str, parent: &str| {
            name.parse::<Name>().unwrap().is_below(&parent.parse::<Name>().unwrap())
        };
        assert!(below("a.example.com", "example.com"));
        assert!(below("b.a.example.com", "example.com"));
        assert!(!below("example.com", "example.com"));
        assert!(!below("badexample.com", "example.com"));
        assert!(!below("example.com.evil.org", "example.com"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_name_in_its_one_form_or_an_error(bytes: Vec<u8>, text: String) {
            let read = [Name::from_wire(&bytes), Name::from_wire(text.as_bytes()), text.parse()];
            for name in read.into_iter().flatten() {
                prop_assert!(name.as_str().len() <= LONGEST);
                prop_assert_eq!(name.as_str().parse::<Name>(), Ok(name.clone()));
                prop_assert_eq!(Name::from_wire(name.as_str().as_bytes()), Ok(name.clone()));
                prop_assert!(name.as_str().parse::<std::net::IpAddr>().is_err());
            }
        }
    }
}
