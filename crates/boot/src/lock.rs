//! One setup at a time for each home: a second waits for the first, and finds its work done.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::progress::{OnProgress, Phase, Progress};
use crate::{Error, Result};

const POLL: Duration = Duration::from_millis(50);

/// Held until dropped; a process that dies lets go of it.
#[derive(Debug)]
pub(crate) struct SetupLock {
    _file: File,
}

impl SetupLock {
    /// Takes the lock, waiting at most `limit`.
    pub(crate) fn take(home: &Path, limit: Duration, on_progress: OnProgress<'_>) -> Result<Self> {
        let path = home.join("setup.lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::write(&path))?;
        let start = Instant::now();
        let mut told = false;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => (),
                Err(errno) => return Err(Error::write(&path)(errno.into())),
            }
            if start.elapsed() >= limit {
                return Err(Error::Locked { path, waited: limit });
            }
            if !std::mem::replace(&mut told, true) {
                on_progress(Progress::begin(Phase::WaitingForLock));
            }
            std::thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_second_setup_waits_and_gives_up_at_its_limit() {
        let home = tempfile::tempdir().unwrap();
        let first = SetupLock::take(home.path(), Duration::ZERO, &|_| ()).unwrap();
        let told = RefCell::new(Vec::new());
        let on_progress = |progress: Progress| told.borrow_mut().push(progress.phase);
        let error = SetupLock::take(home.path(), Duration::from_millis(120), &on_progress).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        assert_eq!(*told.borrow(), [Phase::WaitingForLock]);
        drop(first);
        SetupLock::take(home.path(), Duration::ZERO, &|_| ()).unwrap();
    }
}
