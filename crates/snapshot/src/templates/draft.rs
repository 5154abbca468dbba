//! A template in the making.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use cellule_engine::SavedMachine;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tempfile::TempDir;

use super::{TEMPORARY, Templates, entries, remove_dir};
use crate::error::Error;
use crate::files::{SavedFiles, sync_dir};
use crate::key::TemplateKey;

/// What came of the wish to make a template.
#[derive(Debug)]
pub enum Making {
    /// It is this process's to make.
    Yours(Draft),
    /// It was made in the meantime.
    Made(SavedFiles),
    /// Another process makes it just now.
    Busy,
}

/// A template in the making, which no other process makes as long as this is there. Dropped, nothing is left of it.
#[derive(Debug)]
pub struct Draft {
    templates: Templates,
    key: TemplateKey,
    dir: TempDir,
    /// Held: see [`Templates::sweep`].
    _alive: File,
    _lock: File,
}

impl Templates {
    /// Begins to make the template of this, unless another process does or did.
    ///
    /// # Errors
    /// The directory cannot be made or written to.
    pub fn make(&self, key: &TemplateKey) -> Result<Making, Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(Error::io("make", &self.dir))?;
        let path = self.lock_file(&key.id());
        let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(Error::io("make", &path))?;
        if !try_lock(&lock).map_err(Error::io("lock", &path))? {
            return Ok(Making::Busy);
        }
        if let Some(files) = self.find(key)? {
            return Ok(Making::Made(files));
        }
        self.sweep()?;
        let dir = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&self.dir);
        let dir = dir.map_err(Error::io("make a directory in", &self.dir))?;
        let alive = File::open(dir.path()).map_err(Error::io("open", dir.path()))?;
        // A sweep may have been faster, and then the directory is gone: what is made in it says so.
        try_lock(&alive).map_err(Error::io("lock", dir.path()))?;
        Ok(Making::Yours(Draft {
            templates: self.clone(),
            key: key.clone(),
            dir,
            _alive: alive,
            _lock: lock,
        }))
    }

    /// Removes what makers that died left half made.
    ///
    /// # Errors
    /// The directory cannot be read, or something of it not removed.
    pub fn sweep(&self) -> Result<(), Error> {
        for path in entries(&self.dir)? {
            let ours = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(TEMPORARY));
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
}

impl Draft {
    /// An empty file for the memory.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn memory(&self) -> Result<File, Error> {
        SavedFiles::memory_file(self.dir.path())
    }

    /// Puts the template in use: `saved` has all of its memory in the file that [`memory`](Self::memory) gave. Others go if
    /// there is no room for all.
    ///
    /// # Errors
    /// It cannot be written; then nothing is left of it.
    pub fn publish(self, label: &str, saved: &SavedMachine) -> Result<SavedFiles, Error> {
        let id = self.key.id();
        let manifest = SavedFiles::write(self.dir.path(), &self.key, label, saved)?;
        let place = self.templates.ready(&id);
        // Only damage can be there: what can be used was found when this began.
        remove_dir(&place)?;
        remove_dir(&self.templates.failed(&id))?;
        let draft = self.dir.keep();
        let renamed = fs::rename(&draft, &place).map_err(Error::io("put in place", &place));
        if renamed.is_err() {
            _ = fs::remove_dir_all(&draft);
        }
        renamed?;
        sync_dir(&self.templates.dir)?;
        // It is there and can be used, whether or not others could be removed.
        _ = self.templates.make_room(&id);
        Ok(SavedFiles::at(place, manifest))
    }

    /// Where it is being made.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Whether nobody else has it locked; then it is locked from now on, for as long as the file is open.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
