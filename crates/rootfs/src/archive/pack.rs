//! Makes a tar of a file or a directory of the host, under a name of the caller's.

use std::io::Write;
use std::path::Path;

use crate::directory::{Manner, tar_of};
use crate::error::Error;

/// How [`pack`] makes its archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackOptions {
    /// What the file or directory is called in the archive, without slashes. Empty: it is a directory, and its contents
    /// alone are packed, beneath `.`.
    pub name: Vec<u8>,
    /// Whom everything belongs to in the archive, as user and group; none keeps the owners.
    pub owner: Option<(u32, u32)>,
    /// If the path itself is a symbolic link, packs what it leads to. Links within a directory are packed as links.
    pub follow: bool,
}

/// Writes what is at `path` as an uncompressed tar: a directory with all that is below it, sorted, hard links within it as
/// such, sockets and extended attributes left out. Memory grows with the names of one directory and with hard links only.
///
/// # Errors
/// [`Error::Directory`] names what cannot be read, or lost some of its bytes meanwhile; [`Error::Output`] is the writer's
/// own.
pub fn pack(path: &Path, options: &PackOptions, out: impl Write) -> Result<(), Error> {
    let manner = Manner {
        name: options.name.clone(),
        owner: options.owner,
        follow: options.follow,
        xattrs: false,
        reserved_names: true,
    };
    tar_of(path, manner, out)
}
