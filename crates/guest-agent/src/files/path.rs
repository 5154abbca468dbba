//! Owns paths as they come in requests: what is no path is refused, and what a path leads to is found without opening it.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::failure::{At, Failure};
use super::meta::Meta;

/// The kernel's own limit, the closing NUL left out.
const MAX_PATH: usize = 4095;
/// Links on the way to one file, as the kernel has it.
const MAX_LINKS: usize = 40;

/// Flags for a directory that is only a place to begin at.
pub(super) const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Flags for a directory to be read.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// Flags that keep an open from waiting or from taking a terminal, whatever is there.
pub(super) const HARMLESS: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A path of a request, absolute and of a length that the kernel takes.
#[derive(Debug, Clone)]
pub(super) struct GuestPath(CString);

/// A name in a directory that is there; the name itself may be of nothing yet.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: CString,
}

impl GuestPath {
    pub(super) fn new(doing: &str, path: Vec<u8>) -> Result<Self, Failure> {
        if !path.starts_with(b"/") {
            return Err(Failure::invalid(doing, &path, "is not an absolute path"));
        }
        if path.len() > MAX_PATH {
            return Err(Failure::because(doing, &path, Errno::NAMETOOLONG, "is too long for a path"));
        }
        match CString::new(path) {
            Ok(path) => Ok(Self(path)),
            Err(error) => Err(Failure::invalid(doing, &error.into_vec(), "has a NUL byte")),
        }
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        &self.0
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The directory that holds it, and its name there, which is not followed.
    pub(super) fn place(&self, doing: &str) -> Result<Place, Failure> {
        let (directory, name) = split(self.as_bytes());
        let Some(name) = name else {
            return Err(Failure::because(doing, self.as_bytes(), Errno::INVAL, "is no name in a directory"));
        };
        let directory = openat(CWD, directory, PLACE, Mode::empty()).at(doing, self.as_bytes())?;
        Ok(Place { directory, name })
    }

    /// The same behind all links: where a write to this path ends up, and what is there.
    pub(super) fn destination(&self, doing: &str) -> Result<(Place, Option<Meta>), Failure> {
        let failed = |errno| Err(errno).at(doing, self.as_bytes());
        if self.as_bytes().ends_with(b"/") {
            return Err(Failure::because(doing, self.as_bytes(), Errno::ISDIR, "is a directory"));
        }
        let mut place = self.place(doing)?;
        for _ in 0..MAX_LINKS {
            let meta = match Meta::at(&place.directory, &place.name) {
                Ok(meta) => meta,
                Err(Errno::NOENT) => return Ok((place, None)),
                Err(errno) => return failed(errno),
            };
            if meta.kind() != FileType::Symlink {
                return Ok((place, Some(meta)));
            }
            let target = readlinkat(&place.directory, &place.name, Vec::new()).at(doing, self.as_bytes())?;
            let (directory, name) = split(target.as_bytes());
            let directory = if directory.is_empty() { b"." } else { directory };
            let directory =
                openat(&place.directory, directory, PLACE, Mode::empty()).at(doing, self.as_bytes())?;
            let Some(name) = name else { return failed(Errno::ISDIR) };
            place = Place { directory, name };
        }
        failed(Errno::LOOP)
    }
}

/// Splits the last name off; none where there is none that could be made or removed.
fn split(path: &[u8]) -> (&[u8], Option<CString>) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let start = path[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let name = &path[start..end];
    let name = (!name.is_empty() && name != b"." && name != b"..").then(|| CString::new(name).ok());
    (&path[..start], name.flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_is_told_from_its_directory() {
        let name = |name: &CStr| Some(name.to_owned());
        assert_eq!(split(b"/a/b"), (&b"/a/"[..], name(c"b")));
        assert_eq!(split(b"/a"), (&b"/"[..], name(c"a")));
        assert_eq!(split(b"/a/b//"), (&b"/a/"[..], name(c"b")));
        assert_eq!(split(b"b"), (&b""[..], name(c"b")));
        for nameless in [&b"/"[..], b"//", b"/a/.", b"/a/..", b"/..", b""] {
            assert_eq!(split(nameless).1, None, "{nameless:?}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for bad in [&b""[..], b"a", b"./a", b"/a\0b", &[b'/'; 4096]] {
            GuestPath::new("open", bad.to_vec()).unwrap_err();
        }
        GuestPath::new("open", b"/\xFF".to_vec()).unwrap();
    }
}
