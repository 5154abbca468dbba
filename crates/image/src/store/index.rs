//! `index.json`: which names the store has, and for which manifests.
//!
//! It has the form of an OCI image index. An entry with the annotation `org.opencontainers.image.ref.name` is a name;
//! one without is an image that has none. A manifest has one entry for each of its names, or one without.

use std::{collections::BTreeSet, io};

use super::{Store, atomic, blobs::read_bounded, lock::Mode};
use crate::{
    Digest, Error, Reference, Result,
    manifest::{Descriptor, Index, OCI_INDEX, REF_NAME},
};

/// What a registry said that the name stands for, which for an index is not the manifest.
const RESOLVED: &str = "io.cellule.resolved";

const MAX_INDEX: u64 = 256 << 20;

/// An image to be recorded: its manifest, and the names that it gets.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) descriptor: Descriptor,
    pub(crate) names: Vec<Reference>,
    pub(crate) resolved: Option<Digest>,
}

impl Descriptor {
    /// The name of this entry of the store's index.
    pub(super) fn name(&self) -> Option<Reference> {
        self.annotation(REF_NAME)?.parse().ok()
    }

    pub(super) fn resolved(&self) -> Option<Digest> {
        self.annotation(RESOLVED)?.parse().ok()
    }
}

impl Store {
    pub(super) fn read_index(&self) -> Result<Index> {
        let path = self.root.join("index.json");
        let bytes = match read_bounded(&path, MAX_INDEX) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Index::default());
            }
            bytes => bytes?,
        };
        serde_json::from_slice(&bytes)
            .map_err(|source| Error::Malformed { what: path.display().to_string(), source })
    }

    /// Replaces the index. Needs the exclusive lock.
    pub(super) fn write_index(&self, mut index: Index) -> Result<()> {
        index.schema_version = 2;
        index.media_type = OCI_INDEX.into();
        drop_needless_entries(&mut index);
        let text = serde_json::to_vec_pretty(&index)
            .map_err(|source| Error::Malformed { what: "the index of the store".into(), source })?;
        atomic::write(&self.tmp_dir(), &self.root.join("index.json"), &text)
    }

    /// Records an image. A name that another image had moves to this one; the other stays, without it.
    pub(crate) fn record(&self, entry: &Entry) -> Result<()> {
        let mut bare = entry.descriptor.clone();
        bare.annotations = None;
        let names: BTreeSet<String> = entry.names.iter().map(ToString::to_string).collect();
        let _lock = self.lock(Mode::Exclusive)?;
        let mut index = self.read_index()?;
        for old in &mut index.manifests {
            if old.annotation(REF_NAME).is_some_and(|name| names.contains(name)) {
                old.annotations = None;
            }
        }
        for name in names {
            let mut copy = bare.clone();
            copy.annotate(REF_NAME, name);
            if let Some(digest) = entry.resolved {
                copy.annotate(RESOLVED, digest.to_string());
            }
            index.manifests.push(copy);
        }
        index.manifests.push(bare);
        self.write_index(index)
    }

    /// Gives an image that is in the store a further name, which another image loses if it had it.
    ///
    /// # Errors
    ///
    /// As [`inspect`](Self::inspect); or if the store cannot be written.
    pub fn tag(&self, image: &str, name: &Reference) -> Result<()> {
        let manifest = self.inspect(image)?.manifest_digest;
        let entry = self.read_index()?.manifests.into_iter().find(|entry| entry.digest == manifest);
        let descriptor = entry.ok_or_else(|| Error::NoSuchImage { name: image.into() })?;
        self.record(&Entry { descriptor, names: vec![name.clone()], resolved: None })
    }

    /// The names of a manifest, each with what the registry says that it stands for.
    pub(crate) fn names_of(&self, manifest: &Digest) -> Result<Vec<(Reference, Option<Digest>)>> {
        let index = self.read_index()?;
        let entries = index.manifests.iter().filter(|entry| entry.digest == *manifest);
        Ok(entries.filter_map(|entry| Some((entry.name()?, entry.resolved()))).collect())
    }

    /// The entry of a name.
    pub(crate) fn find_name(&self, reference: &Reference) -> Result<Option<(Descriptor, Option<Digest>)>> {
        let name = reference.to_string();
        let index = self.read_index()?;
        let found = index.manifests.into_iter().find(|entry| entry.annotation(REF_NAME) == Some(&name));
        Ok(found.map(|entry| {
            let resolved = entry.resolved();
            (entry, resolved)
        }))
    }
}

/// An entry without a name is only there to keep an image that has no other.
fn drop_needless_entries(index: &mut Index) {
    let named: BTreeSet<Digest> = index
        .manifests
        .iter()
        .filter(|entry| entry.annotation(REF_NAME).is_some())
        .map(|entry| entry.digest)
        .collect();
    let mut seen = BTreeSet::new();
    index.manifests.retain(|entry| {
        entry.annotation(REF_NAME).is_some() || (!named.contains(&entry.digest) && seen.insert(entry.digest))
    });
}
