//! Manifests and indexes, in the form of OCI and in that of Docker's schema 2, which is the same but for the names.
//!
//! The types are our own: those of the oci-spec crate cost four procedural-macro crates and regex for six structs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Limits, Platform, Result};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// Where the name of an image stands in the index of an OCI layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// How many indexes may point to one another before a manifest comes.
pub(crate) const MAX_INDEX_DEPTH: usize = 4;

/// Points to a blob: its type, digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) urls: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, urls: None, annotations: None, platform: None }
    }

    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    pub(crate) fn annotate(&mut self, name: &str, value: impl Into<String>) {
        self.annotations.get_or_insert_default().insert(name.into(), value.into());
    }

    fn normal_platform(&self) -> Option<Platform> {
        let raw = self.platform.as_ref()?;
        Some(Platform::new(&raw.os, &raw.architecture, raw.variant.as_deref()))
    }

    pub(crate) fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_INDEX)
    }

    pub(crate) fn is_manifest(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST)
    }
}

/// One image of one platform: its configuration and its layers, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Several images, usually one for each platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

/// What a registry or a layout has under a name.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Only what tells one kind of document from the other.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads the document `bytes`. Its own `mediaType` counts before the `content_type` that came with it.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>, what: &str) -> Result<Self> {
        let malformed = |source| Error::Malformed { what: what.into(), source };
        let outline: Outline = serde_json::from_slice(bytes).map_err(malformed)?;
        let content_type = content_type.map(|full| full.split(';').next().unwrap_or(full).trim());
        let stated = outline.media_type.as_deref().filter(|stated| !stated.is_empty());
        if outline.schema_version == 1
            || stated.or(content_type).is_some_and(|t| t.starts_with(DOCKER_SCHEMA_1))
        {
            return Err(Error::Schema1 { what: what.into() });
        }
        // A document that is both could be one image to us and another to whoever checked it.
        let kind = match (outline.manifests, outline.layers) {
            (Some(_), None) => OCI_INDEX,
            (None, Some(_)) => OCI_MANIFEST,
            _ => return Err(Error::NotAnImage { what: what.into(), media_type: stated.map(Into::into) }),
        };
        match stated.unwrap_or(kind) {
            OCI_INDEX | DOCKER_INDEX if kind == OCI_INDEX => {
                Ok(Self::Index(serde_json::from_slice(bytes).map_err(malformed)?))
            }
            OCI_MANIFEST | DOCKER_MANIFEST if kind == OCI_MANIFEST => {
                let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(malformed)?;
                // The field is optional for OCI.
                if stated.is_none() {
                    let known = content_type.filter(|t| matches!(*t, OCI_MANIFEST | DOCKER_MANIFEST));
                    value["mediaType"] = known.unwrap_or(OCI_MANIFEST).into();
                }
                Ok(Self::Manifest(serde_json::from_value(value).map_err(malformed)?))
            }
            other => Err(Error::NotAnImage { what: what.into(), media_type: Some(other.into()) }),
        }
    }
}

impl Manifest {
    /// The manifest of an image that is made here.
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: OCI_MANIFEST.into(), config, layers }
    }

    /// Refuses what cannot be run or exceeds the limits, before any of it is fetched.
    pub(crate) fn check(&self, limits: &Limits, what: &str) -> Result<()> {
        let limit = |field: &'static str, actual: u64, allowed: u64| {
            if actual <= allowed {
                Ok(())
            } else {
                Err(Error::Limit { what: what.into(), field, actual, allowed })
            }
        };
        if !matches!(self.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(Error::NotAnImage {
                what: what.into(),
                media_type: Some(self.config.media_type.clone()),
            });
        }
        limit("bytes of configuration", self.config.size, limits.document)?;
        limit("layers", self.layers.len() as u64, limits.layers as u64)?;
        for layer in &self.layers {
            limit("bytes of one layer", layer.size, limits.layer)?;
            check_layer_type(layer)?;
        }
        Ok(())
    }

    /// Every blob that the manifest points to.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// The size of all layers as they are transferred.
    pub(crate) fn layer_bytes(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

fn check_layer_type(layer: &Descriptor) -> Result<()> {
    let is = |base: &str| {
        layer
            .media_type
            .strip_prefix(base)
            .is_some_and(|compression| matches!(compression, "" | "+gzip" | "+zstd" | ".gzip" | ".zstd"))
    };
    if is(OCI_LAYER) || is(DOCKER_LAYER) {
        return Ok(());
    }
    if is(OCI_FOREIGN_LAYER) || is(DOCKER_FOREIGN_LAYER) {
        let urls = layer.urls.clone().unwrap_or_default();
        return Err(Error::ForeignLayer { digest: layer.digest, urls });
    }
    Err(Error::UnsupportedLayer { digest: layer.digest, media_type: layer.media_type.clone() })
}

impl Index {
    /// The entry that serves `wanted` best.
    ///
    /// Entries without a platform are taken only where no entry has one: the image's configuration tells then.
    pub(crate) fn select(&self, wanted: &Platform, what: &str) -> Result<&Descriptor> {
        let images = || self.manifests.iter().filter(|entry| entry.is_manifest() || entry.is_index());
        let ranked = images().filter_map(|entry| Some((wanted.rank(&entry.normal_platform()?)?, entry)));
        if let Some((_, best)) = ranked.min_by_key(|(rank, _)| *rank) {
            return Ok(best);
        }
        if images().all(|entry| entry.platform.is_none())
            && let Some(first) = images().next()
        {
            return Ok(first);
        }
        let mut offered: Vec<Platform> = images().filter_map(Descriptor::normal_platform).collect();
        // Attestations stand in an index as images of an unknown platform.
        offered.retain(|platform| platform.os != "unknown");
        offered.sort();
        offered.dedup();
        Err(Error::WrongPlatform { what: what.into(), wanted: wanted.clone(), offered })
    }
}

#[cfg(test)]
mod tests;
