//! The right to make one file of the store, which one process at a time has.
//!
//! ```text
//!            target exists ───────────────────────────────────────────► Done
//!           /
//! claim ───<   tmp/<name> locked by another ──► wait, then claim again
//!           \                                                         commit
//!            tmp/<name> locked by us ──► Mine ──┬──────────────────────────► target exists
//!                 (may hold what a dead owner   │ drop (failure, cancelled)
//!                  had written: to be resumed)  └──────────────────────────► nothing is left
//!                                                 SIGKILL: the lock goes, the file stays, a waiter takes it over,
//!                                                 or the next `Store::open` removes it
//! ```

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Store, atomic, lock};
use crate::{Error, Event, Progress, Result};

/// What came of a claim.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Another has made the file.
    Done,
    /// It is ours to make.
    Mine(Partial),
}

/// A file in the making. It is removed when dropped, unless it was committed.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) file: File,
    path: PathBuf,
    target: PathBuf,
    committed: bool,
}

impl Partial {
    /// Makes the file complete: it gets its final name.
    pub(crate) fn commit(mut self) -> Result<()> {
        atomic::commit(&self.file, &self.path, &self.target)?;
        self.committed = true;
        Ok(())
    }

    /// The name that the file will have.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // The lock is still ours, so the path is too.
        if !self.committed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Store {
    /// Claims the making of `target`, waiting for another maker no longer than `wait`.
    pub(crate) async fn claim(
        &self,
        target: &Path,
        name: &str,
        wait: Duration,
        progress: &dyn Progress,
    ) -> Result<Claim> {
        let path = self.tmp_dir().join(name);
        let start = Instant::now();
        let mut told = false;
        loop {
            if let Some(claim) = try_claim(&path, target)? {
                return Ok(claim);
            }
            let waited = start.elapsed();
            if waited >= wait {
                return Err(Error::Locked { path, waited });
            }
            if !std::mem::replace(&mut told, true) {
                progress.event(Event::Waiting { what: name.into() });
            }
            tokio::time::sleep(lock::POLL).await;
        }
    }
}

/// One attempt; `None` if another has the claim, or the path changed hands in between.
fn try_claim(path: &Path, target: &Path) -> Result<Option<Claim>> {
    if target.exists() {
        return Ok(Some(Claim::Done));
    }
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = open.map_err(Error::io("create", path))?;
    if !lock::try_lock(&file, lock::Mode::Exclusive).map_err(Error::io("lock", path))?
        || !lock::is_at(&file, path)
    {
        return Ok(None);
    }
    let partial = Partial { file, path: path.into(), target: target.into(), committed: false };
    // The last owner may have committed between our two looks. Dropping the partial removes its name again.
    Ok(Some(if target.exists() { Claim::Done } else { Claim::Mine(partial) }))
}
