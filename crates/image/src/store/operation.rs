//! One operation's scratch directory, and the list of files that it relies on.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Store, entries, lock, lock::Mode};
use crate::{Digest, Error, Result};

const PINS: &str = "pins";

/// A pull, import or load in progress. What it pins is not pruned; its directory goes with the last clone of it.
#[derive(Debug, Clone)]
pub(crate) struct Operation(Arc<Scratch>);

#[derive(Debug)]
struct Scratch {
    dir: PathBuf,
    /// Keeps the directory locked, by which others see that the operation lives.
    _lock: File,
}

impl Operation {
    pub(crate) fn begin(store: &Store) -> Result<Self> {
        let tmp = store.tmp_dir();
        // A sweeper that sees the directory before it is locked removes it; then another one is made. A sweeper holds
        // a lock only for the removal, so it cannot win forever.
        lock::poll(&tmp, super::STORE_LOCK_WAIT, || {
            let made = tempfile::Builder::new().prefix("op-").tempdir_in(&tmp);
            let made = made.map_err(Error::io("create a directory in", &tmp))?;
            let Ok(Some(lock)) = lock::try_exclusive(made.path()) else { return Ok(None) };
            Ok(Some(Self(Arc::new(Scratch { dir: made.keep(), _lock: lock }))))
        })
    }

    /// A path for a temporary file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.dir.join(name)
    }

    pub(crate) fn pin_blobs<'a>(
        &self,
        store: &Store,
        digests: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<()> {
        self.pin(store, digests.into_iter().map(|digest| store.blob_path(digest)))
    }

    /// From now on these files stay, if they are there. Whether they are is to be looked at afterwards.
    pub(super) fn pin(&self, store: &Store, files: impl IntoIterator<Item = PathBuf>) -> Result<()> {
        let mut text = String::new();
        for file in files {
            let relative = file.strip_prefix(&store.root).unwrap_or(&file);
            text.push_str(&relative.to_string_lossy());
            text.push('\n');
        }
        let path = self.0.dir.join(PINS);
        let _lock = store.lock(Mode::Shared)?;
        let open = OpenOptions::new().create(true).append(true).open(&path);
        open.and_then(|mut pins| pins.write_all(text.as_bytes())).map_err(Error::io("write", &path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Store {
    /// What all living operations have pinned. Needs the exclusive lock of the store.
    pub(super) fn pinned(&self) -> Result<BTreeSet<PathBuf>> {
        let mut pinned = BTreeSet::new();
        for dir in entries(&self.tmp_dir())?.iter().filter(|path| path.is_dir()) {
            // A dead operation's directory may go; no process is to see its pins.
            if matches!(lock::try_exclusive(dir), Ok(Some(_))) {
                continue;
            }
            if let Ok(text) = fs::read_to_string(dir.join(PINS)) {
                pinned.extend(text.lines().map(|line| self.root.join(Path::new(line))));
            }
        }
        Ok(pinned)
    }
}
