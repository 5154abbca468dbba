//! What can go wrong, and at which path.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use cellule_rootfs::ArchiveError;
use rustix::io::Errno;

use super::MAX_REMEMBERED;

/// Why an archive was not unpacked, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The directory cannot be opened.
    #[error("cannot open the directory {0:?}")]
    Directory(PathBuf, #[source] io::Error),
    /// The archive is damaged or cut short.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive ended before it brought what was asked for.
    #[error("the archive is empty")]
    Empty,
    /// One of its entries cannot be made.
    #[error("cannot unpack {0:?}")]
    Entry(PathBuf, #[source] EntryError),
}

/// Why an entry cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    /// It goes elsewhere than was asked for.
    #[error("the archive may hold {0:?} and what is below it, and nothing else")]
    Elsewhere(OsString),
    /// The archive's root is no directory.
    #[error("only a directory can be the archive's root")]
    Root,
    /// A directory on its path is a link.
    #[error("the way to it leads through a symbolic link")]
    ThroughLink,
    /// A directory is in its way.
    #[error("a directory is there already")]
    OntoDirectory,
    /// It is a directory, and something else is in its way.
    #[error("something that is no directory is there already")]
    OntoFile,
    /// It is a device.
    #[error("it is a device, and devices are not copied")]
    Device,
    /// It is a hard link to something else than a file of the archive.
    #[error("it is a hard link to {0:?}, which this copy did not make")]
    HardLink(OsString),
    /// It is a hard link, and there are too many files to tell.
    #[error("it is a hard link, and more than {MAX_REMEMBERED} files came before it")]
    TooManyFiles,
    /// Something else on its path is no directory either.
    #[error("the way to it leads through something that is no directory")]
    ThroughFile,
    /// The host refuses.
    #[error(transparent)]
    Host(#[from] io::Error),
}

impl From<Errno> for EntryError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::LOOP => Self::ThroughLink,
            Errno::NOTDIR => Self::ThroughFile,
            error => Self::Host(error.into()),
        }
    }
}

/// A failure to make an entry: the archive's or the host's.
pub(super) enum MakeError {
    Archive(ArchiveError),
    Entry(EntryError),
}

impl From<EntryError> for MakeError {
    fn from(error: EntryError) -> Self {
        Self::Entry(error)
    }
}

impl From<Errno> for MakeError {
    fn from(error: Errno) -> Self {
        Self::Entry(error.into())
    }
}

impl From<io::Error> for MakeError {
    fn from(error: io::Error) -> Self {
        Self::Entry(error.into())
    }
}
