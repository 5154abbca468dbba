//! Files that are either there and complete, or not there.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use crate::{Error, Result};

/// Writes `bytes` to a file in `tmp` and renames it to `target`, on the same file system.
pub(crate) fn write(tmp: &Path, target: &Path, bytes: &[u8]) -> Result<()> {
    // Between its creation and its lock the file looks like a leftover, and another process may sweep it. That shows
    // as a lock that is taken or as a name that is gone, and then another file is made.
    for _ in 0..8 {
        let mut file = tempfile::Builder::new()
            .prefix("file-")
            .tempfile_in(tmp)
            .map_err(Error::io("create a file in", tmp))?;
        if !super::lock::try_lock(file.as_file(), super::lock::Mode::Exclusive)
            .map_err(Error::io("lock", file.path()))?
        {
            continue;
        }
        file.write_all(bytes).map_err(Error::io("write", target))?;
        file.as_file().sync_all().map_err(Error::io("sync", target))?;
        match file.persist(target) {
            Ok(_) => return sync_parent(target),
            Err(failed) if failed.error.kind() == std::io::ErrorKind::NotFound => {}
            Err(failed) => return Err(Error::io("rename a file to", target)(failed.error)),
        }
    }
    let gone = std::io::Error::other("the temporary file vanished again and again");
    Err(Error::io("write", target)(gone))
}

/// Syncs a file, gives it its final name, and syncs that.
pub(crate) fn commit(file: &File, from: &Path, target: &Path) -> Result<()> {
    file.sync_all().map_err(Error::io("sync", target))?;
    fs::rename(from, target).map_err(Error::io("rename a file to", target))?;
    sync_parent(target)
}

fn sync_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", parent))
}
