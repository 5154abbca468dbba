//! Removing what nothing needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{ImageInfo, Store, entries, file_size, lock};
use crate::{
    Digest, Error, Reference, Result,
    manifest::{Descriptor, Index},
};

/// What is pruned, and how.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Only say what would be removed.
    pub dry_run: bool,
    /// Remove images that have names too, if they are not used.
    pub all: bool,
    /// Images, by id, that the caller knows to be used, and by what.
    pub in_use: BTreeMap<Digest, String>,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The images, by id, each with its names.
    pub images: Vec<(Digest, Vec<Reference>)>,
    /// The files, each with the bytes that it took on disk.
    pub files: Vec<(PathBuf, u64)>,
}

impl Pruned {
    /// Bytes on disk of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }
}

impl Store {
    /// Removes images without a name (or all unused ones), blobs and root filesystems of no image, and what dead
    /// processes left. Pulls that go on meanwhile keep what they need.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned> {
        let _lock = self.lock(lock::Mode::Exclusive)?;
        let mut index = self.read_index()?;
        let pinned = self.pinned()?;
        let mut pruned = Pruned::default();
        let mut kept: BTreeMap<Digest, bool> = BTreeMap::new();
        for digest in index.manifests.iter().map(|entry| entry.digest).collect::<BTreeSet<_>>() {
            let names: Vec<Reference> =
                index.manifests.iter().filter(|e| e.digest == digest).filter_map(Descriptor::name).collect();
            let keep = match self.describe(&digest, names.iter().map(|name| (name.clone(), None)).collect()) {
                Ok(image) => {
                    let wanted = !image.names.is_empty() && !options.all;
                    let used = options.in_use.contains_key(&image.id) || is_held(&image);
                    let keep = wanted || used || pinned.contains(&self.blob_path(&digest));
                    if !keep {
                        pruned.images.push((image.id, image.names));
                    }
                    keep
                }
                // An image whose documents are damaged is no image; its next pull makes it whole.
                // Its next pull makes it whole.
                Err(error) if is_damaged(&error) => {
                    pruned.images.push((digest, names));
                    false
                }
                Err(error) => return Err(error),
            };
            kept.insert(digest, keep);
        }
        index.manifests.retain(|entry| kept.get(&entry.digest).copied().unwrap_or(true));
        if !options.dry_run && !pruned.images.is_empty() {
            self.write_index(index.clone())?;
        }
        pruned.files = self.collect_garbage(&index, options.dry_run)?;
        pruned.files.extend(self.sweep_leftovers(options.dry_run)?);
        Ok(pruned)
    }

    /// Removes the blobs and root filesystems that no entry of `index` needs. Needs the exclusive lock.
    pub(super) fn collect_garbage(&self, index: &Index, dry_run: bool) -> Result<Vec<(PathBuf, u64)>> {
        let mut needed = self.pinned()?;
        for entry in &index.manifests {
            needed.insert(self.blob_path(&entry.digest));
            let documents = match self.documents(&entry.digest) {
                Err(error) if is_damaged(&error) => continue,
                documents => documents?,
            };
            needed.extend(documents.manifest.blobs().map(|blob| self.blob_path(&blob.digest)));
            let place = self.rootfs_place(&documents.config.rootfs.diff_ids);
            needed.extend([place.file, place.facts]);
        }
        let mut files = Vec::new();
        for path in entries(&self.blobs_dir())?.into_iter().chain(entries(&self.rootfs_dir())?) {
            if needed.contains(&path) {
                continue;
            }
            let Some(_lock) = lock_unused(&path) else { continue };
            let size = file_size(&path);
            if !dry_run {
                super::ignore_missing(fs::remove_file(&path)).map_err(Error::io("remove", &path))?;
            }
            files.push((path, size));
        }
        Ok(files)
    }
}

/// Whether an image's documents are not what they were when they were written, so that it has to be pulled anew. A
/// disk that refuses to read them says nothing about them.
fn is_damaged(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        Error::DigestMismatch { .. }
        | Error::Malformed { .. }
        | Error::NotAnImage { .. }
        | Error::Limit { .. } => true,
        _ => false,
    }
}

/// Whether some process runs from the image's root filesystem.
pub(super) fn is_held(image: &ImageInfo) -> bool {
    image.rootfs.as_ref().is_some_and(|rootfs| lock_unused(&rootfs.path).is_none())
}

/// Locks a file that nobody uses, so that nobody can begin to before it is removed.
fn lock_unused(path: &Path) -> Option<fs::File> {
    let file = fs::File::open(path).ok()?;
    lock::try_lock(&file, lock::Mode::Exclusive).unwrap_or(false).then_some(file)
}
