//! Directories that appear whole and disappear whole, by a rename.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::error::Error;
use crate::saving::sync_dir;

/// What is before the name of a directory that is being made or removed.
const TEMPORARY: &str = ".tmp-";

/// A directory in the making. Dropped, nothing is left of it; and what a process leaves that dies, the next one
/// [sweeps](sweep) away.
#[derive(Debug)]
pub(crate) struct Unfinished {
    dir: TempDir,
    /// Held for as long as somebody makes it.
    _alive: File,
}

impl Unfinished {
    /// Begins one in `parent`, which is made if it is missing.
    pub(crate) fn begin(parent: &Path) -> Result<Self, Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(Error::io("make", parent))?;
        sweep(parent)?;
        let dir = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(parent);
        let dir = dir.map_err(Error::io("make a directory in", parent))?;
        let alive = File::open(dir.path()).map_err(Error::io("open", dir.path()))?;
        // A sweep may have been faster, and then the directory is gone: what is made in it says so.
        try_lock(&alive).map_err(Error::io("lock", dir.path()))?;
        Ok(Self { dir, _alive: alive })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Gives it its name. If something has that name, it is given back.
    pub(crate) fn appear(self, place: &Path) -> Result<Option<Self>, Error> {
        match fs::rename(self.dir.path(), place) {
            Err(error) if is_taken(error.kind()) => return Ok(Some(self)),
            renamed => renamed.map_err(Error::io("put in place", place))?,
        }
        // There is nothing to be removed under its former name.
        _ = self.dir.keep();
        sync_dir(place.parent().unwrap_or(Path::new("/")))?;
        Ok(None)
    }
}

/// What a rename onto a directory that is there is refused with, by one file system or another.
fn is_taken(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

/// Removes what processes that died left half made, or half removed.
pub(crate) fn sweep(parent: &Path) -> Result<(), Error> {
    for path in entries(parent)? {
        let ours =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(TEMPORARY));
        let abandoned = || File::open(&path).is_ok_and(|dir| try_lock(&dir).unwrap_or(false));
        if ours && abandoned() {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether nobody else has it locked; then it is locked from now on, for as long as the file is open.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What is in a directory; nothing if it is not there.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("list", dir)(error)),
        Ok(entries) => {
            entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(Error::io("list", dir))
        }
    }
}

pub(crate) fn disk_bytes(file: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::symlink_metadata(file).map_or(0, |found| found.blocks() * 512)
}

/// Removes a directory that may be gone already. Under its name nobody ever sees a part of it, unless there is no room for
/// another name.
pub(crate) fn remove(dir: &Path) -> Result<(), Error> {
    let parent = dir.parent().unwrap_or(Path::new("/"));
    let moved = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(parent).and_then(|bin| {
        fs::rename(dir, bin.path().join("gone"))?;
        bin.close()
    });
    let removed = match moved {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.exists() => return Ok(()),
        // A sweep may have taken the other name away.
        Err(_) => fs::remove_dir_all(dir),
        Ok(()) => return Ok(()),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", dir)),
    }
}
