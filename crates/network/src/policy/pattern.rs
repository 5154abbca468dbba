//! Which names a rule is about.

use std::fmt;
use std::str::FromStr;

use super::name::{Name, NameError};

/// One name, or all names below one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// `example.com`: that name, and none below it.
    Exact(Name),
    /// `*.example.com`: every name below it, however deep, and not itself.
    Below(Name),
}

/// Why a text is no pattern of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// A `*` where it stands for nothing.
    #[error("a * stands alone or at the beginning, as in *.example.com")]
    Wildcard,
    /// The rest is no name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Pattern {
    /// Whether a name is one of them.
    pub fn matches(&self, name: &Name) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Below(parent) => name.is_below(parent),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (parent, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if name.contains('*') {
            return Err(PatternError::Wildcard);
        }
        let name = name.parse()?;
        Ok(if parent { Self::Below(name) } else { Self::Exact(name) })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_itself_or_what_is_below_and_nothing_else() {
        let matches =
            |pattern: &str, name: &str| pattern.parse::<Pattern>().unwrap().matches(&name.parse().unwrap());
        assert!(matches("example.com", "EXAMPLE.com."));
        assert!(!matches("example.com", "www.example.com"));
        assert!(matches("*.example.com", "www.example.com"));
        assert!(matches("*.EXAMPLE.com.", "a.b.example.com"));
        assert!(!matches("*.example.com", "example.com"));
        assert!(!matches("*.example.com", "wwwexample.com"));
        assert!(!matches("*.example.com", "www.example.com.evil.org"));
        assert!(matches("*.münchen.de", "www.xn--mnchen-3ya.de"));
    }

    #[test]
    fn a_wildcard_stands_for_whole_names_at_the_beginning_only() {
        for bad in ["*", "*a.com", "a.*.com", "*.*.com", "a.*", "**.com"] {
            assert_eq!(bad.parse::<Pattern>(), Err(PatternError::Wildcard), "{bad}");
        }
        assert_eq!("*.".parse::<Pattern>(), Err(PatternError::Name(NameError::Empty)));
        assert_eq!("*.1".parse::<Pattern>(), Err(PatternError::Name(NameError::Numeric)));
    }
}
