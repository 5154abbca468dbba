//! Why a saved machine could not be had or kept. No message repeats its source.

use std::io;
use std::path::{Path, PathBuf};

/// Why a saved machine could not be had or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no room.
    #[error("no space left for {path}")]
    DiskFull {
        /// What did not fit.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What is there is not what was made.
    #[error("{path} is damaged")]
    Damaged {
        /// The saved machine's directory.
        path: PathBuf,
        /// In which way.
        #[source]
        damage: Damage,
    },
    /// No template has this id, or begins so.
    #[error("there is no template {0:?}")]
    NoSuchTemplate(String),
    /// No snapshot has this name.
    #[error("there is no snapshot {0:?}")]
    NoSuchSnapshot(String),
    /// A text that cannot be a snapshot's name.
    #[error("{0:?} cannot be a snapshot's name")]
    NoName(String),
    /// A snapshot has this name already.
    #[error("there is a snapshot {0:?} already")]
    NameTaken(String),
    /// Several ids begin so.
    #[error("{prefix:?} is the beginning of {count} templates' ids")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many begin so.
        count: usize,
    },
}

/// What is wrong with a saved machine's files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A file is gone or cannot be read.
    #[error("its file {file} cannot be read")]
    Unreadable {
        /// The file's name.
        file: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The manifest is not one, or larger than any.
    #[error("its manifest cannot be understood")]
    Manifest(#[source] Option<serde_json::Error>),
    /// It was made by another version.
    #[error("it has format {found}, where {expected} is wanted")]
    Format {
        /// The format in the manifest.
        found: u32,
        /// The format of this version.
        expected: u32,
    },
    /// It is not what it is kept as.
    #[error("its manifest is that of something else")]
    OtherKey,
    /// The memory, or a disk, has another size than it was made with.
    #[error("its file {file} has {found} bytes instead of {expected}")]
    Size {
        /// The file's name.
        file: &'static str,
        /// The size in the manifest.
        expected: u64,
        /// The size on disk.
        found: u64,
    },
    /// The memory, or a disk, was written to after it was made.
    #[error("its file {file} was changed since it was saved")]
    Touched {
        /// The file's name.
        file: &'static str,
    },
    /// A file is another than was made.
    #[error("its file {file} is not what was saved")]
    Altered {
        /// The file's name.
        file: &'static str,
    },
    /// It ends before its end, or is no archive at all.
    #[error("it is cut, or no archive of a snapshot")]
    Cut(#[source] io::Error),
    /// Its parts are not what they were when it was written.
    #[error("its checksum is wrong: it was altered")]
    Sum,
    /// It has a part that none has.
    #[error("it has {0:?} in it, which no snapshot has there")]
    Entry(String),
    /// Its pages are not those of a memory of its size.
    #[error("the list of its pages is not one of its memory")]
    Pages,
}

impl Error {
    /// Turns what the kernel said of `path` into an error.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { path, source }
            }
            _ => Self::Io { doing, path, source },
        }
    }

    /// Whether it says that nothing is there.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}
