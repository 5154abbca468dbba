//! What the store has, described.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{RootfsInfo, Store, file_size, rootfs::rootfs_at};
use crate::{
    Digest, Error, ImageConfig, Limits, Platform, Reference, Result,
    config::ConfigFile,
    manifest::{Document, Manifest},
};

/// An image as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// The digest of the configuration, which is what Docker calls the id.
    pub id: Digest,
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// The names, in order; none for an image whose names all went to others.
    pub names: Vec<Reference>,
    /// `repository@digest` for each name that came from a registry, where the digest is the registry's.
    pub repo_digests: Vec<String>,
    /// What the image runs on.
    pub platform: Platform,
    /// When it was made, as it says itself (RFC 3339); absent if it does not say.
    pub created: Option<String>,
    /// How its command is run.
    pub config: ImageConfig,
    /// The layers, bottom first.
    pub layers: Vec<LayerInfo>,
    /// The root filesystem; absent until it is built.
    pub rootfs: Option<RootfsInfo>,
    /// Bytes of the manifest, the configuration and the layers, some of which other images may share.
    pub content_size: u64,
    /// Bytes that these and the root filesystem take on disk.
    pub disk_size: u64,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerInfo {
    /// The digest of the layer as it was transferred.
    pub digest: Digest,
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
    /// The size in bytes as it was transferred.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

/// The two documents of an image.
#[derive(Debug)]
pub(crate) struct Documents {
    pub(crate) manifest: Manifest,
    pub(crate) config: ConfigFile,
}

impl Store {
    /// All images, in the order of their first names; those without a name come last.
    ///
    /// # Errors
    ///
    /// If the index, or the manifest or configuration of an image, is damaged or cannot be read.
    pub fn list(&self) -> Result<Vec<ImageInfo>> {
        let mut images: BTreeMap<Digest, Vec<(Reference, Option<Digest>)>> = BTreeMap::new();
        for entry in self.read_index()?.manifests {
            images.entry(entry.digest).or_default().extend(entry.name().map(|name| (name, entry.resolved())));
        }
        let mut list = Vec::new();
        for (digest, names) in images {
            match self.describe(&digest, names) {
                // Removed since the index was read.
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                image => list.push(image?),
            }
        }
        list.sort_by(|a, b| (a.names.is_empty(), &a.names, a.id).cmp(&(b.names.is_empty(), &b.names, b.id)));
        Ok(list)
    }

    /// The image of that name, id, or unambiguous beginning of an id.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchImage`] or [`Error::AmbiguousId`]; or as [`list`](Self::list).
    pub fn inspect(&self, name: &str) -> Result<ImageInfo> {
        let mut images = self.list()?;
        let index = find(&images, name)?;
        Ok(images.swap_remove(index))
    }

    pub(crate) fn documents(&self, manifest: &Digest) -> Result<Documents> {
        let limit = Limits::default().document;
        let what = format!("manifest {manifest}");
        let bytes = self.read_document(manifest, limit)?;
        let Document::Manifest(document) = Document::parse(&bytes, None, &what)? else {
            return Err(Error::NotAnImage { what, media_type: None });
        };
        let bytes = self.read_document(&document.config.digest, limit)?;
        let config = serde_json::from_slice(&bytes).map_err(|source| Error::Malformed {
            what: format!("configuration {}", document.config.digest),
            source,
        })?;
        Ok(Documents { manifest: document, config })
    }

    pub(crate) fn describe(
        &self,
        manifest_digest: &Digest,
        mut names: Vec<(Reference, Option<Digest>)>,
    ) -> Result<ImageInfo> {
        let Documents { manifest, config } = self.documents(manifest_digest)?;
        let rootfs = rootfs_at(&self.rootfs_place(&config.rootfs.diff_ids));
        let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids).map(|(layer, diff_id)| LayerInfo {
            digest: layer.digest,
            diff_id: *diff_id,
            size: layer.size,
            media_type: layer.media_type.clone(),
        });
        // Docker's own images may have the same layer twice; it is there once.
        let blobs: BTreeSet<Digest> =
            manifest.blobs().map(|blob| blob.digest).chain([*manifest_digest]).collect();
        let blobs: Vec<_> = blobs.iter().map(|digest| self.blob_path(digest)).collect();
        let content_size = blobs
            .iter()
            .filter_map(|path| std::fs::symlink_metadata(path).ok())
            .map(|metadata| metadata.len())
            .sum();
        let files = blobs.iter().chain(rootfs.iter().map(|rootfs| &rootfs.path));
        names.sort();
        let mut repo_digests: Vec<String> = names
            .iter()
            .filter_map(|(name, resolved)| Some(format!("{}@{}", name.name(), resolved.as_ref()?)))
            .collect();
        repo_digests.dedup();
        Ok(ImageInfo {
            id: manifest.config.digest,
            manifest_digest: *manifest_digest,
            repo_digests,
            names: names.into_iter().map(|(name, _)| name).collect(),
            platform: config.platform(),
            created: config.created,
            config: config.config,
            layers: layers.collect(),
            content_size,
            disk_size: files.map(|path| file_size(path)).sum(),
            rootfs,
        })
    }
}

/// The index of the image that `name` means: a reference counts before the beginning of an id.
pub(super) fn find(images: &[ImageInfo], name: &str) -> Result<usize> {
    if let Ok(reference) = name.parse::<Reference>()
        && let Some(index) = images.iter().position(|image| image.names.contains(&reference))
    {
        return Ok(index);
    }
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let none = || Error::NoSuchImage { name: name.into() };
    if hex.is_empty() {
        return Err(none());
    }
    let fits = |image: &ImageInfo| image.id.hex().starts_with(hex) || image.manifest_digest.hex() == hex;
    let ids: BTreeSet<Digest> = images.iter().filter(|image| fits(image)).map(|image| image.id).collect();
    match ids.len() {
        0 => Err(none()),
        1 => images.iter().position(fits).ok_or_else(none),
        count => Err(Error::AmbiguousId { prefix: name.into(), count }),
    }
}
