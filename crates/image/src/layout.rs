//! Images in the form of an OCI image layout, be it in a directory or in an archive.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use crate::{
    Digest, Error, Event, Image, Options, Reference, Result, Store,
    error::blocking,
    image::{Fetched, check_platform, parse_config},
    import::open_file,
    manifest::{Descriptor, Document, Index, MAX_INDEX_DEPTH, Manifest, REF_NAME},
    store::{Found, Operation, verify},
};

/// Where containerd and Docker write the whole name of an image, while `ref.name` has the tag alone.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Something that has blobs.
pub(crate) trait BlobSource {
    /// Opens a blob, whose content is not verified yet.
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>>;

    /// Where it is, for errors.
    fn path(&self) -> &Path;
}

/// An image of a layout: the names it has there, and its entries in the index, which may be one for each platform.
#[derive(Debug, Default)]
pub(crate) struct Candidate {
    pub(crate) tag: Option<String>,
    pub(crate) full_name: Option<String>,
    pub(crate) entries: Vec<Descriptor>,
}

impl Candidate {
    /// The name that the image gets in the store, if it has one that says the repository too.
    pub(crate) fn reference(&self) -> Option<Reference> {
        let full = self.full_name.as_ref().or(self.tag.as_ref().filter(|tag| tag.contains(['/', ':'])))?;
        full.parse().ok()
    }

    fn label(&self) -> Option<&String> {
        self.tag.as_ref().or(self.full_name.as_ref())
    }
}

/// A layout in a directory.
struct LayoutDir(PathBuf);

impl BlobSource for LayoutDir {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>> {
        let path = self.0.join("blobs/sha256").join(digest.hex());
        match open_file(&path) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(missing(self, digest))
            }
            file => Ok(Box::new(file?)),
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

pub(crate) fn missing(source: &dyn BlobSource, digest: &Digest) -> Error {
    Error::Missing { path: source.path().into(), what: format!("blob {digest}") }
}

/// The images of a layout's index.
pub(crate) fn candidates(index: &[u8], path: &Path) -> Result<Vec<Candidate>> {
    let what = path.join("index.json").display().to_string();
    let Document::Index(index) = Document::parse(index, None, &what)? else {
        return Err(Error::NotAnImage { what, media_type: None });
    };
    let mut found: BTreeMap<(Option<String>, Option<String>), Vec<Descriptor>> = BTreeMap::new();
    for entry in index.manifests.into_iter().filter(|entry| entry.is_manifest() || entry.is_index()) {
        let name = |key| entry.annotation(key).map(ToOwned::to_owned);
        found.entry((name(REF_NAME), name(CONTAINERD_NAME))).or_default().push(entry);
    }
    Ok(found.into_iter().map(|((tag, full_name), entries)| Candidate { tag, full_name, entries }).collect())
}

/// The candidate of that tag or name; without one, the only one.
fn choose(mut candidates: Vec<Candidate>, tag: Option<&str>, path: &Path) -> Result<Candidate> {
    let missing = |what: String| Error::Missing { path: path.into(), what };
    match tag {
        Some(tag) => {
            let is = |c: &Candidate| c.tag.as_deref() == Some(tag) || c.full_name.as_deref() == Some(tag);
            candidates.into_iter().find(is).ok_or_else(|| missing(format!("image {tag:?}")))
        }
        None if candidates.len() > 1 => {
            let names = candidates.iter().filter_map(|candidate| candidate.label().cloned()).collect();
            Err(Error::SeveralImages { path: path.into(), names })
        }
        None => candidates.pop().ok_or_else(|| missing("image".into())),
    }
}

impl Store {
    pub(crate) async fn read_layout(
        &self,
        dir: &Path,
        tag: Option<&str>,
        options: &Options,
    ) -> Result<Image> {
        let operation = self.begin().await?;
        let (store, limits) = (self.clone(), options.clone());
        let (dir, tag) = (dir.to_owned(), tag.map(ToOwned::to_owned));
        let (operation, fetched) = blocking(move || {
            let layout = LayoutDir(dir);
            fs::metadata(&layout.0).map_err(Error::io("open", &layout.0))?;
            let path = layout.0.join("index.json");
            if !path.is_file() {
                return Err(Error::Missing { path: layout.0, what: "index.json".into() });
            }
            let index = crate::store::read_bounded(&path, limits.limits.document)?;
            let candidate = choose(candidates(&index, &layout.0)?, tag.as_deref(), &layout.0)?;
            let fetched = store.copy_image(&operation, &layout, candidate.entries, &limits)?;
            Ok((operation, fetched))
        })
        .await?;
        self.complete(&operation, fetched, options).await
    }

    /// Copies the image of the right platform, all verified.
    pub(crate) fn copy_image(
        &self,
        operation: &Operation,
        source: &dyn BlobSource,
        entries: Vec<Descriptor>,
        options: &Options,
    ) -> Result<Fetched> {
        let what = format!("the image in {}", source.path().display());
        let (mut descriptor, bytes, manifest) = find_manifest(source, entries, options, &what)?;
        manifest.check(&options.limits, &what)?;
        let config_bytes = read_document(source, &manifest.config, options)?;
        let config = parse_config(&config_bytes, &what)?;
        check_platform(&config, options, &what)?;
        let of = manifest.layers.len();
        options.progress.event(Event::Resolved { layers: of, bytes: manifest.layer_bytes() });
        operation.pin_blobs(self, manifest.blobs().map(|blob| &blob.digest).chain([&descriptor.digest]))?;
        for (layer, number) in manifest.layers.iter().zip(1..) {
            let cached = self.find_blob(&layer.digest, layer.size)? == Found::Yes;
            if !cached {
                let what = format!("layer {number} in {}", source.path().display());
                let mut reader = source.open(&layer.digest)?;
                // One byte more than promised is enough to see the lie.
                let blob = operation.ingest(
                    &mut (&mut reader).take(layer.size.saturating_add(1)),
                    u64::MAX,
                    &what,
                )?;
                blob.verify(layer, &what)?;
                self.adopt(operation, &blob)?;
            }
            options.progress.event(Event::LayerReady { number, of, cached });
        }
        self.write_document(&bytes)?;
        self.write_document(&config_bytes)?;
        descriptor.media_type.clone_from(&manifest.media_type);
        descriptor.annotations = None;
        Ok(Fetched { descriptor, manifest, config, names: Vec::new(), resolved: None, what })
    }
}

/// Follows the indexes, down to the manifest for the platform.
pub(crate) fn find_manifest(
    source: &dyn BlobSource,
    entries: Vec<Descriptor>,
    options: &Options,
    what: &str,
) -> Result<(Descriptor, Vec<u8>, Manifest)> {
    let mut index = Index { schema_version: 2, media_type: String::new(), manifests: entries };
    for _ in 0..MAX_INDEX_DEPTH {
        let chosen = index.select(&options.platform, what)?.clone();
        let bytes = read_document(source, &chosen, options)?;
        match Document::parse(&bytes, Some(&chosen.media_type), what)? {
            Document::Manifest(manifest) => return Ok((chosen, bytes, manifest)),
            Document::Index(inner) => index = inner,
        }
    }
    let (actual, allowed) = (MAX_INDEX_DEPTH as u64 + 1, MAX_INDEX_DEPTH as u64);
    Err(Error::Limit { what: what.into(), field: "indexes within indexes", actual, allowed })
}

/// Reads a small blob and verifies it.
fn read_document(source: &dyn BlobSource, blob: &Descriptor, options: &Options) -> Result<Vec<u8>> {
    let what = || format!("blob {} in {}", blob.digest, source.path().display());
    let allowed = options.limits.document;
    if blob.size > allowed {
        return Err(Error::Limit { what: what(), field: "bytes", actual: blob.size, allowed });
    }
    let mut bytes = Vec::new();
    let reader = source.open(&blob.digest)?;
    reader.take(blob.size + 1).read_to_end(&mut bytes).map_err(Error::io("read", source.path()))?;
    let (actual, expected) = (bytes.len() as u64, blob.size);
    if actual != expected {
        return Err(Error::SizeMismatch { what: what(), expected, actual, at_least: actual > expected });
    }
    verify(&bytes, &blob.digest, what)?;
    Ok(bytes)
}
