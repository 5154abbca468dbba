//! Writes small images as OCI layouts, layer by layer, so that tests know every byte of them.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// One entry of a layer.
#[derive(Debug, Clone)]
pub enum Entry<'a> {
    /// A file with its mode, owner and content.
    File(&'a str, u32, (u64, u64), &'a [u8]),
    /// A directory with its mode.
    Dir(&'a str, u32),
    /// A symbolic link and where it leads.
    Link(&'a str, &'a str),
    /// The mark that removes a path of the layers below.
    Whiteout(&'a str),
}

/// The tar of a layer.
pub fn layer(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(1_700_000_000);
        header.set_size(0);
        header.set_uid(0);
        header.set_gid(0);
        match *entry {
            Entry::File(path, mode, (uid, gid), content) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(mode);
                header.set_uid(uid);
                header.set_gid(gid);
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, path, content).unwrap();
            }
            Entry::Dir(path, mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(mode);
                tar.append_data(&mut header, path, std::io::empty()).unwrap();
            }
            Entry::Link(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                tar.append_link(&mut header, path, target).unwrap();
            }
            Entry::Whiteout(path) => {
                let path = Path::new(path);
                let mark = format!(".wh.{}", path.file_name().unwrap().to_string_lossy());
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(0);
                tar.append_data(&mut header, path.with_file_name(mark), std::io::empty()).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn blob(dir: &Path, bytes: &[u8]) -> String {
    let digest = digest(bytes);
    fs::write(dir.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap()), bytes).unwrap();
    digest
}

/// How layers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// By gzip, as most images are.
    Gzip,
    /// By zstd.
    Zstd,
}

/// Writes a layout with one image: its layers as tars, the bottom one first, and the `config` of its configuration.
pub fn write(
    dir: &Path,
    tag: &str,
    architecture: &str,
    layers: &[&[u8]],
    compression: Compression,
    config: &Value,
) {
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let mut descriptors = Vec::new();
    for tar in layers {
        let (bytes, media) = match compression {
            Compression::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(tar).unwrap();
                (gzip.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip")
            }
            Compression::Zstd => {
                (zstd::encode_all(*tar, 1).unwrap(), "application/vnd.oci.image.layer.v1.tar+zstd")
            }
        };
        descriptors.push(json!({ "mediaType": media, "digest": blob(dir, &bytes), "size": bytes.len() }));
    }
    let diff_ids: Vec<String> = layers.iter().map(|tar| digest(tar)).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": blob(dir, &config), "size": config.len(),
        },
        "layers": descriptors,
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": blob(dir, &manifest), "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": tag },
            "platform": { "os": "linux", "architecture": architecture },
        }],
    });
    fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
