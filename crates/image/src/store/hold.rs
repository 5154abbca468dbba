//! A root filesystem that is in use.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::lock::{self, Mode};
use crate::{Error, Result};

/// How long a look at whether a root filesystem is used may keep us waiting.
const LOOK: Duration = Duration::from_secs(5);

/// Keeps a root filesystem from being removed for as long as a clone of it, in any process, is open.
///
/// It is a shared lock on the file, so it ends with its process, however that ends.
#[derive(Debug, Clone)]
pub struct Hold {
    file: Arc<File>,
    path: PathBuf,
}

impl Hold {
    /// Holds the root filesystem at `path`.
    ///
    /// # Errors
    ///
    /// If there is none, or it is being removed.
    pub fn take(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        // Whoever looks whether it is used has the lock for a moment.
        lock::poll(path, LOOK, || {
            let locked = lock::try_lock(&file, Mode::Shared).map_err(Error::io("lock", path))?;
            if lock::is_at(&file, path) {
                return Ok(locked.then_some(()));
            }
            let gone = std::io::Error::new(std::io::ErrorKind::NotFound, "it has just been removed");
            Err(Error::io("open", path)(gone))
        })?;
        Ok(Self { file: Arc::new(file), path: path.into() })
    }

    /// The path of the root filesystem.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Hold {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
