//! Images made from a root filesystem: a tar or a directory becomes the one layer of an image.

use std::{
    fmt,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use cellule_rootfs::{Compression, Hasher, tar_from_directory};

use crate::{
    Digest, Error, Image, ImageConfig, Options, Reference, Result, Store,
    config::ConfigFile,
    decompress::decompress,
    error::blocking,
    image::Fetched,
    manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_LAYER},
    store::{Ingested, Operation},
};

/// What an image is made from.
pub enum ImportFrom {
    /// A tar, plain or compressed by gzip, zstd or xz.
    Tar(PathBuf),
    /// A directory.
    Directory(PathBuf),
    /// A tar, as above, that is read from somewhere.
    Reader(Box<dyn Read + Send>),
}

impl fmt::Debug for ImportFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImportFrom({self})")
    }
}

impl fmt::Display for ImportFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tar(path) | Self::Directory(path) => path.display().fmt(f),
            Self::Reader(_) => f.write_str("the given tar"),
        }
    }
}

impl ImportFrom {
    /// The directory or tar at a path, whichever is there.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
        Ok(if metadata.is_dir() { Self::Directory(path.into()) } else { Self::Tar(path.into()) })
    }
}

/// What the image is to be, beside its files.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// The name it gets, if any.
    pub name: Option<Reference>,
    /// How its command is run.
    pub config: ImageConfig,
}

impl Store {
    /// Makes an image of one layer. Equal files and equal configurations make equal images.
    ///
    /// # Errors
    ///
    /// If what it is made from cannot be read, is no root filesystem, or exceeds the limits; or if the store cannot be
    /// written. Then nothing is left of it.
    pub async fn import(&self, from: ImportFrom, import: Import, options: &Options) -> Result<Image> {
        let operation = self.begin().await?;
        let (store, own) = (self.clone(), options.clone());
        let (operation, fetched) = blocking(move || {
            let what = from.to_string();
            let (blob, media_type, diff_id) = ingest_layer(&operation, from, own.limits.layer)?;
            store.adopt(&operation, &blob)?;
            let layer = Descriptor::new(&media_type, blob.digest, blob.size);
            let config = ConfigFile::new(&own.platform, import.config, vec![diff_id]);
            let bytes = serde_json::to_vec(&config)
                .map_err(|source| Error::Malformed { what: what.clone(), source })?;
            let fetched = store.with_manifest(&operation, &bytes, config, vec![layer], what)?;
            Ok((operation, Fetched { names: import.name.into_iter().collect(), ..fetched }))
        })
        .await?;
        self.complete(&operation, fetched, options).await
    }

    /// Makes a manifest for layers and a configuration that came without one.
    pub(crate) fn with_manifest(
        &self,
        operation: &Operation,
        config_bytes: &[u8],
        config: ConfigFile,
        layers: Vec<Descriptor>,
        what: String,
    ) -> Result<Fetched> {
        let described = Descriptor::new(OCI_CONFIG, Digest::of(config_bytes), config_bytes.len() as u64);
        let manifest = Manifest::new(described, layers);
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|source| Error::Malformed { what: what.clone(), source })?;
        let descriptor = Descriptor::new(&manifest.media_type, Digest::of(&bytes), bytes.len() as u64);
        operation.pin_blobs(self, [&manifest.config.digest, &descriptor.digest])?;
        self.write_document(&bytes)?;
        self.write_document(config_bytes)?;
        Ok(Fetched { descriptor, manifest, config, names: Vec::new(), resolved: None, what })
    }
}

/// Reads the tar or directory into a blob; returns also its media type and the digest of the plain tar.
fn ingest_layer(operation: &Operation, from: ImportFrom, limit: u64) -> Result<(Ingested, String, Digest)> {
    let what = from.to_string();
    let mut reader: Box<dyn Read + Send> = match from {
        ImportFrom::Directory(dir) => {
            check_directory(&dir)?;
            let mut blob = operation.new_blob(limit, &what)?;
            let tar = tar_from_directory(&dir, &mut blob).map_err(|source| match source {
                cellule_rootfs::Error::Output { source } => Error::io("write a tar of", &dir)(source),
                source => Error::Rootfs { what: what.clone(), source },
            });
            // The blob knows better why it could not be written.
            let blob = blob.finish_after(tar)?;
            let diff_id = blob.digest;
            return Ok((blob, OCI_LAYER.into(), diff_id));
        }
        ImportFrom::Tar(path) => Box::new(open_file(&path)?),
        ImportFrom::Reader(reader) => reader,
    };
    let (compression, mut reader) =
        crate::decompress::recognise(&mut *reader).map_err(Error::io("read", &what))?;
    // Layers have no media type for xz, so such a tar is kept plain.
    if compression == Compression::Xz {
        let mut plain = decompress(compression, reader).map_err(Error::io("decompress", &what))?;
        let blob = operation.ingest(&mut plain, limit, &what)?;
        let diff_id = blob.digest;
        return Ok((blob, OCI_LAYER.into(), diff_id));
    }
    let blob = operation.ingest(&mut reader, limit, &what)?;
    let (suffix, diff_id) = match compression {
        Compression::None | Compression::Xz => ("", blob.digest),
        Compression::Gzip => ("+gzip", plain_digest(&blob, compression, limit, &what)?),
        Compression::Zstd => ("+zstd", plain_digest(&blob, compression, limit, &what)?),
    };
    Ok((blob, format!("{OCI_LAYER}{suffix}"), diff_id))
}

/// The digest of what a compressed blob unpacks to.
fn plain_digest(blob: &Ingested, compression: Compression, limit: u64, what: &str) -> Result<Digest> {
    let file = File::open(blob.path()).map_err(Error::io("open", blob.path()))?;
    let mut plain = decompress(compression, file).map_err(Error::io("decompress", what))?;
    let (mut hasher, mut total) = (Hasher::new(), 0_u64);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = plain.read(&mut buffer).map_err(Error::io("decompress", what))?;
        if n == 0 {
            return Ok(hasher.finish());
        }
        total += n as u64;
        if total > limit {
            return Err(Error::Limit {
                what: what.into(),
                field: "uncompressed bytes",
                actual: total,
                allowed: limit,
            });
        }
        hasher.update(&buffer[..n]);
    }
}

/// Opens what must be a file, so that a pipe without a writer is not waited for.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
    if metadata.is_dir() {
        return Err(Error::WrongKind { path: path.into(), expected: "a file", found: "a directory" });
    }
    if !metadata.is_file() {
        return Err(Error::WrongKind { path: path.into(), expected: "a file", found: "a device or pipe" });
    }
    File::open(path).map_err(Error::io("open", path))
}

/// Refuses what is surely meant otherwise.
fn check_directory(dir: &Path) -> Result<()> {
    let metadata = fs::metadata(dir).map_err(Error::io("open", dir))?;
    let expected = "a directory with a root filesystem";
    if !metadata.is_dir() {
        return Err(Error::WrongKind { path: dir.into(), expected, found: "a file" });
    }
    if dir.join("oci-layout").is_file() && dir.join("index.json").is_file() {
        let found = "an OCI image layout (the source oci:DIR)";
        return Err(Error::WrongKind { path: dir.into(), expected, found });
    }
    Ok(())
}
