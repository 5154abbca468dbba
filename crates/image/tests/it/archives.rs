//! `docker save` archives, old and new, OCI layouts, and what this crate saves itself.

use std::{collections::BTreeMap, fs, io::Cursor, path::Path};

use cellule_image::{Error, LoadFrom, Policy, Store};
use serde_json::{Value, json};

use crate::support::{
    Fixture, Server, assert_nothing_left, assert_tmp_is_empty, digest_of, gzip, new_store, options, pull,
    run, tar_of,
};

fn blob_path(bytes: &[u8]) -> String {
    format!("blobs/{}", digest_of(bytes).replace(':', "/"))
}

fn write_layout(dir: &Path, images: &[(&Fixture, Value)]) {
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    for blob in images.iter().flat_map(|(image, _)| image.blobs.values()) {
        fs::write(dir.join(blob_path(blob)), blob).unwrap();
    }
    let entries: Vec<Value> = images.iter().map(|(_, entry)| entry.clone()).collect();
    fs::write(dir.join("index.json"), Fixture::index(&entries)).unwrap();
    fs::write(dir.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

fn tagged(image: &Fixture, tag: &str) -> Value {
    let mut entry = image.entry(None);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    entry
}

/// What `docker save` wrote before version 25: a directory for each layer, and links where a layer comes twice.
fn legacy_archive(image: &Fixture, tags: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, bytes).unwrap();
    };
    let config = format!("{}.json", digest_of(&image.config).trim_start_matches("sha256:"));
    let mut layers = Vec::new();
    for (number, layer) in image.plain_layers.iter().enumerate() {
        let path = format!("{number}/layer.tar");
        add(&path, layer);
        layers.push(path);
    }
    add(&config, &image.config);
    let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]);
    add("manifest.json", manifest.to_string().as_bytes());
    builder.into_inner().unwrap()
}

/// What `docker save` writes since: an OCI layout with uncompressed layers, and `manifest.json`.
fn new_archive(image: &Fixture, tags: &[&str]) -> Vec<u8> {
    let describe = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest_of(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("application/vnd.oci.image.config.v1+json", &image.config),
        "layers": image.plain_layers.iter()
            .map(|layer| describe("application/vnd.oci.image.layer.v1.tar", layer)).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let mut files: BTreeMap<String, Vec<u8>> = image
        .plain_layers
        .iter()
        .chain([&image.config, &manifest])
        .map(|blob| (blob_path(blob), blob.clone()))
        .collect();
    let layers: Vec<String> = image.plain_layers.iter().map(|layer| blob_path(layer)).collect();
    let items = json!([{ "Config": blob_path(&image.config), "RepoTags": tags, "Layers": layers }]);
    files.insert("manifest.json".into(), items.to_string().into_bytes());
    let entry = describe("application/vnd.oci.image.manifest.v1+json", &manifest);
    files.insert("index.json".into(), Fixture::index(&[entry]));
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    tar_of(&files)
}

fn load(store: &Store, archive: Vec<u8>) -> Result<Vec<cellule_image::Image>, Error> {
    run(store.load(LoadFrom::Reader(Box::new(Cursor::new(archive))), &options()))
}

#[test]
fn one_image_has_one_rootfs_whatever_it_comes_from() {
    let fixture = Fixture::new();
    let (dir, store) = new_store();
    let pulled = pull(&store, &Server::with(&fixture).image()).unwrap();

    let layout = dir.path().join("layout");
    write_layout(&layout, &[(&fixture, tagged(&fixture, "1"))]);
    let file = dir.path().join("archive.tar");
    let mut images = vec![
        pull(&store, &format!("oci:{}", layout.display())).unwrap(),
        pull(&store, &format!("oci:{}:1", layout.display())).unwrap(),
    ];
    for archive in [legacy_archive(&fixture, &["a:1"]), new_archive(&fixture, &["a:1"])] {
        fs::write(&file, &archive).unwrap();
        // Each in a store of its own too, so that nothing is found there already.
        let (_own_dir, own) = new_store();
        images.push(pull(&own, &format!("docker-archive:{}", file.display())).unwrap());
        images.push(pull(&store, &format!("docker-archive:{}:a:1", file.display())).unwrap());
        images.extend(load(&own, gzip(&archive)).unwrap());
        assert_tmp_is_empty(&own);
    }
    for image in images {
        assert_eq!((image.info.id, image.rootfs.digest), (pulled.info.id, pulled.rootfs.digest));
    }
}

#[test]
fn a_layout_with_several_images_needs_a_tag() {
    let (one, two) = (Fixture::new(), Fixture::of("amd64", &[tar_of(&[("x", b"y")])]));
    let (dir, store) = new_store();
    let layout = dir.path().join("layout");
    write_layout(&layout, &[(&one, tagged(&one, "one")), (&two, tagged(&two, "two"))]);
    let Err(Error::SeveralImages { names, .. }) = pull(&store, &format!("oci:{}", layout.display())) else {
        panic!()
    };
    assert_eq!(names, ["one", "two"]);
    let image = pull(&store, &format!("oci:{}:two", layout.display())).unwrap();
    assert_eq!(image.info.id.to_string(), digest_of(&two.config));
    assert!(matches!(pull(&store, &format!("oci:{}:three", layout.display())), Err(Error::Missing { .. })));
}

#[test]
fn a_layout_that_lies_or_lacks_a_blob_is_refused() {
    let fixture = Fixture::new();
    let (dir, store) = new_store();
    let layout = dir.path().join("layout");
    write_layout(&layout, &[(&fixture, fixture.entry(None))]);
    let source = format!("oci:{}", layout.display());
    let layer = layout.join(blob_path(&fixture.layers[1]));
    let mut lie = fixture.layers[1].clone();
    lie[20] ^= 1;
    fs::write(&layer, &lie).unwrap();
    assert!(matches!(pull(&store, &source), Err(Error::DigestMismatch { .. })));
    lie.push(0);
    fs::write(&layer, &lie).unwrap();
    assert!(matches!(pull(&store, &source), Err(Error::SizeMismatch { .. })));
    fs::remove_file(&layer).unwrap();
    assert!(matches!(pull(&store, &source), Err(Error::Missing { .. })));
    assert!(matches!(pull(&store, &format!("oci:{}", dir.path().display())), Err(Error::Missing { .. })));
    assert_nothing_left(&store);
}

#[test]
fn an_archive_of_another_architecture_or_without_its_layers_is_refused() {
    let (_dir, store) = new_store();
    let arm = Fixture::of("arm64", &[tar_of(&[("x", b"y")])]);
    assert!(matches!(load(&store, legacy_archive(&arm, &[])), Err(Error::WrongPlatform { .. })));
    let items = json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["../../etc/passwd"] }]).to_string();
    let config = Fixture::new().config;
    let archive = tar_of(&[("manifest.json", items.as_bytes()), ("c.json", &config)]);
    assert!(matches!(load(&store, archive), Err(Error::Missing { .. })));
    assert!(matches!(load(&store, tar_of(&[("x", b"y")])), Err(Error::Missing { .. })));
    assert!(load(&store, vec![1; 4096]).is_err());
    assert_nothing_left(&store);
}

#[test]
fn what_is_saved_can_be_loaded_as_it_was() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    let image = pull(&store, &server.image()).unwrap();
    store.tag(&server.image(), &"mine:2".parse().unwrap()).unwrap();
    let mut archive = Vec::new();
    store.save(&["mine:2", &server.image()], &mut archive).unwrap();
    assert_tmp_is_empty(&store);

    let (_dir, other) = new_store();
    let loaded = load(&other, archive).unwrap();
    assert_eq!(loaded.len(), 1);
    let info = &loaded[0].info;
    assert_eq!((info.id, info.manifest_digest), (image.info.id, image.info.manifest_digest));
    assert_eq!(info.names.len(), 2);
    assert_eq!(loaded[0].rootfs.digest, image.rootfs.digest);
    run(other.pull(&"mine:2".parse().unwrap(), Policy::Never, &options())).unwrap();

    let mut unnamed = Vec::new();
    store.save(&[image.info.id.to_string()], &mut unnamed).unwrap();
    let (_dir, third) = new_store();
    assert!(load(&third, unnamed).unwrap()[0].info.names.is_empty());
    assert!(matches!(store.save(&["nothing"], &mut Vec::new()), Err(Error::NoSuchImage { .. })));
}

#[test]
fn the_store_is_a_layout_itself() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    let image = pull(&store, &server.image()).unwrap();
    let (_dir, other) = new_store();
    let copy = pull(&other, &format!("oci:{}", store.root().display())).unwrap();
    assert_eq!(copy.info.manifest_digest, image.info.manifest_digest);
}
