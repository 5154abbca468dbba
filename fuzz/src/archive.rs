//! Archives of images as `docker save` writes them, and as OCI layouts.

use cellule_image::{Digest, Platform};

use crate::tar::{Entry, tar};

/// The configuration of an image with these plain layers.
pub fn config(layers: &[&[u8]]) -> String {
    let Platform { os, architecture, .. } = Platform::host();
    let diff_ids: Vec<String> =
        layers.iter().map(|layer| format!("{:?}", Digest::of(layer).to_string())).collect();
    format!(
        r#"{{"os":"{os}","architecture":"{architecture}","config":{{"Env":["A=b"],"Cmd":["sh"],"User":"1:2","Volumes":{{"/v":{{}}}},"Labels":{{"a":"b"}}}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
}

/// A layer that hardly weighs anything.
pub fn layer() -> Vec<u8> {
    tar(&[Entry::file("a", b"contents")])
}

/// What `docker save` wrote of old: a layer once, and a link to it.
pub fn docker() -> Vec<u8> {
    let layer = layer();
    let manifest = r#"[{"Config":"c.json","RepoTags":["a/b:1"],"Layers":["l.tar","m/l.tar"]}]"#;
    tar(&[
        Entry::file("manifest.json", manifest.as_bytes()),
        Entry::file("c.json", config(&[&layer, &layer]).as_bytes()),
        Entry::file("l.tar", &layer),
        Entry::symlink("m/l.tar", "../l.tar"),
    ])
}

/// A tar of an OCI layout.
pub fn oci() -> Vec<u8> {
    let layer = layer();
    let config = config(&[&layer]);
    let manifest = manifest(&descriptor(CONFIG, config.as_bytes()), &[descriptor(LAYER, &layer)]);
    let index = index(&[descriptor(MANIFEST, manifest.as_bytes())]);
    let blob = |bytes: &[u8]| Entry::file(&format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes);
    tar(&[
        Entry::file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        Entry::file("index.json", index.as_bytes()),
        blob(manifest.as_bytes()),
        blob(config.as_bytes()),
        blob(&layer),
    ])
}

/// The media type of a configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of a plain layer.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Points to a blob.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> String {
    let (digest, size) = (Digest::of(bytes), bytes.len());
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

/// A manifest of these descriptors.
pub fn manifest(config: &str, layers: &[String]) -> String {
    let layers = layers.join(",");
    format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layers}]}}"#)
}

/// An index of these descriptors.
pub fn index(manifests: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, manifests.join(","))
}
