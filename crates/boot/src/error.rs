//! Why a bundle could not be made or used.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{AptError, BaseError, Damage, DebError, KernelError, ModuleError};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a bundle could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The disk, or the user's share of it, is full.
    #[error("no space is left for {}", path.display())]
    DiskFull {
        /// The file or directory that found no room.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file is larger than any of its kind.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is accepted, in bytes.
        limit: u64,
    },
    /// Another setup held the lock all the time.
    #[error("another setup has held {} for {} s", path.display(), waited.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long this one waited.
        waited: Duration,
    },
    /// apt did not deliver.
    #[error("Debian's package could not be fetched")]
    Apt(#[from] AptError),
    /// A package is not what it should be.
    #[error("cannot unpack {}", path.display())]
    Deb {
        /// The package.
        path: PathBuf,
        /// What is wrong with it.
        source: DebError,
    },
    /// A package or directory holds no kernel.
    #[error("no kernel is in {}", place.display())]
    NoKernel {
        /// The package or directory.
        place: PathBuf,
    },
    /// A kernel cannot be used.
    #[error("cannot use the kernel {}", path.display())]
    Kernel {
        /// The kernel, or its path in a package.
        path: PathBuf,
        /// What is wrong with it.
        source: KernelError,
    },
    /// A module that every guest needs is neither there nor part of the kernel.
    #[error("the kernel {release} has no module {name}, {wanted}")]
    ModuleMissing {
        /// The module, `-` written as `_`.
        name: String,
        /// Who needs it, in words.
        wanted: String,
        /// The kernel's release.
        release: String,
    },
    /// Modules need each other in a circle.
    #[error("the module {name} depends on itself")]
    ModuleCycle {
        /// One of the modules in the circle.
        name: String,
    },
    /// A module cannot be used.
    #[error("cannot use the module {}", path.display())]
    Module {
        /// The module, or its path in a package.
        path: PathBuf,
        /// What is wrong with it.
        source: ModuleError,
    },
    /// The base image could not be made.
    #[error("the base image cannot be made")]
    Base(#[from] BaseError),
    /// A directory of ours is not as it was made.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        source: Damage,
    },
}

impl Error {
    /// Says which path a read failed on.
    pub(crate) fn read(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { path: path.as_ref().into(), source }
    }

    /// Says which path a write failed on, and whether for want of room.
    pub(crate) fn write(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.as_ref().into();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, source },
                _ => Self::Write { path, source },
            }
        }
    }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::read(path))?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::read(path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { path: path.into(), limit });
    }
    Ok(bytes)
}
