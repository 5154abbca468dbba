//! Images made in memory.

use std::{collections::BTreeMap, io::Write};

use cellule_image::Digest;
use serde_json::{Value, json};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image: its blobs by digest, of which one is the manifest.
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    /// As they are transferred.
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) plain_layers: Vec<Vec<u8>>,
}

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

impl Fixture {
    /// An image for linux/amd64 of two layers of about 100 kB each.
    pub(crate) fn new() -> Self {
        Self::of(
            "amd64",
            &[
                tar_of(&[("etc/name", b"lower"), ("noise", &noise(1, 100_000))]),
                tar_of(&[("etc/name", b"upper"), ("more", &noise(2, 100_000))]),
            ],
        )
    }

    pub(crate) fn of(architecture: &str, plain_layers: &[Vec<u8>]) -> Self {
        let diff_ids: Vec<String> = plain_layers.iter().map(|layer| digest_of(layer)).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": { "Cmd": ["/bin/true"], "Env": ["A=1"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        Self::with_config(&config, plain_layers)
    }

    pub(crate) fn with_config(config: &Value, plain_layers: &[Vec<u8>]) -> Self {
        let config = serde_json::to_vec(config).unwrap();
        let layers: Vec<Vec<u8>> = plain_layers.iter().map(|layer| gzip(layer)).collect();
        let describe = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest_of(bytes), "size": bytes.len() });
        let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": describe("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|layer| describe(layer_type, layer)).collect::<Vec<_>>(),
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let blobs =
            layers.iter().chain([&config, &manifest]).map(|blob| (digest_of(blob), blob.clone())).collect();
        Self { blobs, manifest, config, layers, plain_layers: plain_layers.to_vec() }
    }

    pub(crate) fn layer_digest(&self, number: usize) -> String {
        digest_of(&self.layers[number])
    }

    /// Its entry in an index.
    pub(crate) fn entry(&self, platform: Option<&str>) -> Value {
        let mut entry = json!({ "mediaType": MANIFEST, "digest": digest_of(&self.manifest), "size": self.manifest.len() });
        if let Some((os, architecture)) = platform.and_then(|platform| platform.split_once('/')) {
            entry["platform"] = json!({ "os": os, "architecture": architecture });
        }
        entry
    }

    /// An index of such entries.
    pub(crate) fn index(entries: &[Value]) -> Vec<u8> {
        serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries })).unwrap()
    }
}
