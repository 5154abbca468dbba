//! Writing images to an archive that other tools read.
//!
//! The archive is an OCI layout and has Docker's `manifest.json` too, as those of `docker save` are since version 25.
//! Blobs go into it as they are, so digests stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read, Write},
};

use crate::{
    Digest, Error, Reference, Result, Store,
    archive::Item,
    layout::CONTAINERD_NAME,
    manifest::{Descriptor, Index, OCI_INDEX, REF_NAME},
    store::Operation,
};

const ARCHIVE: &str = "the archive";

impl Store {
    /// Writes images to one archive. Each is named by a reference, and keeps that name, or by an id, and has none then.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchImage`] or [`Error::AmbiguousId`], before anything is written; or if the store cannot be read or
    /// `out` not be written.
    pub fn save(&self, images: &[impl AsRef<str>], out: impl Write) -> Result<()> {
        let operation = Operation::begin(self)?;
        let mut wanted: BTreeMap<Digest, BTreeSet<Reference>> = BTreeMap::new();
        for name in images.iter().map(AsRef::as_ref) {
            let info = self.inspect(name)?;
            let reference = name.parse::<Reference>().ok().filter(|reference| info.names.contains(reference));
            wanted.entry(info.manifest_digest).or_default().extend(reference);
        }
        let (mut items, mut entries, mut blobs) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (digest, names) in wanted {
            let documents = self.documents(&digest)?;
            blobs.extend(documents.manifest.blobs().map(|blob| blob.digest).chain([digest]));
            // Docker knows no names with digests here.
            let tagged = |name: &&Reference| name.tag().is_some() && name.digest().is_none();
            let names: Vec<&Reference> = names.iter().filter(tagged).collect();
            items.push(Item {
                config: blob_name(&documents.manifest.config.digest),
                repo_tags: Some(names.iter().map(|name| name.familiar()).collect()),
                layers: Some(
                    documents.manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
                ),
            });
            let size = self.read_document(&digest, u64::MAX)?.len() as u64;
            let mut entry = Descriptor::new(&documents.manifest.media_type, digest, size);
            entry.platform = Some(documents.config.platform());
            let copies = names.iter().map(|name| {
                let mut entry = entry.clone();
                entry.annotate(CONTAINERD_NAME, name.to_string());
                entry.annotate(REF_NAME, name.tag().unwrap_or_default());
                entry
            });
            let before = entries.len();
            entries.extend(copies);
            if entries.len() == before {
                entries.push(entry);
            }
        }
        operation.pin_blobs(self, &blobs)?;
        let index = Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests: entries };
        self.write_archive(&blobs, &items, &index, out)
    }

    fn write_archive(
        &self,
        blobs: &BTreeSet<Digest>,
        items: &[Item],
        index: &Index,
        out: impl Write,
    ) -> Result<()> {
        let json = |value: serde_json::Result<Vec<u8>>| {
            value.map_err(|source| Error::Malformed { what: ARCHIVE.into(), source })
        };
        let documents = [
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json", json(serde_json::to_vec(index))?),
            ("manifest.json", json(serde_json::to_vec(items))?),
        ];
        let mut tar = tar::Builder::new(out);
        for (name, text) in documents {
            append(&mut tar, name, text.len() as u64, &*text)?;
        }
        for digest in blobs {
            let path = self.blob_path(digest);
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            let size = file.metadata().map_err(Error::io("inspect", &path))?.len();
            append(&mut tar, &blob_name(digest), size, file.take(size))?;
        }
        let finished = tar.into_inner().and_then(|mut out| out.flush());
        finished.map_err(Error::io("write", ARCHIVE))
    }
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl Read) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    let appended: io::Result<()> = tar.append_data(&mut header, name, content);
    appended.map_err(Error::io("write", ARCHIVE))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
