//! The snapshots of one user: each a saved machine under the name that it was given.
//!
//! ```text
//!   draft ──saved into──▶ publish ──▶ there under its name ──▶ removed
//!     │ dropped                │ the name is taken
//!     ▼                        ▼
//!   nothing                 nothing
//! ```
//! Removing one harms nobody: whatever was started from it has its files under other names.

use std::path::{Path, PathBuf};

use crate::directory::{self, Unfinished, entries};
use crate::error::{Damage, Error};
use crate::files::{MANIFEST, SavedFiles};
use crate::name::SnapshotName;

/// A directory of snapshots.
#[derive(Debug, Clone)]
pub struct Snapshots {
    dir: PathBuf,
}

/// A snapshot as it lies there.
#[derive(Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// Its files, or what is wrong with them.
    pub files: Result<SavedFiles, Error>,
    /// Bytes that it takes on disk, what it shares with others left out.
    pub disk_bytes: u64,
}

/// A snapshot in the making. Dropped, nothing is left of it.
#[derive(Debug)]
pub struct SnapshotDraft {
    snapshots: Snapshots,
    dir: Unfinished,
}

impl Snapshots {
    /// The snapshots in `dir`, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Begins to make one.
    ///
    /// # Errors
    /// The directory cannot be made or written to.
    pub fn draft(&self) -> Result<SnapshotDraft, Error> {
        Ok(SnapshotDraft { snapshots: self.clone(), dir: Unfinished::begin(&self.dir)? })
    }

    /// The one of this name.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn find(&self, name: &SnapshotName) -> Result<SavedFiles, Error> {
        let dir = self.place(name);
        match SavedFiles::open(&dir) {
            Err(error) if error.is_missing() && !dir.exists() => Err(Error::NoSuchSnapshot(name.to_string())),
            Err(error) if error.is_missing() => {
                let source = std::io::ErrorKind::NotFound.into();
                Err(Error::Damaged { path: dir, damage: Damage::Unreadable { file: MANIFEST, source } })
            }
            found => found,
        }
    }

    /// All of them, the newest first, and those last that cannot be read.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Snapshot>, Error> {
        directory::sweep(&self.dir)?;
        let mut all = Vec::new();
        for path in entries(&self.dir)? {
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let Some(name) = name else { continue };
            let files = self.find(&name);
            if matches!(files, Err(Error::NoSuchSnapshot(_))) {
                continue;
            }
            let disk_bytes = match &files {
                Ok(files) => files.disk_bytes(),
                Err(_) => entries(&path)?.iter().map(|file| directory::disk_bytes(file)).sum(),
            };
            all.push(Snapshot { name, files, disk_bytes });
        }
        all.sort_by(|a, b| (b.saved_ns(), &b.name).cmp(&(a.saved_ns(), &a.name)));
        Ok(all)
    }

    /// Removes one. Returns the bytes that it took.
    ///
    /// # Errors
    /// There is none of this name, or it cannot be removed.
    pub fn remove(&self, name: &SnapshotName) -> Result<u64, Error> {
        let dir = self.place(name);
        let bytes = match self.find(name) {
            Ok(files) => files.disk_bytes(),
            Err(error @ Error::NoSuchSnapshot(_)) => return Err(error),
            Err(_) => entries(&dir)?.iter().map(|file| directory::disk_bytes(file)).sum(),
        };
        directory::remove(&dir)?;
        Ok(bytes)
    }

    /// A name that nothing has: `stem` and a number.
    fn free_name(&self, stem: &str) -> Result<SnapshotName, Error> {
        let taken: std::collections::HashSet<_> = entries(&self.dir)?
            .into_iter()
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect();
        let names = (1_u64..).map(|number| format!("{stem}-{number}"));
        let free = names.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
        free.parse().map_err(|_| Error::NoName(free))
    }

    fn place(&self, name: &SnapshotName) -> PathBuf {
        self.dir.join(name.as_str())
    }
}

impl Snapshot {
    /// When it was saved: wall clock, nanoseconds since 1970; the least of all if it cannot be read.
    pub fn saved_ns(&self) -> i64 {
        self.files.as_ref().map_or(i64::MIN, |files| files.manifest().saved_ns)
    }
}

impl SnapshotDraft {
    /// The empty directory that the machine is to be saved in.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What was saved in it.
    ///
    /// # Errors
    /// What is there is no saved machine.
    pub fn files(&self) -> Result<SavedFiles, Error> {
        SavedFiles::open(self.dir.path())
    }

    /// Gives what was saved its name.
    ///
    /// # Errors
    /// The name is taken, or what is there is no saved machine; then nothing is left of it.
    pub fn publish(self, name: &SnapshotName) -> Result<SavedFiles, Error> {
        self.put(name)?.map_err(|_taken| Error::NameTaken(name.to_string()))
    }

    /// Gives it `stem` and a number that nothing else has.
    ///
    /// # Errors
    /// `stem` cannot be the beginning of a name, or what is there is no saved machine; then nothing is left of it.
    pub fn publish_numbered(mut self, stem: &str) -> Result<(SnapshotName, SavedFiles), Error> {
        loop {
            let name = self.snapshots.free_name(stem)?;
            match self.put(&name)? {
                Ok(files) => return Ok((name, files)),
                // Somebody was faster.
                Err(draft) => self = draft,
            }
        }
    }

    /// Puts it in its place, or gives it back if something is there.
    fn put(self, name: &SnapshotName) -> Result<Result<SavedFiles, Self>, Error> {
        let files = self.files()?;
        let (snapshots, place) = (self.snapshots.clone(), self.snapshots.place(name));
        Ok(match self.dir.appear(&place)? {
            None => Ok(SavedFiles::at(place, files.manifest().clone())),
            Some(dir) => Err(Self { snapshots, dir }),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
