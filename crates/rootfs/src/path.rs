//! What the path of an entry means: where in the root it lies, and whether it is a whiteout.

use crate::error::Fault;
use crate::limits::{Limit, Limits};

/// The longest name that Linux and EROFS take.
pub(crate) const NAME_BYTES: usize = 255;

const WHITEOUT: &[u8] = b".wh.";
const METADATA: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry's path asks for. Paths are normal: relative to the root, without empty, `.` and `..`
/// components; the root itself is empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Purpose<'a> {
    /// The entry is to be in the tree.
    Add,
    /// What lower layers have at `name` in `parent` goes.
    Whiteout { parent: &'a [u8], name: &'a [u8] },
    /// All that lower layers have in `parent` goes.
    Opaque { parent: &'a [u8] },
    /// AUFS's own; not part of the image.
    Ignore,
}

/// Makes a path normal, or says why it can't be in an image.
pub(crate) fn normalise(raw: &[u8], limits: &Limits) -> Result<Box<[u8]>, Fault> {
    check_length(raw, limits)?;
    if raw.is_empty() || raw.contains(&0) {
        return Err(Fault::Name);
    }
    let mut path = Vec::with_capacity(raw.len());
    for component in components(raw) {
        if component == b".." {
            return Err(Fault::DotDot);
        }
        if component.len() > NAME_BYTES {
            return Err(Fault::NameTooLong);
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    Ok(path.into_boxed_slice())
}

/// Checks the target of a symbolic link, which is kept as it is.
pub(crate) fn check_symlink_target(target: &[u8], limits: &Limits) -> Result<(), Fault> {
    check_length(target, limits)?;
    if target.is_empty() || target.contains(&0) {
        return Err(Fault::Name);
    }
    Ok(())
}

fn check_length(path: &[u8], limits: &Limits) -> Result<(), Fault> {
    if path.len() as u64 > limits.path_bytes {
        return Err(Fault::Limit { limit: Limit::PathBytes, allowed: limits.path_bytes });
    }
    Ok(())
}

/// The components of a path, without empty ones and `.`.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".")
}

/// Splits a normal path into its parent and its last name; the root has neither.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    })
}

/// Says what a normal path asks for.
pub(crate) fn purpose(path: &[u8]) -> Result<Purpose<'_>, Fault> {
    let Some((parent, name)) = split(path) else { return Ok(Purpose::Add) };
    for component in components(parent) {
        if component.starts_with(METADATA) {
            return Ok(Purpose::Ignore);
        }
        if component.starts_with(WHITEOUT) {
            return Err(Fault::Whiteout);
        }
    }
    if name == OPAQUE {
        return Ok(Purpose::Opaque { parent });
    }
    if name.starts_with(METADATA) {
        return Ok(Purpose::Ignore);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Purpose::Add),
        Some(b"" | b"." | b"..") => Err(Fault::Whiteout),
        Some(name) => Ok(Purpose::Whiteout { parent, name }),
    }
}

/// Whether a layer would read this name as an order to delete.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(raw: &str) -> Result<String, Fault> {
        normalise(raw.as_bytes(), &Limits::default()).map(|p| String::from_utf8(p.into_vec()).unwrap())
    }

    #[test]
    fn every_spelling_of_a_path_is_relative_to_the_root() {
        for raw in ["a/b", "/a/b", "./a/b", "//a/./b//", "a/b/."] {
            assert_eq!(normal(raw).unwrap(), "a/b", "{raw}");
        }
        for raw in ["/", ".", "./", "././/"] {
            assert_eq!(normal(raw).unwrap(), "", "{raw}");
        }
    }

    #[test]
    fn dotdot_nul_empty_and_overlong_paths_are_refused() {
        for raw in ["..", "../etc", "a/../b", "/..", "a/.."] {
            assert!(matches!(normal(raw), Err(Fault::DotDot)), "{raw}");
        }
        assert!(matches!(normal("a\0b"), Err(Fault::Name)));
        assert!(matches!(normal(""), Err(Fault::Name)));
        assert!(normal(&"n".repeat(255)).is_ok());
        assert!(matches!(normal(&"n".repeat(256)), Err(Fault::NameTooLong)));
        assert!(normal(&"n/".repeat(2047)).is_ok());
        assert!(matches!(normal(&"n/".repeat(2048)), Err(Fault::Limit { limit: Limit::PathBytes, .. })));
        assert_eq!(normal("..a/b..").unwrap(), "..a/b..");
    }

    #[test]
    fn whiteouts_are_told_from_entries() {
        let whiteout = |parent: &'static str, name: &'static str| Purpose::Whiteout {
            parent: parent.as_bytes(),
            name: name.as_bytes(),
        };
        assert_eq!(purpose(b"a/.wh.b").unwrap(), whiteout("a", "b"));
        assert_eq!(purpose(b".wh.b").unwrap(), whiteout("", "b"));
        assert_eq!(purpose(b".wh....").unwrap(), whiteout("", "..."));
        assert_eq!(purpose(b"a/.wh..wh..opq").unwrap(), Purpose::Opaque { parent: b"a" });
        assert_eq!(purpose(b".wh..wh.plnk/12").unwrap(), Purpose::Ignore);
        assert_eq!(purpose(b".wh..wh.aufs").unwrap(), Purpose::Ignore);
        assert_eq!(purpose(b"a.wh.b").unwrap(), Purpose::Add);
        assert_eq!(purpose(b"").unwrap(), Purpose::Add);
    }

    #[test]
    fn whiteouts_of_parents_and_below_whiteouts_are_refused() {
        for path in [".wh.", ".wh..", ".wh...", "a/.wh...", ".wh.a/b"] {
            assert!(matches!(purpose(path.as_bytes()), Err(Fault::Whiteout)), "{path}");
        }
    }
}
