//! Directories below one that is open, reached without going through a symbolic link.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::{Errno, Result};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The permissions of a directory that an archive does not mention, before the process's mask.
const MODE: u32 = 0o755;

/// An open directory, and the one below it that was asked for last: what an archive holds mostly comes by directories.
///
/// Paths below are relative and without empty, `.` and `..` components; the directory itself is the empty one.
pub(super) struct Beneath {
    root: OwnedFd,
    last: Option<(Box<[u8]>, Rc<OwnedFd>)>,
}

impl Beneath {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self { root, last: None })
    }

    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// It is missing, or `LOOP`: a symbolic link is on the way.
    pub(super) fn directory(&self, path: &[u8]) -> Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, DIRECTORY, Mode::empty(), resolve)
    }

    /// Opens the directory at `path`, and makes it and those above it as far as they are missing.
    ///
    /// # Errors
    /// As [`directory`](Self::directory), and whatever forbids to make one.
    pub(super) fn make_directory(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if let Some((last, directory)) = &self.last
            && **last == *path
        {
            return Ok(Rc::clone(directory));
        }
        let directory = match self.directory(path) {
            Err(Errno::NOENT) => self.make_directories(path)?,
            other => other?,
        };
        let directory = Rc::new(directory);
        self.last = Some((path.into(), Rc::clone(&directory)));
        Ok(directory)
    }

    fn make_directories(&self, path: &[u8]) -> Result<OwnedFd> {
        let mut directory = self.directory(b"")?;
        for name in path.split(|byte| *byte == b'/') {
            match mkdirat(&directory, name, Mode::from_raw_mode(MODE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            directory = openat(&directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(directory)
    }
}
