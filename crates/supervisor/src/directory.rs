//! The directory of one sandbox: who owns it, what is in it, how it comes and goes.
//!
//! ```text
//!  sandboxes/<id>/lock        locked while its supervisor lives, or the process that is starting one
//!  sandboxes/<id>/spec.json   what it is made of
//!  sandboxes/<id>/state.json  its state as last written: by its supervisor at each change, else by whoever holds the lock;
//!                             a reserve beside it takes the one that a full disk has no room for
//!  sandboxes/<id>/socket      where its supervisor listens while it lives
//!  sandboxes/<id>/saved/      the saved machine that it goes on from, if it is a fork or comes from a snapshot
//!  sandboxes/<id>/log/        main.log, agent.log, console.log (each with a former one, .1), supervisor.log
//!  sandboxes/<id>/…           what the engine needs while it runs
//!  sandboxes/.new-<id>        one that is being made, .gone-<id> one that is being removed: nobody's if its lock is free
//!  names/<name>               a symbolic link to the id: the one truth about names, changed under a lock of `names`
//!  events.jsonl               what happened to all of them
//! ```
//!
//! A directory appears whole and disappears whole, by a rename. The lock belongs to an open file that a starting
//! process passes to the supervisor; then the supervisor alone has it, so that the kernel frees it the moment that dies,
//! whatever its client does. A free lock below a state that lives is therefore a supervisor that was killed.

mod error;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

pub use self::error::DirectoryError;
use crate::document::{self, DocumentError};
use crate::journal::Action;
use crate::name::{SandboxId, SandboxName};
use crate::record::Record;
use crate::sandboxes::Sandboxes;
use crate::spec::SandboxSpec;

pub(crate) const LOCK: &str = "lock";
/// The directory of the saved machine within a sandbox's.
pub(crate) const SAVED: &str = "saved";
const SPEC: &str = "spec.json";
const STATE: &str = "state.json";
/// The directory of logs within a sandbox's.
pub const LOGS: &str = "log";
/// What is before the id of a directory that is being removed.
pub(crate) const GONE: &str = ".gone-";
/// What is before the id of a directory that is being made.
pub(crate) const NEW: &str = ".new-";

/// The directory of one sandbox, its lock held.
///
/// Dropping it lets go of the lock and leaves the directory: one that was just made is kept from then on.
#[derive(Debug)]
pub struct SandboxDir {
    sandboxes: Sandboxes,
    id: SandboxId,
    path: PathBuf,
    lock: Option<File>,
    dropped: Dropped,
}

/// What becomes of a directory whose handle is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dropped {
    /// It is as it is.
    Stays,
    /// It was just made, and is kept from then on.
    Kept,
    /// It was just made, for a sandbox that there is only once it is started.
    Removed,
}

impl SandboxDir {
    /// Makes the directory of a new sandbox beside its place: [`appear`](Self::appear) puts it there.
    pub(crate) fn make(sandboxes: &Sandboxes, spec: &SandboxSpec) -> Result<Self, DirectoryError> {
        let path = sandboxes.hidden_path(&spec.id);
        private_dir(&path, false).map_err(|source| DirectoryError::write(&path, source))?;
        // From here on a failure must leave nothing.
        let made = Self::fill(&path, spec);
        let lock = made.inspect_err(|_| drop(fs::remove_dir_all(&path)))?;
        Ok(Self {
            sandboxes: sandboxes.clone(),
            id: spec.id.clone(),
            path,
            lock: Some(lock),
            dropped: Dropped::Kept,
        })
    }

    fn fill(path: &Path, spec: &SandboxSpec) -> Result<File, DirectoryError> {
        let written = |name: &str, written: io::Result<()>| {
            written.map_err(|source| DirectoryError::write(&path.join(name), source))
        };
        let lock = new_lock(path).map_err(|source| DirectoryError::write(&path.join(LOCK), source))?;
        written(LOGS, private_dir(&path.join(LOGS), false))?;
        written(SPEC, document::write(path, SPEC, spec))?;
        written(STATE, document::write_reserved(path, STATE, &Record::created()))?;
        Ok(lock)
    }

    /// Has it removed if it is dropped before a supervisor has it.
    #[must_use]
    pub fn only_if_started(mut self) -> Self {
        self.dropped = Dropped::Removed;
        self
    }

    /// Renames the directory to its place.
    pub(crate) fn appear(&mut self) -> Result<(), DirectoryError> {
        let place = self.sandboxes.path_of(&self.id);
        fs::rename(&self.path, &place).map_err(|source| DirectoryError::write(&place, source))?;
        self.path = place;
        Ok(())
    }

    /// Removes one that never appeared.
    pub(crate) fn abandon(mut self) {
        self.dropped = Dropped::Stays;
        _ = fs::remove_dir_all(&self.path);
    }

    pub(crate) fn locked(sandboxes: &Sandboxes, id: SandboxId, lock: File) -> Self {
        let path = sandboxes.path_of(&id);
        Self { sandboxes: sandboxes.clone(), id, path, lock: Some(lock), dropped: Dropped::Stays }
    }

    /// Takes the directory over whose lock is already held through `lock`, as a supervisor does that was started with
    /// it, and reads what the sandbox is made of.
    ///
    /// # Errors
    /// There is no such directory, `lock` is not its lock or not held, or its `spec.json` is not one of this version's.
    pub fn adopt(path: &Path, lock: File) -> Result<(Self, SandboxSpec), DirectoryError> {
        let read = |source| DirectoryError::Read { path: path.to_path_buf(), source };
        let path = fs::canonicalize(path).map_err(read)?;
        let spec = read_spec(&path)?;
        if !is_held(&path, &lock).map_err(|source| DirectoryError::Read { path: path.join(LOCK), source })? {
            return Err(DirectoryError::NotLocked { path });
        }
        let home = path.ancestors().nth(2).unwrap_or(&path);
        let sandboxes = Sandboxes::at(home);
        let (id, lock) = (spec.id.clone(), Some(lock));
        Ok((Self { sandboxes, id, path, lock, dropped: Dropped::Stays }, spec))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the saved machine is to be that it goes on from, if its specification says that it does.
    pub fn saved(&self) -> PathBuf {
        self.path.join(SAVED)
    }

    /// Whose it is.
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// All sandboxes of the same home.
    pub fn sandboxes(&self) -> &Sandboxes {
        &self.sandboxes
    }

    /// The name that the sandbox has now.
    pub fn name(&self) -> Option<SandboxName> {
        self.sandboxes.name_of(&self.id)
    }

    /// Reads what the sandbox is made of.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn spec(&self) -> Result<SandboxSpec, DirectoryError> {
        read_spec(&self.path)
    }

    /// Changes what the sandbox is made of, for its next start.
    ///
    /// # Errors
    /// It is another sandbox's, or cannot be written.
    pub fn update_spec(&self, spec: &SandboxSpec) -> Result<(), DirectoryError> {
        let path = self.path.join(SPEC);
        if spec.id != self.id {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "of another sandbox");
            return Err(DirectoryError::Write { path, source });
        }
        document::write(&self.path, SPEC, spec).map_err(|source| DirectoryError::write(&path, source))
    }

    /// Reads the state of the sandbox.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn record(&self) -> Result<Record, DirectoryError> {
        read_record(&self.path)
    }

    /// Writes the state of the sandbox.
    pub(crate) fn write_record(&self, record: &Record) -> Result<(), DirectoryError> {
        write_record(&self.path, record)
    }

    /// The lock, for another process that the sandbox belongs to.
    pub(crate) fn share_lock(&self) -> io::Result<File> {
        self.lock.as_ref().ok_or(io::ErrorKind::NotFound)?.try_clone()
    }

    /// Lets go of our copy of the lock, which another process holds now.
    pub(crate) fn hand_over(&mut self) {
        self.dropped = Dropped::Stays;
        self.lock = None;
    }

    /// Frees the lock, whoever has a copy of it.
    pub(crate) fn unlock(&mut self) {
        if let Some(lock) = self.lock.take() {
            _ = flock(&lock, FlockOperation::Unlock);
        }
    }

    /// Removes the directory and the claim on its name. Nothing is an error that finds it gone already.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub fn remove(mut self) -> Result<(), DirectoryError> {
        self.dropped = Dropped::Stays;
        self.clear()
    }

    pub(crate) fn clear(&self) -> Result<(), DirectoryError> {
        if self.path != self.sandboxes.path_of(&self.id) {
            // It never appeared, so that nobody needs to hear of its end.
            return remove(&self.path);
        }
        let (name, spec) = (self.name(), read_spec(&self.path).ok());
        if let Some(spec) = &spec {
            self.sandboxes.networks().leave(&self.id, &spec.network.networks);
        }
        // Gone first and without its name then: the other way round a name would lead nowhere for a moment, and its
        // next owner could find it taken away.
        let gone = self.sandboxes.dir().join(format!("{GONE}{}", self.id));
        match fs::rename(&self.path, &gone) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(DirectoryError::write(&self.path, source)),
        }
        if let Some(name) = &name {
            self.sandboxes.release_name(name, &self.id);
        }
        remove(&gone)?;
        let image = spec.map(|spec| spec.image).unwrap_or_default();
        self.sandboxes.events().append(&self.id, name.as_ref(), &image, Action::Destroy, []);
        Ok(())
    }
}

impl Drop for SandboxDir {
    fn drop(&mut self) {
        match self.dropped {
            Dropped::Stays => {}
            Dropped::Kept => {
                if let Ok(mut record) = self.record() {
                    record.kept = true;
                    // If this fails, it is taken for half made, and removed.
                    _ = self.write_record(&record);
                }
            }
            // What stays of it is nobody's, and goes with the next look at all of them.
            Dropped::Removed => _ = self.clear(),
        }
    }
}

pub(crate) fn private_dir(path: &Path, parents: bool) -> io::Result<()> {
    DirBuilder::new().recursive(parents).mode(0o700).create(path)
}

fn new_lock(dir: &Path) -> io::Result<File> {
    let (path, temporary) = (dir.join(LOCK), dir.join(".lock"));
    // Under its name only once it is held: who sees it must not get it.
    let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(&temporary, &path)?;
    Ok(file)
}

/// The lock of a directory if nobody has it, `None` if somebody does.
pub(crate) fn try_lock(dir: &Path) -> io::Result<Option<File>> {
    let file = File::open(dir.join(LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether `lock` is the lock of the directory, and held through the open file that it is.
fn is_held(dir: &Path, lock: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (ours, theirs) = (lock.metadata()?, fs::metadata(dir.join(LOCK))?);
    if (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino()) || try_lock(dir)?.is_some() {
        return Ok(false);
    }
    // Somebody holds it. Only the holder can take it once more.
    Ok(flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// [`remove_all`], whose error names the directory.
pub(crate) fn remove(path: &Path) -> Result<(), DirectoryError> {
    remove_all(path).map_err(|source| DirectoryError::write(path, source))
}

/// Removes a directory with all that is in it, if it is there; others may be doing the same.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

pub(crate) fn read_spec(dir: &Path) -> Result<SandboxSpec, DirectoryError> {
    let path = dir.join(SPEC);
    let bytes = document::read(&path, SandboxSpec::LIMIT)
        .map_err(|source| DirectoryError::Read { path: path.clone(), source })?;
    let spec = SandboxSpec::parse(&bytes)
        .map_err(|source| DirectoryError::Damaged { path: path.clone(), source })?;
    if dir.file_name().and_then(|name| name.to_str()).is_none_or(|name| !name.ends_with(spec.id.as_str())) {
        return Err(DirectoryError::Damaged { path, source: DocumentError::Bounds { field: "id" } });
    }
    Ok(spec)
}

pub(crate) fn read_record(dir: &Path) -> Result<Record, DirectoryError> {
    let path = dir.join(STATE);
    let bytes = document::read(&path, Record::LIMIT)
        .map_err(|source| DirectoryError::Read { path: path.clone(), source })?;
    Record::parse(&bytes).map_err(|source| DirectoryError::Damaged { path, source })
}

pub(crate) fn write_record(dir: &Path, record: &Record) -> Result<(), DirectoryError> {
    document::write_reserved(dir, STATE, record)
        .map_err(|source| DirectoryError::write(&dir.join(STATE), source))
}

#[cfg(test)]
#[path = "directory/tests.rs"]
pub(crate) mod tests;
