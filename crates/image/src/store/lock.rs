//! `flock` on files and directories, never waited for in the kernel, so that each wait has a limit.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;

use super::Store;
use crate::{Error, Result};

/// How often a lock is tried while it is waited for.
pub(crate) const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

/// Locks an open file or directory until it is closed; `false` if another has it.
pub(crate) fn try_lock(file: &File, mode: Mode) -> io::Result<bool> {
    let operation = match mode {
        Mode::Shared => FlockOperation::NonBlockingLockShared,
        Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    loop {
        match rustix::fs::flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens and locks what is at `path`; `None` if another has the lock, or has just removed or replaced the path.
pub(crate) fn try_exclusive(path: &Path) -> io::Result<Option<File>> {
    let file = File::open(path)?;
    Ok((try_lock(&file, Mode::Exclusive)? && is_at(&file, path)).then_some(file))
}

/// Whether `path` still leads to the open `file`.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => open.dev() == named.dev() && open.ino() == named.ino(),
        _ => false,
    }
}

/// Calls `attempt` until it returns something, but no longer than `wait`.
pub(crate) fn poll<T>(
    path: &Path,
    wait: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        let waited = start.elapsed();
        if waited >= wait {
            return Err(Error::Locked { path: path.into(), waited });
        }
        std::thread::sleep(POLL);
    }
}

impl Store {
    /// Locks the whole store until the returned directory is closed.
    pub(super) fn lock(&self, mode: Mode) -> Result<File> {
        let dir = File::open(&self.root).map_err(Error::io("open", &*self.root))?;
        poll(&self.root, super::STORE_LOCK_WAIT, || {
            Ok(try_lock(&dir, mode).map_err(Error::io("lock", &*self.root))?.then_some(()))
        })?;
        Ok(dir)
    }
}
