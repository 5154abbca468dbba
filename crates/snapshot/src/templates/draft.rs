//! A template in the making.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use cellule_engine::SavedMachine;

use super::Templates;
use crate::directory::{self, Unfinished, try_lock};
use crate::error::Error;
use crate::files::{SavedFiles, Subject, TemplateSubject};
use crate::key::TemplateKey;
use crate::saving::{Durability, Extent, Saving};

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
    saving: Saving,
    dir: Unfinished,
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
        let dir = Unfinished::begin(&self.dir)?;
        let saving = Saving::begin(dir.path(), None, Extent::Whole)?;
        Ok(Making::Yours(Draft { templates: self.clone(), key: key.clone(), saving, dir, _lock: lock }))
    }

    /// Removes what makers that died left half made.
    ///
    /// # Errors
    /// The directory cannot be read, or something of it not removed.
    pub fn sweep(&self) -> Result<(), Error> {
        directory::sweep(&self.dir)
    }
}

impl Draft {
    /// An empty file for the memory.
    ///
    /// # Errors
    /// Its descriptor cannot be copied.
    pub fn memory(&self) -> Result<File, Error> {
        self.saving.memory()
    }

    /// Keeps the machine's scratch disk too, as it is now: the machine stands still meanwhile.
    ///
    /// # Errors
    /// It cannot be read, or there is no room for it.
    pub fn copy_disk(&mut self, disk: &File) -> Result<(), Error> {
        self.saving.copy_disk(disk)
    }

    /// Puts the template in use: `saved` has all of its memory in the file that [`memory`](Self::memory) gave. Others go if
    /// there is no room for all.
    ///
    /// # Errors
    /// It cannot be written; then nothing is left of it.
    pub fn publish(self, label: &str, saved: &SavedMachine) -> Result<SavedFiles, Error> {
        let id = self.key.id();
        let subject = Subject::Template(TemplateSubject { key: self.key, label: label.to_owned() });
        let manifest = self.saving.finish(subject, saved, Durability::Durable)?;
        let place = self.templates.ready(&id);
        // Only damage can be there: what can be used was found when this began.
        directory::remove(&place)?;
        directory::remove(&self.templates.failed(&id))?;
        if self.dir.appear(&place)?.is_some() {
            return Err(Error::NameTaken(id.to_string()));
        }
        // It is there and can be used, whether or not others could be removed.
        _ = self.templates.make_room(&id);
        Ok(SavedFiles::at(place, manifest))
    }

    /// Where it is being made.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}
