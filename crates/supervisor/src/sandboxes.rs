//! All sandboxes of a home: making, listing, finding and naming them.
//!
//! No call waits for a sandbox: locks are tried, and only the names' own, which is held for a few links, is waited for.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::directory::{DirectoryError, NEW, SandboxDir, private_dir, try_lock};
use crate::journal::{Action, Journal};
use crate::name::{SandboxId, SandboxName};
use crate::names;
use crate::networks::Networks;
use crate::record::Record;
use crate::recovery;
use crate::spec::SandboxSpec;

/// Where in a home names are.
pub(crate) const NAMES: &str = "names";
/// How long the lock of a sandbox that does not run may be in the hands of somebody who only looks at it.
const LOOK: Duration = Duration::from_millis(500);

/// Where a user's sandboxes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandboxes {
    root: PathBuf,
}

/// One sandbox, as its directory tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is made of.
    pub spec: SandboxSpec,
    /// The name that its user gave it.
    pub name: Option<SandboxName>,
    /// Its state.
    pub record: Record,
    /// Its directory.
    pub path: PathBuf,
}

impl Entry {
    /// Whether a supervisor owns it.
    pub fn is_live(&self) -> bool {
        self.record.state.is_live()
    }
}

/// What [`Sandboxes::survey`] found.
#[derive(Debug, Default)]
pub struct Survey {
    /// The sandboxes, the newest first.
    pub entries: Vec<Entry>,
    /// What is wrong with those that cannot be listed.
    pub damaged: Vec<DirectoryError>,
    /// How many were removed, since nobody keeps them.
    pub removed: usize,
}

/// Why a text means no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// None has this name, and no id begins so.
    #[error("there is no sandbox {text:?}")]
    NotFound {
        /// What was looked for.
        text: String,
    },
    /// Several ids begin so.
    #[error("{text:?} is what {} ids begin with", ids.len())]
    Ambiguous {
        /// What was looked for.
        text: String,
        /// The ids.
        ids: Vec<SandboxId>,
    },
    /// What it means cannot be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl Sandboxes {
    /// Those below a state directory, which is made if it is missing.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn open(home: &Path) -> Result<Self, DirectoryError> {
        let this = Self::at(home);
        for dir in [this.dir(), this.names()] {
            private_dir(&dir, true).map_err(|source| DirectoryError::write(&dir, source))?;
        }
        Ok(this)
    }

    pub(crate) fn at(home: &Path) -> Self {
        Self { root: home.to_path_buf() }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    pub(crate) fn names(&self) -> PathBuf {
        self.root.join(NAMES)
    }

    pub(crate) fn path_of(&self, id: &SandboxId) -> PathBuf {
        self.dir().join(id.as_str())
    }

    /// What they reach one another on.
    pub fn networks(&self) -> Networks {
        Networks::at(&self.root)
    }

    /// What happens to them.
    pub fn events(&self) -> Journal {
        Journal::at(&self.root)
    }

    /// Makes the directory of a new sandbox, which holds its lock and its name, and writes what it is made of.
    ///
    /// # Errors
    /// The name is taken, or the directory cannot be written.
    pub fn create(
        &self,
        spec: &SandboxSpec,
        name: Option<&SandboxName>,
    ) -> Result<SandboxDir, DirectoryError> {
        let mut dir = SandboxDir::make(self, spec)?;
        if let Err(error) = self.put(&mut dir, spec, name) {
            dir.abandon();
            return Err(error);
        }
        Ok(dir)
    }

    /// Makes the directory of a machine that is no sandbox yet, which holds its lock. Dropped before it is started, nothing is
    /// left of it.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn hidden(&self, spec: &SandboxSpec) -> Result<SandboxDir, DirectoryError> {
        Ok(SandboxDir::make(self, spec)?.only_if_started())
    }

    /// Where such a directory is, and that of a sandbox before it has its place.
    pub fn hidden_path(&self, id: &SandboxId) -> PathBuf {
        self.dir().join(format!("{NEW}{id}"))
    }

    /// Clears away what is left of such a directory, if nobody holds it.
    pub fn clear_hidden(&self, id: &SandboxId) {
        let path = self.hidden_path(id);
        if path.exists() {
            recovery::clear_remains(&path);
        }
    }

    /// Puts a directory that was just made in its place.
    pub(crate) fn put(
        &self,
        dir: &mut SandboxDir,
        spec: &SandboxSpec,
        name: Option<&SandboxName>,
    ) -> Result<(), DirectoryError> {
        self.place(dir, name)?;
        self.events().append(&spec.id, name, &spec.image, Action::Create, []);
        Ok(())
    }

    fn place(&self, dir: &mut SandboxDir, name: Option<&SandboxName>) -> Result<(), DirectoryError> {
        let Some(name) = name else { return dir.appear() };
        self.clear_owner(name);
        let _names = names::lock(&self.names())?;
        self.free(name, dir.id())?;
        dir.appear()?;
        names::bind(&self.names(), name, dir.id())
    }

    /// Makes sure that nobody else has a name. Under the lock of the names.
    fn free(&self, name: &SandboxName, for_id: &SandboxId) -> Result<(), DirectoryError> {
        match names::owner(&self.names(), name) {
            Some(owner) if owner != *for_id && self.path_of(&owner).exists() => {
                Err(DirectoryError::NameTaken { name: name.clone(), owner: owner.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Clears the owner of a name away if it was killed and nobody keeps it. Not under the lock of the names, which its
    /// removal takes.
    fn clear_owner(&self, name: &SandboxName) {
        if let Some(owner) = names::owner(&self.names(), name) {
            // What cannot be read is there, and keeps its name.
            _ = recovery::look(self, &owner);
        }
    }

    /// Gives a sandbox another name.
    ///
    /// # Errors
    /// The name is taken, or there is no such sandbox.
    pub fn rename(&self, id: &SandboxId, to: &SandboxName) -> Result<(), DirectoryError> {
        let spec = crate::directory::read_spec(&self.path_of(id)).map_err(|error| {
            if error.is_gone() { DirectoryError::NotFound { id: id.clone() } } else { error }
        })?;
        self.clear_owner(to);
        let former = {
            let _names = names::lock(&self.names())?;
            self.free(to, id)?;
            let former = names::of(&self.names(), id);
            names::bind(&self.names(), to, id)?;
            if let Some(former) = former.as_ref().filter(|former| *former != to) {
                names::unbind(&self.names(), former, id);
            }
            former
        };
        let before = former.map(|name| ("oldName", name.to_string()));
        self.events().append(id, Some(to), &spec.image, Action::Rename, before);
        Ok(())
    }

    /// The name of a sandbox, if it has one.
    pub fn name_of(&self, id: &SandboxId) -> Option<SandboxName> {
        names::of(&self.names(), id)
    }

    /// Takes the name of a sandbox away that is gone.
    pub(crate) fn release_name(&self, name: &SandboxName, id: &SandboxId) {
        // A link that stays leads nowhere, and is anybody's.
        if let Ok(_names) = names::lock(&self.names()) {
            names::unbind(&self.names(), name, id);
        }
    }

    /// All of them, the newest first. What killed supervisors left is cleared away on the way, and one that cannot be
    /// read is left out: [`survey`](Self::survey) tells of it.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, DirectoryError> {
        Ok(self.survey()?.entries)
    }

    /// Removes what nobody keeps: what killed supervisors left, what was half made or half removed, what is older than
    /// it may become. Tells how many there were. Running ones are not disturbed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn sweep(&self) -> Result<usize, DirectoryError> {
        let removed = self.survey()?.removed;
        names::sweep(self)?;
        Ok(removed)
    }

    /// All of them, with what is wrong with those that are not right.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn survey(&self) -> Result<Survey, DirectoryError> {
        let mut survey = Survey::default();
        let names = names::all(&self.names());
        for found in self.found()? {
            let id = match found {
                Found::Sandbox(id) => id,
                Found::Remains(path) => {
                    survey.removed += usize::from(recovery::clear_remains(&path));
                    continue;
                }
            };
            match recovery::look(self, &id) {
                Ok(Some((spec, record))) => {
                    let (name, path) = (names.get(&id).cloned(), self.path_of(&id));
                    survey.entries.push(Entry { spec, name, record, path });
                }
                Ok(None) => survey.removed += 1,
                // Gone while we looked.
                Err(error) if error.is_gone() && !self.path_of(&id).exists() => {}
                Err(error) => survey.damaged.push(error),
            }
        }
        let order = |entry: &Entry| (std::cmp::Reverse(entry.spec.created_ns), entry.spec.id.clone());
        survey.entries.sort_by_cached_key(order);
        Ok(survey)
    }

    fn found(&self) -> Result<Vec<Found>, DirectoryError> {
        let dir = self.dir();
        let read = |source| DirectoryError::Read { path: dir.clone(), source };
        let mut all = Vec::new();
        for entry in fs::read_dir(&dir).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Ok(id) = SandboxId::try_from(name.clone()) {
                all.push(Found::Sandbox(id));
            } else if recovery::is_remains(&name) {
                all.push(Found::Remains(entry.path()));
            }
        }
        Ok(all)
    }

    /// The sandbox of this name, or the one whose id begins so. A name wins over an id.
    ///
    /// # Errors
    /// There is none, several ids begin so, or it cannot be read.
    pub fn find(&self, text: &str) -> Result<Entry, FindError> {
        let named =
            SandboxName::try_from(text.to_owned()).ok().and_then(|name| names::owner(&self.names(), &name));
        if let Some(entry) = named.map(|id| self.entry(&id)).transpose()?.flatten() {
            return Ok(entry);
        }
        let not_found = || FindError::NotFound { text: text.to_owned() };
        if text.is_empty() {
            return Err(not_found());
        }
        let mut ids: Vec<SandboxId> = self
            .found()?
            .into_iter()
            .filter_map(|found| match found {
                Found::Sandbox(id) if id.as_str().starts_with(text) => Some(id),
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        match ids.as_slice() {
            [id] => self.entry(id)?.ok_or_else(not_found),
            [] => Err(not_found()),
            _ => Err(FindError::Ambiguous { text: text.to_owned(), ids }),
        }
    }

    /// One that is there, and kept.
    fn entry(&self, id: &SandboxId) -> Result<Option<Entry>, DirectoryError> {
        match recovery::look(self, id) {
            Ok(Some((spec, record))) => {
                let (name, path) = (self.name_of(id), self.path_of(id));
                Ok(Some(Entry { spec, name, record, path }))
            }
            Ok(None) => Ok(None),
            Err(error) if error.is_gone() && !self.path_of(id).exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock of a sandbox that does not run, to start or remove it.
    ///
    /// # Errors
    /// Somebody else has it: [`DirectoryError::Busy`]. There is no such sandbox.
    pub fn lock(&self, id: &SandboxId) -> Result<SandboxDir, DirectoryError> {
        let path = self.path_of(id);
        let begun = Instant::now();
        loop {
            match try_lock(&path) {
                Ok(Some(lock)) if path.exists() => return Ok(SandboxDir::locked(self, id.clone(), lock)),
                Ok(Some(_)) => return Err(DirectoryError::NotFound { id: id.clone() }),
                // Somebody who looks whether its supervisor was killed has it for an instant.
                Ok(None) if begun.elapsed() < LOOK && !seems_live(&path) => {
                    thread::sleep(Duration::from_millis(5));
                }
                Ok(None) => return Err(DirectoryError::Busy { id: id.clone() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(DirectoryError::NotFound { id: id.clone() });
                }
                Err(source) => return Err(DirectoryError::Read { path, source }),
            }
        }
    }
}

fn seems_live(path: &Path) -> bool {
    crate::directory::read_record(path).is_ok_and(|record| record.state.is_live())
}

enum Found {
    Sandbox(SandboxId),
    Remains(PathBuf),
}

/// The names of all sandboxes.
pub(crate) type Names = HashMap<SandboxId, SandboxName>;
