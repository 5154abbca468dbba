//! What can be wrong with the directory of a sandbox.

use std::io;
use std::path::{Path, PathBuf};

use crate::document::DocumentError;
use crate::name::{SandboxId, SandboxName};

/// What is wrong with the directory of a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The name belongs to another sandbox.
    #[error("the name {name} is in use by the sandbox {owner}")]
    NameTaken {
        /// The name.
        name: SandboxName,
        /// The id of the sandbox that has it.
        owner: String,
    },
    /// There is no sandbox of that id.
    #[error("there is no sandbox {id}")]
    NotFound {
        /// The id.
        id: SandboxId,
    },
    /// Another process owns the sandbox.
    #[error("the sandbox {id} runs, or another command is at work on it")]
    Busy {
        /// The id.
        id: SandboxId,
    },
    /// A supervisor was started without the lock of its directory.
    #[error("the lock of {} was not handed over", path.display())]
    NotLocked {
        /// The directory.
        path: PathBuf,
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
    /// A document is not what this version writes.
    #[error("{} is not this version's, or damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: DocumentError,
    },
}

impl DirectoryError {
    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, source },
            _ => Self::Write { path, source },
        }
    }

    /// Whether it says that the directory is not there: it may have gone while it was looked at.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::NotFound { .. } => true,
            _ => false,
        }
    }
}
