//! The store on disk: content-addressed, shared by any number of processes, whole at every moment.
//!
//! ```text
//! ROOT/oci-layout, index.json    the names; ROOT is an OCI image layout that other tools can read
//! ROOT/blobs/sha256/<hex>        manifests, configurations and layers, as they were transferred
//! ROOT/rootfs/<key>.erofs        root filesystems; the key is the digest of the diff ids and the layout version
//! ROOT/rootfs/<key>.json         digest, size and entries of that file
//! ROOT/tmp/<name>                a file in the making, under an exclusive lock of its maker
//! ROOT/tmp/op-<random>/          the scratch directory of one operation, locked likewise; its file `pins` lists
//!                                what the operation relies on
//! ```
//!
//! # Who waits for whom
//! - A file appears under its final name by `rename`, complete and synced. So a reader needs no lock and never waits.
//! - Two processes that need the same file both claim `tmp/<name>`: one gets the lock and makes it, the other waits
//!   (no longer than [`Options::lock_wait`](crate::Options::lock_wait)) and finds it made, or takes the claim over.
//! - What changes `index.json` or deletes anything locks the directory ROOT exclusively. What is about to rely on a
//!   file adds it to its pins under the shared lock. Both take milliseconds. So a file is either deleted before it is
//!   pinned, and then made anew, or pinned, and then kept.
//! - Whoever runs from a root filesystem holds a shared lock on the file itself ([`Hold`]).
//!
//! There are no lock files: all locks are `flock` on what they protect, and the kernel drops them when their process
//! dies, however it dies. What is in `tmp` without a lock was left by such a process; each [`Store::open`] removes it.

mod atomic;
mod blobs;
mod hold;
mod index;
mod list;
mod lock;
mod operation;
mod partial;
mod prune;
mod remove;
mod rootfs;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub(crate) use self::{
    blobs::{BlobWriter, Found, Ingested, read_bounded, verify},
    index::Entry,
    operation::Operation,
    partial::{Claim, Partial},
};
pub use self::{
    hold::Hold,
    list::{ImageInfo, LayerInfo},
    prune::{PruneOptions, Pruned},
    remove::{RemoveOptions, Removed},
    rootfs::RootfsInfo,
};
use crate::{Digest, Error, Result};

/// How long to wait for the lock of the whole store, which nobody keeps for long.
const STORE_LOCK_WAIT: Duration = Duration::from_secs(30);

/// A store of images. Cheap to clone; any number of processes may have the same directory open.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<Path>,
}

impl Store {
    /// Opens the store in the directory `root`, makes it if there is none, and removes what dead processes left.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made or written.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        fs::create_dir_all(root).map_err(Error::io("create directory", root))?;
        // Absolute, so that the paths it hands out stay true when the process changes its directory.
        let root = root.canonicalize().map_err(Error::io("resolve", root))?;
        let store = Self { root: root.into() };
        for dir in [store.blobs_dir(), store.rootfs_dir(), store.tmp_dir()] {
            fs::create_dir_all(&dir).map_err(Error::io("create directory", &dir))?;
        }
        let marker = store.root.join("oci-layout");
        if !marker.exists() {
            atomic::write(&store.tmp_dir(), &marker, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        store.sweep_leftovers(false)?;
        Ok(store)
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn rootfs_dir(&self) -> PathBuf {
        self.root.join("rootfs")
    }

    fn tmp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_dir().join(digest.hex())
    }

    /// Removes what is in `tmp` and has no living owner; returns how many bytes that is, or would be.
    fn sweep_leftovers(&self, dry_run: bool) -> Result<Vec<(PathBuf, u64)>> {
        let tmp = self.tmp_dir();
        let mut swept = Vec::new();
        for path in entries(&tmp)? {
            // Whoever is faster, its owner or another sweeper, the file is then none of our business.
            let Ok(Some(_lock)) = lock::try_exclusive(&path) else { continue };
            let is_dir = path.is_dir();
            let size = if is_dir { directory_size(&path) } else { file_size(&path) };
            if !dry_run {
                let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                ignore_missing(removed).map_err(Error::io("remove", &path))?;
            }
            swept.push((path, size));
        }
        Ok(swept)
    }
}

/// The paths in a directory; none if there is no such directory.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(Error::io("list", dir))?,
    };
    listing.map(|entry| entry.map(|entry| entry.path()).map_err(Error::io("list", dir))).collect()
}

/// Bytes that a file takes on disk, which for sparse files are fewer than it has; 0 if it is gone.
fn file_size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

fn directory_size(dir: &Path) -> u64 {
    entries(dir).unwrap_or_default().iter().map(|path| file_size(path)).sum()
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
