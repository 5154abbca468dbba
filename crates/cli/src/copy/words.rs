//! The words of `cellule cp SRC DST`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// One of the two words.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// `-`
    Stream,
    /// A path of this host.
    Local(OsString),
    /// `NAME:PATH`
    Sandbox { name: String, path: OsString },
}

/// A path of this host, or a stream of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Local {
    /// Standard input or output, for a tar.
    Stream,
    /// A path as it was typed.
    Path(OsString),
}

/// What is to be copied where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// The sandbox's name or id.
    pub(crate) sandbox: String,
    /// The path in it, absolute: what does not begin with a slash is taken from the root.
    pub(crate) path: OsString,
    /// The other end.
    pub(crate) local: Local,
    /// Which of both is the source.
    pub(crate) direction: Direction,
}

/// The way that a copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From this host.
    In,
    /// To this host.
    Out,
}

/// Why two words say nothing that can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WordsError {
    /// Neither has the form `NAME:PATH`.
    #[error("neither side is in a sandbox; write one as NAME:PATH")]
    NoSandbox,
    /// Both have.
    #[error(
        "both sides are in a sandbox; copy to this host first, or pass a tar from one `cellule cp` to the other"
    )]
    TwoSandboxes,
    /// There is nothing in front of the colon.
    #[error("{0:?} names no sandbox before its colon; a path of this host that has one is written as ./PATH")]
    NoName(OsString),
    /// The name is not text.
    #[error("{0:?} is not the name of a sandbox")]
    BadName(OsString),
    /// A path is empty.
    #[error("the path of the {0} is empty")]
    NoPath(&'static str),
}

impl Copy {
    /// Finds out what both words mean.
    ///
    /// # Errors
    /// They do not name one side in a sandbox and one here.
    pub(crate) fn parse(source: &OsStr, destination: &OsStr) -> Result<Self, WordsError> {
        let words = (word(source, "source")?, word(destination, "destination")?);
        let (name, path, local, direction) = match words {
            (Word::Sandbox { .. }, Word::Sandbox { .. }) => return Err(WordsError::TwoSandboxes),
            (Word::Sandbox { name, path }, local) => (name, path, local, Direction::Out),
            (local, Word::Sandbox { name, path }) => (name, path, local, Direction::In),
            _ => return Err(WordsError::NoSandbox),
        };
        let local = match local {
            Word::Local(path) => Local::Path(path),
            _ => Local::Stream,
        };
        Ok(Self { sandbox: name, path: absolute(&path), local, direction })
    }
}

/// Reads one word as Docker does: a path of this host is one without a colon, or one that begins with a slash or a dot.
fn word(text: &OsStr, side: &'static str) -> Result<Word, WordsError> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err(WordsError::NoPath(side));
    }
    if bytes == b"-" {
        return Ok(Word::Stream);
    }
    let colon = bytes.iter().position(|byte| *byte == b':');
    let Some(colon) = colon.filter(|_| !bytes.starts_with(b"/") && !bytes.starts_with(b".")) else {
        return Ok(Word::Local(text.to_owned()));
    };
    let (name, path) = (&bytes[..colon], &bytes[colon + 1..]);
    if name.is_empty() {
        return Err(WordsError::NoName(text.to_owned()));
    }
    let name =
        std::str::from_utf8(name).map_err(|_| WordsError::BadName(OsStr::from_bytes(name).to_owned()))?;
    if path.is_empty() {
        return Err(WordsError::NoPath(side));
    }
    Ok(Word::Sandbox { name: name.to_owned(), path: OsStr::from_bytes(path).to_owned() })
}

fn absolute(path: &OsStr) -> OsString {
    if path.as_bytes().starts_with(b"/") {
        return path.to_owned();
    }
    OsString::from_vec([b"/", path.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str, destination: &str) -> Result<Copy, WordsError> {
        Copy::parse(source.as_ref(), destination.as_ref())
    }

    fn copy(path: &str, local: Local, direction: Direction) -> Copy {
        Copy { sandbox: "box".to_owned(), path: path.into(), local, direction }
    }

    #[test]
    fn one_side_is_a_sandbox_and_the_other_here() {
        let path = |path: &str| Local::Path(path.into());
        for (source, destination, expected) in [
            ("box:/etc/hosts", "hosts", copy("/etc/hosts", path("hosts"), Direction::Out)),
            ("dir/", "box:/srv/", copy("/srv/", path("dir/"), Direction::In)),
            ("box:srv/.", ".", copy("/srv/.", path("."), Direction::Out)),
            ("box:/a:b", "-", copy("/a:b", Local::Stream, Direction::Out)),
            ("-", "box:/srv", copy("/srv", Local::Stream, Direction::In)),
            ("./box:b", "box:/b", copy("/b", path("./box:b"), Direction::In)),
            ("/box:b", "box:/b", copy("/b", path("/box:b"), Direction::In)),
            ("../a:b", "box:/b", copy("/b", path("../a:b"), Direction::In)),
        ] {
            assert_eq!(parse(source, destination), Ok(expected), "{source} {destination}");
        }
    }

    #[test]
    fn words_that_say_nothing_are_refused() {
        for (source, destination, expected) in [
            ("a", "b", WordsError::NoSandbox),
            ("-", "-", WordsError::NoSandbox),
            ("a:/x", "b:/y", WordsError::TwoSandboxes),
            (":/x", "y", WordsError::NoName(":/x".into())),
            ("a:", "y", WordsError::NoPath("source")),
            ("y", "a:", WordsError::NoPath("destination")),
            ("", "a:/x", WordsError::NoPath("source")),
        ] {
            assert_eq!(parse(source, destination), Err(expected), "{source} {destination}");
        }
        let name = OsStr::from_bytes(b"a\xff:/x");
        assert!(matches!(Copy::parse(name, "y".as_ref()), Err(WordsError::BadName(_))));
    }

    #[test]
    fn paths_are_any_bytes() {
        let path = OsStr::from_bytes(b"box:/a\xff");
        let copy = Copy::parse(path, OsStr::from_bytes(b"b\xfe")).unwrap();
        assert_eq!(copy.path.as_bytes(), b"/a\xff");
        assert_eq!(copy.local, Local::Path(OsStr::from_bytes(b"b\xfe").to_owned()));
    }
}
