//! The directories of sandboxes: who owns one, what is in it, and how what was left behind is found.
//!
//! ```text
//!  sandboxes/<id>/lock       locked by the processes that the sandbox belongs to, as long as one of them lives
//!  sandboxes/<id>/spec.json  what it is made of, written whole
//!  sandboxes/<id>/…          what the engine and the supervisor need while it runs
//!  names/<name>              a symbolic link to the id: the claim on a name; changed under a lock of `names` itself
//! ```
//!
//! The lock belongs to an open file that the starting process and the supervisor share. It is released when both are
//! gone, however they went, so a directory whose lock can be taken is nobody's, and may be removed by anyone.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::spec::{FORMAT, SandboxId, SandboxName, SandboxSpec};

const LOCK: &str = "lock";
const SPEC: &str = "spec.json";
/// Far above any real document: a larger one is damage.
const SPEC_BYTES: u64 = 1 << 20;
/// How long to wait for whoever changes the names.
const NAMES_WAIT: Duration = Duration::from_secs(10);

/// Where a user's sandboxes are.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    root: PathBuf,
}

impl Sandboxes {
    /// Those below a state directory, which is made if it is missing.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn open(home: &Path) -> Result<Self, DirectoryError> {
        let this = Self { root: home.to_path_buf() };
        for dir in [this.sandboxes(), this.names()] {
            private_dir(&dir, true).map_err(|source| DirectoryError::Write { path: dir.clone(), source })?;
        }
        Ok(this)
    }

    fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Makes the directory of a new sandbox, which holds its lock and its name, and writes what it is made of.
    ///
    /// # Errors
    /// The name is taken, or the directory cannot be written.
    pub fn create(&self, spec: &SandboxSpec) -> Result<SandboxDir, DirectoryError> {
        let path = self.sandboxes().join(spec.id.as_str());
        private_dir(&path, false).map_err(|source| write_error(&path, source))?;
        // From here on a failure must leave nothing, and removing the directory is what `SandboxDir` does.
        let lock = new_lock(&path).inspect_err(|_| drop(fs::remove_dir_all(&path)))?;
        let dir = SandboxDir { path, names: self.names(), name: spec.name.clone(), lock };
        if let Some(name) = &spec.name
            && let Err(error) = self.claim(name, &spec.id)
        {
            return Err(SandboxDir { name: None, ..dir }.abandon(error));
        }
        match write_spec(&dir.path, spec) {
            Ok(()) => Ok(dir),
            Err(error) => Err(dir.abandon(error)),
        }
    }

    /// Binds a name to an id, or says whose it is.
    fn claim(&self, name: &SandboxName, id: &SandboxId) -> Result<(), DirectoryError> {
        let _names = lock_names(&self.names())?;
        let link = self.names().join(name.as_str());
        if let Ok(owner) = fs::read_link(&link) {
            if self.is_alive(&owner) {
                let owner = owner.display().to_string();
                return Err(DirectoryError::NameTaken { name: name.clone(), owner });
            }
            fs::remove_file(&link).map_err(|source| write_error(&link, source))?;
        }
        symlink(id.as_str(), &link).map_err(|source| write_error(&link, source))
    }

    fn is_alive(&self, id: &Path) -> bool {
        // A link that leads out of the directory is nobody's claim.
        let inside = id.components().count() == 1 && id.file_name().is_some();
        inside && matches!(try_lock(&self.sandboxes().join(id)), Ok(None))
    }

    /// Removes what sandboxes left that are no more, and tells how many there were. Running ones are not disturbed.
    ///
    /// # Errors
    /// The directory cannot be read, or one that is nobody's cannot be removed.
    pub fn sweep(&self) -> Result<usize, DirectoryError> {
        let dir = self.sandboxes();
        let read = |source| DirectoryError::Read { path: dir.clone(), source };
        let (mut removed, mut failed) = (0, None);
        for entry in fs::read_dir(&dir).map_err(read)? {
            let path = entry.map_err(read)?.path();
            // One that cannot be removed must not keep the others.
            match sweep_one(&path) {
                Ok(true) => removed += 1,
                Ok(false) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.sweep_names()?;
        failed.map_or(Ok(removed), Err)
    }

    fn sweep_names(&self) -> Result<(), DirectoryError> {
        let dir = self.names();
        let _names = lock_names(&dir)?;
        let read = |source| DirectoryError::Read { path: dir.clone(), source };
        for entry in fs::read_dir(&dir).map_err(read)? {
            let link = entry.map_err(read)?.path();
            let dangling = fs::read_link(&link).is_ok_and(|id| !self.sandboxes().join(id).exists());
            if dangling {
                _ = fs::remove_file(&link);
            }
        }
        Ok(())
    }
}

/// The directory of one sandbox, its lock held. Dropping it lets go of the lock and leaves the directory; what it
/// belongs to ends with [`remove`](Self::remove).
#[derive(Debug)]
pub struct SandboxDir {
    path: PathBuf,
    names: PathBuf,
    name: Option<SandboxName>,
    lock: File,
}

impl SandboxDir {
    /// Takes the directory over whose lock is already held through `lock`, as a supervisor does that was started with
    /// it, and reads what the sandbox is made of.
    ///
    /// # Errors
    /// There is no such directory, or its `spec.json` is not one of this version's.
    pub fn adopt(path: PathBuf, lock: File) -> Result<(Self, SandboxSpec), DirectoryError> {
        let spec = read_spec(&path)?;
        let names = path.ancestors().nth(2).unwrap_or(&path).join("names");
        Ok((Self { path, names, name: spec.name.clone(), lock }, spec))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lock, for another process that the sandbox belongs to.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn share_lock(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// Removes the directory and the claim on its name. Nothing is an error that finds it gone already.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub fn remove(self) -> Result<(), DirectoryError> {
        if let Some(name) = &self.name {
            let _names = lock_names(&self.names)?;
            let link = self.names.join(name.as_str());
            // Only our own claim: the name may have been given away since.
            if fs::read_link(&link).is_ok_and(|id| Some(id.as_os_str()) == self.path.file_name()) {
                _ = fs::remove_file(link);
            }
        }
        remove(&self.path)
    }

    fn abandon(self, error: DirectoryError) -> DirectoryError {
        _ = self.remove();
        error
    }
}

/// What is wrong with the directory of a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The name belongs to a sandbox that is alive.
    #[error("the name {name} is in use by the sandbox {owner}")]
    NameTaken {
        /// The name.
        name: SandboxName,
        /// The id of the sandbox that has it.
        owner: String,
    },
    /// Something cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something cannot be written or removed.
    #[error("cannot write {}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no room.
    #[error("no space is left for {}", path.display())]
    DiskFull {
        /// What found no room.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// `spec.json` is not what this version writes.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// `spec.json` is of another version.
    #[error("{} has the format {found}, this version writes {FORMAT}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format that it has.
        found: u32,
    },
}

fn write_error(path: &Path, source: io::Error) -> DirectoryError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            DirectoryError::DiskFull { path, source }
        }
        _ => DirectoryError::Write { path, source },
    }
}

fn private_dir(path: &Path, parents: bool) -> io::Result<()> {
    DirBuilder::new().recursive(parents).mode(0o700).create(path)
}

fn new_lock(dir: &Path) -> Result<File, DirectoryError> {
    let (path, temporary) = (dir.join(LOCK), dir.join(".lock"));
    let open = || -> io::Result<File> {
        // Under its name only once it is held: a sweeper that sees it must not get it.
        let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(&temporary, &path)?;
        Ok(file)
    };
    open().map_err(|source| write_error(&path, source))
}

/// Locks the names against change, which takes nobody longer than a look at a few links.
fn lock_names(dir: &Path) -> Result<File, DirectoryError> {
    let failed = |source| DirectoryError::Read { path: dir.to_path_buf(), source };
    let file = File::open(dir).map_err(failed)?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK && begun.elapsed() < NAMES_WAIT => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}

/// The lock of a directory if nobody has it, `None` if somebody does.
fn try_lock(dir: &Path) -> io::Result<Option<File>> {
    let file = File::open(dir.join(LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a directory that is nobody's, and tells whether it was.
fn sweep_one(path: &Path) -> Result<bool, DirectoryError> {
    let dead = match try_lock(path) {
        Ok(lock) => lock.map(Some),
        // Without a lock it is half made or half removed; its maker has it so for an instant only.
        Err(error) if error.kind() == io::ErrorKind::NotFound => older_than_creation(path).then_some(None),
        Err(source) => return Err(DirectoryError::Read { path: path.to_path_buf(), source }),
    };
    match dead {
        Some(_lock) => remove(path).map(|()| true),
        None => Ok(false),
    }
}

/// Whether a directory without a lock has been so for longer than its maker needs to make one.
fn older_than_creation(path: &Path) -> bool {
    const CREATION: Duration = Duration::from_secs(5);
    let age = fs::metadata(path).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > CREATION)
}

fn remove(path: &Path) -> Result<(), DirectoryError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DirectoryError::Write { path: path.to_path_buf(), source: error })
        }
        _ => Ok(()),
    }
}

fn write_spec(dir: &Path, spec: &SandboxSpec) -> Result<(), DirectoryError> {
    let (path, temporary) = (dir.join(SPEC), dir.join(".spec.json"));
    let write = || -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(spec)?)?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|source| write_error(&path, source))
}

fn read_spec(dir: &Path) -> Result<SandboxSpec, DirectoryError> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let path = dir.join(SPEC);
    let read = || -> io::Result<Vec<u8>> {
        let file = File::open(&path)?;
        if file.metadata()?.len() > SPEC_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than a specification holds"));
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, SPEC_BYTES), &mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| DirectoryError::Read { path: path.clone(), source })?;
    let damaged = |source| DirectoryError::Damaged { path: path.clone(), source };
    let Format { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if format != FORMAT {
        return Err(DirectoryError::Format { path, found: format });
    }
    serde_json::from_slice(&bytes).map_err(damaged)
}

#[cfg(test)]
#[path = "directory/tests.rs"]
mod tests;
