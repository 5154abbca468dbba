//! Where a copy goes, by Docker's rules. They are the same on both ways.
//!
//! | source | destination | result |
//! |---|---|---|
//! | file | absent | a file of that name |
//! | file | absent, with a slash at its end | refused |
//! | file | file | replaced |
//! | file | directory | in it, under the source's name |
//! | directory | absent | a directory of that name |
//! | directory | file | refused |
//! | directory | directory | in it, under the source's name |
//! | directory and `/.` | directory | its contents in it |

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// What is at the path of a source. A symbolic link is followed or not as [`follows`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// There is nothing.
    Absent,
    /// A directory.
    Directory,
    /// Anything else: a file, a link that is not followed, a FIFO.
    File,
}

/// What is at the path of a destination, symbolic links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// There is nothing, and the directory that it would be in is missing too.
    Nowhere,
    /// There is nothing, in a directory that is there.
    Absent,
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

/// Where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// A directory that is there.
    pub(crate) directory: OsString,
    /// The name in it; none for the contents of a directory, which go into it under their own.
    pub(crate) name: Option<OsString>,
}

/// Why a copy cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceError {
    /// The source is missing.
    #[error("{0:?} does not exist")]
    NoSource(OsString),
    /// The source's path says that it is a directory, and it is none.
    #[error("{0:?} is not a directory")]
    SourceNotDirectory(OsString),
    /// The destination's path says that it is a directory, and it is none.
    #[error("{0:?} is not a directory")]
    DestinationNotDirectory(OsString),
    /// The directory that the destination would be in is missing.
    #[error("the directory of {0:?} does not exist")]
    NoParent(OsString),
    /// The directory that a file is to be copied into is missing.
    #[error("the directory {0:?} does not exist")]
    NoDirectory(OsString),
    /// A directory cannot take a file's place.
    #[error("a directory cannot be copied onto {0:?}, which is none")]
    OntoFile(OsString),
}

/// Whether a source that is a symbolic link is followed: if asked (`-L`), or as the path says so by what it ends with.
pub(crate) fn follows(path: &OsStr, asked: bool) -> bool {
    asked || says_directory(path)
}

/// Finds the place. Both paths are absolute, and end as they were typed: a slash or `/.` at the end has a meaning.
///
/// # Errors
/// The rules refuse it.
pub(crate) fn place(
    source_path: &OsStr,
    source: Source,
    destination_path: &OsStr,
    destination: Destination,
) -> Result<Place, PlaceError> {
    match source {
        Source::Absent => return Err(PlaceError::NoSource(source_path.to_owned())),
        Source::File if says_directory(source_path) => {
            return Err(PlaceError::SourceNotDirectory(source_path.to_owned()));
        }
        _ => {}
    }
    match (source, destination) {
        (_, Destination::Directory) => {
            let contents = source_path.as_bytes().ends_with(b"/.");
            let name = if contents { None } else { split(source_path).map(|(_, name)| name) };
            Ok(Place { directory: destination_path.to_owned(), name })
        }
        (_, Destination::Nowhere) => Err(PlaceError::NoParent(destination_path.to_owned())),
        (Source::Directory, Destination::File) => Err(PlaceError::OntoFile(destination_path.to_owned())),
        (_, Destination::File) if says_directory(destination_path) => {
            Err(PlaceError::DestinationNotDirectory(destination_path.to_owned()))
        }
        (Source::File, Destination::Absent) if says_directory(destination_path) => {
            Err(PlaceError::NoDirectory(destination_path.to_owned()))
        }
        (_, Destination::Absent | Destination::File) => {
            let (directory, name) =
                split(destination_path).ok_or_else(|| PlaceError::NoParent(destination_path.to_owned()))?;
            Ok(Place { directory, name: Some(name) })
        }
    }
}

/// Finds the place of what a tar on standard input holds, which can only be unpacked into a directory.
///
/// # Errors
/// It is none.
pub(crate) fn place_of_stream(path: &OsStr, destination: Destination) -> Result<Place, PlaceError> {
    match destination {
        Destination::Directory => Ok(Place { directory: path.to_owned(), name: None }),
        Destination::File => Err(PlaceError::DestinationNotDirectory(path.to_owned())),
        Destination::Absent | Destination::Nowhere => Err(PlaceError::NoDirectory(path.to_owned())),
    }
}

fn says_directory(path: &OsStr) -> bool {
    without_end(path) != path
}

/// A path without the slashes, or slashes and dots, at its end, which say that it is a directory's. The root keeps its own.
pub(crate) fn without_end(path: &OsStr) -> &OsStr {
    let mut bytes = path.as_bytes();
    while bytes.len() > 1
        && let Some(shorter) = bytes.strip_suffix(b"/").or_else(|| bytes.strip_suffix(b"/."))
    {
        bytes = if shorter.is_empty() { b"/" } else { shorter };
    }
    OsStr::from_bytes(bytes)
}

/// The directory that an absolute path is in, and its name there, once `.` and `..` are taken out of it as text; none for
/// the root.
fn split(path: &OsStr) -> Option<(OsString, OsString)> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.as_bytes().split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => _ = names.pop(),
            name => names.push(name),
        }
    }
    let name = OsStr::from_bytes(names.pop()?).to_owned();
    let mut directory = OsString::from("/");
    directory.push(OsStr::from_bytes(&names.join(&b'/')));
    Some((directory, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(source_path: &str, source: Source, path: &str, destination: Destination) -> String {
        match place(source_path.as_ref(), source, path.as_ref(), destination) {
            Ok(Place { directory, name: Some(name) }) => {
                format!("{} in {}", name.to_str().unwrap(), directory.to_str().unwrap())
            }
            Ok(Place { directory, name: None }) => format!("contents in {}", directory.to_str().unwrap()),
            Err(error) => format!("{error:?}").split('(').next().unwrap().to_owned(),
        }
    }

    #[test]
    fn a_file_goes_where_docker_puts_it() {
        use Destination::{Absent, Directory, File, Nowhere};
        for (source, path, destination, expected) in [
            ("/a/f", "/b/g", Absent, "g in /b"),
            ("/a/f", "/b/g/", Absent, "NoDirectory"),
            ("/a/f", "/b/g/.", Absent, "NoDirectory"),
            ("/a/f", "/b/g/h", Nowhere, "NoParent"),
            ("/a/f", "/b/g", File, "g in /b"),
            ("/a/f", "/b/g/", File, "DestinationNotDirectory"),
            ("/a/f", "/b/g", Directory, "f in /b/g"),
            ("/a/f", "/b/g/", Directory, "f in /b/g/"),
            ("/a/f/", "/b", Directory, "SourceNotDirectory"),
            ("/a/f/.", "/b", Directory, "SourceNotDirectory"),
            ("/f", "/", Directory, "f in /"),
            ("/f", "/g", Absent, "g in /"),
        ] {
            assert_eq!(placed(source, Source::File, path, destination), expected, "{source} {path}");
        }
    }

    #[test]
    fn a_directory_goes_where_docker_puts_it() {
        use Destination::{Absent, Directory, File, Nowhere};
        for (source, path, destination, expected) in [
            ("/a/d", "/b/e", Absent, "e in /b"),
            ("/a/d/", "/b/e/", Absent, "e in /b"),
            ("/a/d/.", "/b/e", Absent, "e in /b"),
            ("/a/d", "/b/e/f", Nowhere, "NoParent"),
            ("/a/d", "/b/e", File, "OntoFile"),
            ("/a/d/.", "/b/e", File, "OntoFile"),
            ("/a/d", "/b", Directory, "d in /b"),
            ("/a/d/", "/b", Directory, "d in /b"),
            ("/a/d/.", "/b", Directory, "contents in /b"),
            ("/", "/b", Directory, "contents in /b"),
            ("/a/b/..", "/c", Directory, "a in /c"),
            ("/a/..", "/c", Directory, "contents in /c"),
            ("/a//d//", "/b", Directory, "d in /b"),
        ] {
            assert_eq!(placed(source, Source::Directory, path, destination), expected, "{source} {path}");
        }
    }

    #[test]
    fn nothing_goes_nowhere() {
        assert_eq!(placed("/a", Source::Absent, "/b", Destination::Directory), "NoSource");
    }

    #[test]
    fn a_stream_needs_a_directory() {
        let placed = |destination| place_of_stream("/b".as_ref(), destination);
        assert_eq!(placed(Destination::Directory), Ok(Place { directory: "/b".into(), name: None }));
        assert_eq!(placed(Destination::File), Err(PlaceError::DestinationNotDirectory("/b".into())));
        assert_eq!(placed(Destination::Absent), Err(PlaceError::NoDirectory("/b".into())));
        assert_eq!(placed(Destination::Nowhere), Err(PlaceError::NoDirectory("/b".into())));
    }

    #[test]
    fn a_link_is_followed_if_asked_or_named_as_a_directory() {
        assert!(!follows("/a".as_ref(), false));
        assert!(follows("/a".as_ref(), true));
        assert!(follows("/a/".as_ref(), false));
        assert!(follows("/a/.".as_ref(), false));
    }

    #[test]
    fn the_end_of_a_path_is_what_says_that_it_is_a_directorys() {
        for (path, without) in [
            ("/a/", "/a"),
            ("/a/.", "/a"),
            ("/a//././", "/a"),
            ("/a.", "/a."),
            ("/", "/"),
            ("/.", "/"),
            ("//", "/"),
        ] {
            assert_eq!(without_end(path.as_ref()), without, "{path}");
        }
    }
}
