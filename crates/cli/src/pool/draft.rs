//! The directory of a pool in the making: it appears whole or not at all.
//!
//! While it is made its maker holds it locked. What one leaves that dies, the next sweeps away.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use cellule_supervisor::document;
use rustix::fs::FlockOperation;

use super::{POOL, PoolDocument, flocked};

/// What is before the name of such a directory.
const TEMPORARY: &str = ".tmp-";

/// Makes the directory of a pool among `pools`, which is made if it is missing.
pub(super) fn make(pools: &Path, place: &Path, document: &PoolDocument) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(pools)?;
    sweep(pools)?;
    let draft = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(pools)?;
    // Another one's sweep may be faster. Then it is gone, or is just being removed.
    let _alive = try_lock(draft.path())?.ok_or(io::ErrorKind::ResourceBusy)?;
    document::write(draft.path(), POOL, document)?;
    fs::rename(draft.path(), place)?;
    // There is nothing to be removed under its former name.
    _ = draft.keep();
    Ok(())
}

/// Removes what processes that died left half made.
fn sweep(pools: &Path) -> io::Result<()> {
    for entry in fs::read_dir(pools)? {
        let entry = entry?;
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY));
        if ours && let Ok(Some(_abandoned)) = try_lock(&entry.path()) {
            match fs::remove_dir_all(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn try_lock(dir: &Path) -> io::Result<Option<File>> {
    flocked(File::open(dir)?, FlockOperation::NonBlockingLockExclusive)
}

#[cfg(test)]
mod tests {
    use super::super::tests::document;
    use super::*;

    #[test]
    fn what_a_maker_that_died_left_is_swept_and_what_one_that_lives_makes_is_not() {
        let top = tempfile::tempdir().unwrap();
        let pools = top.path().join("pools");
        let [dead, alive] = ["dead", "alive"].map(|name| {
            let path = pools.join(format!("{TEMPORARY}{name}"));
            fs::create_dir_all(&path).unwrap();
            document::write(&path, POOL, &document()).unwrap();
            path
        });
        let lock = try_lock(&alive).unwrap();
        make(&pools, &pools.join("py"), &document()).unwrap();
        assert_eq!((dead.exists(), alive.exists()), (false, true));
        drop(lock);
        make(&pools, &pools.join("js"), &document()).unwrap();
        assert_eq!(fs::read_dir(&pools).unwrap().count(), 2);
    }
}
