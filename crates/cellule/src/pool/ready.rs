//! Which machines of a pool are ready, for one process or for all of a user's.
//!
//! Told in a directory, each is a file with its id as the name. Whoever removes the file has the machine: nobody else can.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cellule_supervisor::SandboxId;
use tokio::sync::Notify;

use crate::Error;

/// How often a directory is looked at by whoever waits.
const LOOK: Duration = Duration::from_millis(10);

/// The machines that are ready; clones are the same.
#[derive(Debug, Clone)]
pub(super) enum Ready {
    Here(Arc<Here>),
    Told(PathBuf),
}

#[derive(Debug, Default)]
pub(super) struct Here {
    ids: Mutex<VecDeque<SandboxId>>,
    more: Notify,
}

impl Ready {
    pub(super) fn here() -> Self {
        Self::Here(Arc::default())
    }

    /// Told in a directory that is empty from now on.
    pub(super) fn told_in(dir: PathBuf) -> Result<Self, Error> {
        let clear = || -> io::Result<()> {
            fs::create_dir_all(&dir)?;
            for entry in fs::read_dir(&dir)? {
                fs::remove_file(entry?.path())?;
            }
            Ok(())
        };
        clear().map_err(|source| Error::Io { doing: format!("clear {}", dir.display()), source })?;
        Ok(Self::Told(dir))
    }

    pub(super) fn at(dir: PathBuf) -> Self {
        Self::Told(dir)
    }

    pub(super) fn put(&self, id: &SandboxId) -> io::Result<()> {
        match self {
            Self::Here(here) => {
                here.lock(|ids| ids.push_back(id.clone()));
                here.more.notify_one();
                Ok(())
            }
            Self::Told(dir) => File::create_new(dir.join(id.as_str())).map(drop),
        }
    }

    /// Takes this one; `false` if somebody else has.
    pub(super) fn remove(&self, id: &SandboxId) -> bool {
        match self {
            Self::Here(here) => here.lock(|ids| {
                let at = ids.iter().position(|ready| ready == id);
                at.and_then(|at| ids.remove(at)).is_some()
            }),
            Self::Told(dir) => fs::remove_file(dir.join(id.as_str())).is_ok(),
        }
    }

    /// Whether it waits for somebody.
    pub(super) fn has(&self, id: &SandboxId) -> bool {
        match self {
            Self::Here(here) => here.lock(|ids| ids.contains(id)),
            Self::Told(dir) => dir.join(id.as_str()).exists(),
        }
    }

    /// Takes the one that waits longest, as soon as there is one.
    pub(super) async fn take(&self) -> SandboxId {
        loop {
            match self {
                Self::Here(here) => {
                    let more = here.more.notified();
                    if let Some(id) = here.lock(VecDeque::pop_front) {
                        return id;
                    }
                    more.await;
                }
                Self::Told(dir) => {
                    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
                    let mut ids: Vec<SandboxId> = entries
                        .filter_map(|entry| SandboxId::try_from(entry.file_name().into_string().ok()?).ok())
                        .collect();
                    // Not all the same one, where many come at once.
                    ids.sort_unstable();
                    if let Some(id) = ids.into_iter().find(|id| self.remove(id)) {
                        return id;
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }
}

impl Here {
    fn lock<T>(&self, what: impl FnOnce(&mut VecDeque<SandboxId>) -> T) -> T {
        what(&mut self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> SandboxId {
        SandboxId::try_from(digit.to_string().repeat(12)).unwrap()
    }

    #[tokio::test]
    async fn each_is_taken_once_by_whoever_is_first() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("ready");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("left-by-a-former-keeper"), "").unwrap();
        for ready in [Ready::here(), Ready::told_in(dir).unwrap()] {
            ready.put(&id('a')).unwrap();
            ready.put(&id('b')).unwrap();
            assert!(ready.remove(&id('a')) && !ready.remove(&id('a')));
            assert_eq!(ready.take().await, id('b'));
            assert!(tokio::time::timeout(Duration::from_millis(50), ready.take()).await.is_err());
            let waiting = ready.clone();
            let waiting = tokio::spawn(async move { waiting.take().await });
            tokio::time::sleep(Duration::from_millis(20)).await;
            ready.put(&id('c')).unwrap();
            assert_eq!(waiting.await.unwrap(), id('c'));
        }
    }
}
