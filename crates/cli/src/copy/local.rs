//! What is at the paths of this host, as [`place`](super::place::place) asks for it.

use std::ffi::{OsStr, OsString};
use std::fs::{metadata, symlink_metadata};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::place::{Destination, Source, follows, without_end};

/// Looks at a source. Gives its absolute path, which ends as it was typed.
///
/// # Errors
/// It cannot be looked at, for another reason than that it is missing.
pub(crate) fn source(path: &OsStr, follow: bool) -> io::Result<(OsString, Source)> {
    let path = absolute(path)?;
    let looked = if follows(&path, follow) { metadata(&path) } else { symlink_metadata(&path) };
    let kind = match looked {
        Ok(there) if there.is_dir() => Source::Directory,
        Ok(_) => Source::File,
        Err(error) if error.kind() == ErrorKind::NotFound => Source::Absent,
        // A file whose path ends with a slash, or goes on below it.
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            if symlink_metadata(without_end(&path)).is_ok() { Source::File } else { Source::Absent }
        }
        Err(error) => return Err(error),
    };
    Ok((path, kind))
}

/// Looks at a destination. Gives its absolute path, which ends as it was typed; where that matters, symbolic links in it are
/// followed.
///
/// # Errors
/// It cannot be looked at, for another reason than that it is missing.
pub(crate) fn destination(path: &OsStr) -> io::Result<(OsString, Destination)> {
    let path = absolute(path)?;
    match metadata(&path) {
        Ok(there) if there.is_dir() => Ok((path, Destination::Directory)),
        // A link to a file means that file.
        Ok(_) => Ok((Path::new(&path).canonicalize()?.into_os_string(), Destination::File)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            if metadata(without_end(&path)).is_ok() {
                return Ok((path, Destination::File));
            }
            let typed = Path::new(&path);
            let (Some(parent), Some(name)) = (typed.parent(), typed.file_name()) else {
                return Ok((path, Destination::Nowhere));
            };
            let Some(mut resolved) = parent.canonicalize().ok().filter(|parent| parent.is_dir()) else {
                return Ok((path, Destination::Nowhere));
            };
            resolved.push(name);
            let mut resolved = resolved.into_os_string();
            resolved.push(ending(&path));
            Ok((resolved, Destination::Absent))
        }
        Err(error) => Err(error),
    }
}

fn absolute(path: &OsStr) -> io::Result<OsString> {
    Ok(std::env::current_dir()?.join(path).into_os_string())
}

/// The slash, or slash and dot, that says that a path is a directory's.
fn ending(path: &OsStr) -> &'static str {
    if without_end(path) == path { "" } else { "/" }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn sources_are_what_they_are_and_links_are_followed_if_asked() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name).into_os_string();
        fs::create_dir(path("d")).unwrap();
        fs::write(path("f"), "").unwrap();
        symlink("d", path("l")).unwrap();
        symlink("missing", path("dangling")).unwrap();
        let kind = |name, follow| source(&path(name), follow).unwrap().1;
        for (name, expected) in [
            ("d", Source::Directory),
            ("d/.", Source::Directory),
            ("f", Source::File),
            ("f/", Source::File),
            ("f/x", Source::Absent),
            ("l", Source::File),
            ("l/", Source::Directory),
            ("dangling", Source::File),
            ("missing", Source::Absent),
        ] {
            assert_eq!(kind(name, false), expected, "{name}");
        }
        assert_eq!(kind("l", true), Source::Directory);
        assert_eq!(kind("dangling", true), Source::Absent);
    }

    #[test]
    fn destinations_are_where_their_links_lead() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name).into_os_string();
        fs::create_dir_all(path("d/e")).unwrap();
        fs::write(path("d/f"), "").unwrap();
        symlink("d/f", path("file")).unwrap();
        symlink("d/e", path("link")).unwrap();
        for (name, at, expected) in [
            ("d", "d", Destination::Directory),
            ("link/.", "link/.", Destination::Directory),
            ("file", "d/f", Destination::File),
            ("d/f/", "d/f/", Destination::File),
            ("d/new", "d/new", Destination::Absent),
            ("d/new/", "d/new/", Destination::Absent),
            ("link/new", "d/e/new", Destination::Absent),
            // Not where the text alone would lead.
            ("link/../new", "d/new", Destination::Absent),
            ("missing/new", "missing/new", Destination::Nowhere),
            ("d/f/new", "d/f/new", Destination::Nowhere),
        ] {
            assert_eq!(destination(&path(name)).unwrap(), (path(at), expected), "{name}");
        }
    }

    #[test]
    fn a_relative_path_is_below_the_working_directory_and_ends_as_typed() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(source(".".as_ref(), false).unwrap(), (here.join(".").into(), Source::Directory));
        assert!(source("./".as_ref(), false).unwrap().0.to_str().unwrap().ends_with("/./"));
    }
}
