//! Archives of images: what `docker save` writes, old and new, and tars of OCI layouts.
//!
//! `manifest.json` names the images and, by path, their configurations and layers. Newer archives are OCI layouts too;
//! if such a one has the manifest of an image, that is kept, and with it the image's digest.

mod sections;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use cellule_rootfs::Compression;
use serde::{Deserialize, Serialize};

use self::sections::{Section, Sections};
use crate::{
    Digest, Error, Image, Options, Reference, Result, Store,
    decompress::{decompress, recognise},
    error::blocking,
    image::{Fetched, check_platform, parse_config},
    import::open_file,
    layout::{BlobSource, Candidate, candidates, find_manifest, missing},
    manifest::{Descriptor, OCI_LAYER},
    store::Operation,
};

/// An image of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Item {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
}

/// An archive whose entries can be read in any order.
struct Archive {
    path: PathBuf,
    sections: Sections,
    /// The entries of its index, where it is an OCI layout.
    layout: Vec<Candidate>,
    items: Option<Vec<Item>>,
}

impl BlobSource for Archive {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>> {
        let section = self.sections.find(&format!("blobs/sha256/{}", digest.hex()));
        Ok(Box::new(section.ok_or_else(|| missing(self, digest))?))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Archive {
    fn open(operation: &Operation, mut file: File, path: &Path, options: &Options) -> Result<Self> {
        let io = || Error::io("read", path);
        let (compression, _) = recognise(&mut file).map_err(io())?;
        file.rewind().map_err(io())?;
        let file = if compression == Compression::None {
            file
        } else {
            let mut plain = decompress(compression, file).map_err(io())?;
            spool(operation, &mut plain, path, options)?
        };
        let sections = Sections::read(file, path, options.limits.archive_entries)?;
        let mut archive = Self { path: path.into(), sections, layout: Vec::new(), items: None };
        if let Some(index) = archive.document("index.json", options)? {
            archive.layout = candidates(&index, path)?;
        }
        if let Some(items) = archive.document("manifest.json", options)? {
            let malformed =
                |source| Error::Malformed { what: path.join("manifest.json").display().to_string(), source };
            archive.items = Some(serde_json::from_slice(&items).map_err(malformed)?);
        }
        Ok(archive)
    }

    fn document(&self, name: &str, options: &Options) -> Result<Option<Vec<u8>>> {
        self.sections.find(name).map(|section| self.read_small(section, name, options)).transpose()
    }

    fn read_small(&self, mut section: Section, name: &str, options: &Options) -> Result<Vec<u8>> {
        let (actual, allowed) = (section.len(), options.limits.document);
        if actual > allowed {
            let what = self.path.join(name).display().to_string();
            return Err(Error::Limit { what, field: "bytes", actual, allowed });
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).map_err(Error::io("read", &self.path))?;
        Ok(bytes)
    }

    fn entry(&self, name: &str) -> Result<Section> {
        let missing = || Error::Missing { path: self.path.clone(), what: format!("entry {name:?}") };
        self.sections.find(name).ok_or_else(missing)
    }

    /// The layout's own entry for the image with that configuration.
    fn manifest_of(&self, config: &str, options: &Options) -> Option<Descriptor> {
        self.layout.iter().flat_map(|candidate| &candidate.entries).find_map(|entry| {
            let (found, _, manifest) =
                find_manifest(self, vec![entry.clone()], options, "the archive").ok()?;
            config.ends_with(&manifest.config.digest.hex()).then_some(found)
        })
    }
}

impl Store {
    /// One image of an archive.
    pub(crate) async fn read_archive(
        &self,
        file: &Path,
        name: Option<&Reference>,
        options: &Options,
    ) -> Result<Image> {
        let operation = self.begin().await?;
        let (store, name, own) = (self.clone(), name.cloned(), options.clone());
        let file = file.to_owned();
        let (operation, fetched) = blocking(move || {
            let archive = Archive::open(&operation, open_file(&file)?, &file, &own)?;
            let missing = |what: String| Error::Missing { path: file.clone(), what };
            let items = archive.items.as_deref().ok_or_else(|| missing("manifest.json".into()))?;
            let item = match &name {
                Some(name) => {
                    let item = items.iter().find(|item| references(item).contains(name));
                    item.ok_or_else(|| missing(format!("image {name}")))?
                }
                None if items.len() > 1 => {
                    let names =
                        items.iter().flat_map(|item| item.repo_tags.clone().unwrap_or_default()).collect();
                    return Err(Error::SeveralImages { path: file.clone(), names });
                }
                None => items.first().ok_or_else(|| missing("image".into()))?,
            };
            let fetched = store.copy_item(&operation, &archive, item, &own)?;
            Ok((operation, fetched))
        })
        .await?;
        self.complete(&operation, fetched, options).await
    }

    /// Stores all images of an archive, under the names that they have in it. It may be a `docker save` archive or a
    /// tar of an OCI layout, plain or compressed.
    ///
    /// # Errors
    ///
    /// If the archive, or an image in it, cannot be read, is malformed or exceeds the limits. Images before that one
    /// stay.
    pub async fn load(&self, archive: LoadFrom, options: &Options) -> Result<Vec<Image>> {
        let operation = self.begin().await?;
        let (store, own) = (self.clone(), options.clone());
        let (operation, all) = blocking(move || {
            let archive = match archive {
                LoadFrom::File(path) => Archive::open(&operation, open_file(&path)?, &path, &own)?,
                LoadFrom::Reader(mut reader) => {
                    let path = Path::new("the given archive");
                    let file = spool(&operation, &mut reader, path, &own)?;
                    Archive::open(&operation, file, path, &own)?
                }
            };
            let mut all = Vec::new();
            match &archive.items {
                Some(items) => {
                    for item in items {
                        let fetched = store.copy_item(&operation, &archive, item, &own)?;
                        all.push(Fetched { names: references(item), ..fetched });
                    }
                }
                None => {
                    for candidate in &archive.layout {
                        let fetched =
                            store.copy_image(&operation, &archive, candidate.entries.clone(), &own)?;
                        all.push(Fetched { names: candidate.reference().into_iter().collect(), ..fetched });
                    }
                }
            }
            if all.is_empty() {
                return Err(Error::Missing {
                    path: archive.path,
                    what: "image (manifest.json or index.json)".into(),
                });
            }
            Ok((operation, all))
        })
        .await?;
        let mut images = Vec::new();
        for fetched in all {
            images.push(self.complete(&operation, fetched, options).await?);
        }
        Ok(images)
    }

    /// Copies an image that `manifest.json` describes.
    fn copy_item(
        &self,
        operation: &Operation,
        archive: &Archive,
        item: &Item,
        options: &Options,
    ) -> Result<Fetched> {
        if let Some(entry) = archive.manifest_of(&item.config, options) {
            return self.copy_image(operation, archive, vec![entry], options);
        }
        let what = format!("the image in {}", archive.path.display());
        let config_bytes = archive.read_small(archive.entry(&item.config)?, &item.config, options)?;
        let config = parse_config(&config_bytes, &what)?;
        check_platform(&config, options, &what)?;
        let paths = item.layers.as_deref().unwrap_or_default();
        let (actual, allowed) = (paths.len() as u64, options.limits.layers as u64);
        if actual > allowed {
            return Err(Error::Limit { what, field: "layers", actual, allowed });
        }
        let mut layers = Vec::new();
        // Empty layers, which some images have many of, are one entry.
        let mut seen: BTreeMap<&str, Descriptor> = BTreeMap::new();
        for (path, number) in paths.iter().zip(1..) {
            if let Some(layer) = seen.get(path.as_str()) {
                layers.push(layer.clone());
                continue;
            }
            let layer_name = format!("layer {number} ({path}) in {}", archive.path.display());
            let mut section = archive.entry(path)?;
            let (compression, mut reader) =
                recognise(&mut section).map_err(Error::io("read", &archive.path))?;
            let suffix = match compression {
                Compression::None | Compression::Xz => "",
                Compression::Gzip => "+gzip",
                Compression::Zstd => "+zstd",
            };
            let limit = options.limits.layer;
            let blob = if compression == Compression::Xz {
                let mut plain =
                    decompress(compression, reader).map_err(Error::io("decompress", &layer_name))?;
                operation.ingest(&mut plain, limit, &layer_name)?
            } else {
                operation.ingest(&mut reader, limit, &layer_name)?
            };
            self.adopt(operation, &blob)?;
            let layer = Descriptor::new(&format!("{OCI_LAYER}{suffix}"), blob.digest, blob.size);
            seen.insert(path, layer.clone());
            layers.push(layer);
        }
        self.with_manifest(operation, &config_bytes, config, layers, what)
    }
}

/// Where an archive comes from.
pub enum LoadFrom {
    /// A file.
    File(PathBuf),
    /// A stream, of which a temporary copy is made.
    Reader(Box<dyn Read + Send>),
}

impl std::fmt::Debug for LoadFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Reader(_) => f.write_str("Reader"),
        }
    }
}

fn references(item: &Item) -> Vec<Reference> {
    item.repo_tags.iter().flatten().filter_map(|tag| tag.parse().ok()).collect()
}

/// Copies a stream to a temporary file, which is then read from its start.
fn spool(operation: &Operation, reader: &mut dyn Read, what: &Path, options: &Options) -> Result<File> {
    // Without a name, so that it goes with the process.
    let path = operation.path("");
    let mut file = tempfile::tempfile_in(&path).map_err(Error::io("create a file in", &path))?;
    let allowed = options.limits.layer;
    let mut buffer = vec![0; 256 << 10];
    let mut actual = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => {
                file.rewind().map_err(Error::io("read", &path))?;
                return Ok(file);
            }
            Ok(n) => {
                actual += n as u64;
                if actual > allowed {
                    let what = what.display().to_string();
                    return Err(Error::Limit { what, field: "bytes or more", actual, allowed });
                }
                file.write_all(&buffer[..n]).map_err(Error::io("write", &path))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", what)(error)),
        }
    }
}
