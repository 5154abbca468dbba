//! Root filesystems: built once from the layers, found by what they were built from.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cellule_rootfs::{Built, FileLayer, Hasher, LAYOUT_VERSION, LayerSource};
use serde::{Deserialize, Serialize};

use super::{Claim, Operation, Partial, Store, atomic, blobs::read_bounded, lock::Mode};
use crate::{Digest, Error, Event, Options, Result, error::blocking, manifest::Manifest};

/// A root filesystem in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootfsInfo {
    /// The EROFS file.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// How many names are in it.
    pub entries: u64,
}

/// What is kept beside the file.
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    digest: Digest,
    size: u64,
    entries: u64,
}

/// Where the root filesystem of these layers is, if it has been built.
#[derive(Debug, Clone)]
pub(super) struct Place {
    key: String,
    pub(super) file: PathBuf,
    pub(super) facts: PathBuf,
}

impl Store {
    pub(super) fn rootfs_place(&self, diff_ids: &[Digest]) -> Place {
        let mut hasher = Hasher::new();
        hasher.update(format!("layout {LAYOUT_VERSION}\n").as_bytes());
        for diff_id in diff_ids {
            hasher.update(format!("{diff_id}\n").as_bytes());
        }
        let key = hasher.finish().hex();
        let path = |extension| self.rootfs_dir().join(format!("{key}.{extension}"));
        Place { file: path("erofs"), facts: path("json"), key }
    }

    /// Finds or builds the root filesystem of the layers of `manifest`, which must all be in the store and pinned.
    pub(crate) async fn rootfs(
        &self,
        operation: &Operation,
        manifest: &Manifest,
        diff_ids: &[Digest],
        what: &str,
        options: &Options,
    ) -> Result<RootfsInfo> {
        let (layers, diff_count) = (manifest.layers.len(), diff_ids.len());
        if layers != diff_count {
            return Err(Error::LayerCount { what: what.into(), layers, diff_ids: diff_count });
        }
        let place = self.rootfs_place(diff_ids);
        let (store, pinning, wanted) = (self.clone(), operation.clone(), place.clone());
        let found = blocking(move || {
            pinning.pin(&store, [wanted.file.clone(), wanted.facts.clone()])?;
            let found = rootfs_at(&wanted);
            if found.is_none() {
                store.remove_damaged(&wanted)?;
            }
            Ok(found)
        });
        if let Some(found) = found.await? {
            return Ok(found);
        }
        let name = format!("rootfs-{}", place.key);
        let claim = self.claim(&place.file, &name, options.lock_wait, &*options.progress).await?;
        if let Claim::Mine(partial) = claim {
            let build = Build {
                store: self.clone(),
                layers: manifest.layers.iter().map(|layer| layer.digest).collect(),
                size: manifest.layer_bytes(),
                diff_ids: diff_ids.to_vec(),
                place: place.clone(),
                what: what.into(),
                options: options.clone(),
                cancelled: Arc::default(),
            };
            // Dropping this future stops the build at its next step.
            let _guard = CancelOnDrop(Arc::clone(&build.cancelled));
            blocking(move || build.run(partial)).await?;
        }
        rootfs_at(&place).ok_or_else(|| {
            let source = std::io::Error::other("it is not as long as it was when it was made");
            Error::Io { action: "use", path: place.file, source }
        })
    }

    /// Removes a file that is not as it was made, which would else pass for one that another has made just now.
    fn remove_damaged(&self, place: &Place) -> Result<()> {
        if !place.file.exists() {
            return Ok(());
        }
        let _lock = self.lock(Mode::Exclusive)?;
        // It may have been completed since the first look.
        if rootfs_at(place).is_none() {
            super::ignore_missing(fs::remove_file(&place.file)).map_err(Error::io("remove", &place.file))?;
        }
        Ok(())
    }
}

/// The root filesystem at a place, if it is there and as long as it should be.
pub(super) fn rootfs_at(place: &Place) -> Option<RootfsInfo> {
    let facts: Facts = serde_json::from_slice(&read_bounded(&place.facts, 4096).ok()?).ok()?;
    let metadata = fs::symlink_metadata(&place.file).ok()?;
    let Facts { digest, size, entries } = facts;
    (metadata.size() == size).then(|| RootfsInfo { path: place.file.clone(), digest, size, entries })
}

/// One build, to be run where it may block.
struct Build {
    store: Store,
    layers: Vec<Digest>,
    size: u64,
    diff_ids: Vec<Digest>,
    place: Place,
    what: String,
    options: Options,
    cancelled: Arc<AtomicBool>,
}

impl Build {
    fn run(self, mut partial: Partial) -> Result<()> {
        let built = self.build(&mut partial)?;
        for (index, (expected, actual)) in self.diff_ids.iter().zip(&built.diff_ids).enumerate() {
            if expected != actual {
                let (number, layer) = (index + 1, self.layers[index]);
                return Err(Error::DiffIdMismatch { number, layer, expected: *expected, actual: *actual });
            }
        }
        let Built { digest, size, entries, .. } = built;
        let facts = serde_json::to_vec(&Facts { digest, size, entries })
            .map_err(|source| Error::Malformed { what: self.what.clone(), source })?;
        // The facts come first: once the file has its name it is complete.
        atomic::write(&self.store.tmp_dir(), &self.place.facts, &facts)?;
        partial.commit()
    }

    fn build(&self, partial: &mut Partial) -> Result<Built> {
        let layers: Vec<FileLayer> =
            self.layers.iter().map(|digest| FileLayer::new(self.store.blob_path(digest))).collect();
        let layers: Vec<&dyn LayerSource> = layers.iter().map(|layer| layer as &dyn LayerSource).collect();
        // Each layer is read twice.
        let size = self.size.saturating_mul(2);
        let mut progress = |bytes| {
            if self.cancelled.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            self.options.progress.event(Event::Building { bytes, size });
            ControlFlow::Continue(())
        };
        cellule_rootfs::build(&layers, &mut partial.file, &self.options.limits.rootfs, &mut progress).map_err(
            |source| match source {
                cellule_rootfs::Error::Cancelled => Error::Cancelled,
                cellule_rootfs::Error::Output { source } => Error::io("write", &self.place.file)(source),
                source => Error::Rootfs { what: self.what.clone(), source },
            },
        )
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
