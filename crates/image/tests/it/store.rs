//! The store's own affairs: names, removal, pruning, users of images, several processes.

use std::{collections::BTreeMap, fs};

use cellule_image::{Error, Hold, PruneOptions, RemoveOptions, Store};

use crate::support::{Fixture, Server, assert_nothing_left, digest_of, files, new_store, pull, tar_of};

fn two_images() -> (Fixture, Fixture) {
    let shared = tar_of(&[("shared", b"x")]);
    let one = Fixture::of("amd64", &[shared.clone(), tar_of(&[("one", b"1")])]);
    let two = Fixture::of("amd64", &[shared, tar_of(&[("two", b"2")])]);
    (one, two)
}

#[test]
fn an_image_is_found_by_name_and_by_an_unambiguous_id() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    let (_dir, store) = new_store();
    let info = pull(&store, &server.image()).unwrap().info;
    let hex = info.id.hex();
    for name in
        [server.image(), hex.clone(), hex[..4].into(), info.id.to_string(), info.manifest_digest.to_string()]
    {
        assert_eq!(store.inspect(&name).unwrap(), info, "{name}");
    }
    for name in ["", "sha256:", "other", "-"] {
        assert!(matches!(store.inspect(name), Err(Error::NoSuchImage { .. })), "{name}");
    }
    assert_eq!(info.layers[0].diff_id.to_string(), digest_of(&fixture.plain_layers[0]));
    assert!(info.disk_size >= info.content_size);
    let json = serde_json::to_value(&info).unwrap();
    assert_eq!(
        (json["config"]["Cmd"][0].as_str(), json["platform"]["os"].as_str()),
        (Some("/bin/true"), Some("linux"))
    );
}

#[test]
fn removing_one_of_two_names_keeps_the_image() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    let id = pull(&store, &server.image()).unwrap().info.id;
    store.tag(&server.image(), &"second:1".parse().unwrap()).unwrap();
    let removed = store.remove(&server.image(), &RemoveOptions::default()).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec![server.image().parse().unwrap()], None));
    assert_eq!(store.inspect("second:1").unwrap().id, id);
    let removed = store.remove("second:1", &RemoveOptions::default()).unwrap();
    assert_eq!(removed.deleted, Some(id));
    assert!(removed.bytes > 0);
    assert_nothing_left(&store);
}

#[test]
fn removing_by_id_an_image_of_several_repositories_needs_force() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    let id = pull(&store, &server.image()).unwrap().info.id;
    store.tag(&server.image(), &format!("{}/t:2", server.host()).parse().unwrap()).unwrap();
    store.tag(&server.image(), &"second:1".parse().unwrap()).unwrap();
    let result = store.remove(&id.hex()[..12], &RemoveOptions::default());
    assert!(matches!(result, Err(Error::SeveralNames { names, .. }) if names.len() == 3));
    let force = RemoveOptions { force: true, ..RemoveOptions::default() };
    assert_eq!(store.remove(&id.hex()[..12], &force).unwrap().untagged.len(), 3);
    assert_nothing_left(&store);
    assert!(matches!(store.remove("second:1", &force), Err(Error::NoSuchImage { .. })));
}

#[test]
fn removing_an_image_keeps_what_another_shares() {
    let (one, two) = two_images();
    let server = Server::new();
    server.add(&one, "one");
    server.add(&two, "two");
    let (_dir, store) = new_store();
    let [one_name, two_name] = ["one", "two"].map(|tag| format!("{}/t:{tag}", server.host()));
    pull(&store, &one_name).unwrap();
    pull(&store, &two_name).unwrap();
    store.remove(&one_name, &RemoveOptions::default()).unwrap();
    let blob = |digest: String| store.root().join("blobs").join(digest.replace(':', "/"));
    assert!(blob(two.layer_digest(0)).exists());
    assert!(!blob(one.layer_digest(1)).exists());
    let image = pull(&store, &two_name).unwrap();
    assert!(image.rootfs.path.exists());
}

#[test]
fn an_image_that_is_held_is_neither_removed_nor_pruned() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    let image = pull(&store, &server.image()).unwrap();
    let hold = Hold::take(&image.rootfs.path).unwrap();
    drop(image);
    let force = RemoveOptions { force: true, ..RemoveOptions::default() };
    assert!(matches!(store.remove(&server.image(), &force), Err(Error::InUse { can_be_forced: false, .. })));
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    assert!(store.prune(&all).unwrap().images.is_empty());
    let path = hold.path().to_owned();
    drop(hold);
    assert_eq!(store.prune(&all).unwrap().images.len(), 1);
    assert!(matches!(Hold::take(&path), Err(Error::Io { .. })));
    assert_nothing_left(&store);
}

#[test]
fn an_image_that_the_caller_uses_is_removed_by_force_only() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    let id = pull(&store, &server.image()).unwrap().info.id;
    let in_use = BTreeMap::from([(id, "sandbox x".to_owned())]);
    let all = PruneOptions { all: true, in_use: in_use.clone(), ..PruneOptions::default() };
    assert!(store.prune(&all).unwrap().images.is_empty());
    let mut options = RemoveOptions { in_use, ..RemoveOptions::default() };
    let result = store.remove(&server.image(), &options);
    assert!(matches!(result, Err(Error::InUse { user, can_be_forced: true, .. }) if user == "sandbox x"));
    options.force = true;
    assert_eq!(store.remove(&server.image(), &options).unwrap().deleted, Some(id));
    assert_nothing_left(&store);
}

#[test]
fn a_dry_run_says_what_a_prune_then_does() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    pull(&store, &server.image()).unwrap();
    let before = files(store.root());
    let mut options = PruneOptions { all: true, dry_run: true, ..PruneOptions::default() };
    let said = store.prune(&options).unwrap();
    assert_eq!(files(store.root()), before);
    assert_eq!(said.images.len(), 1);
    options.dry_run = false;
    let done = store.prune(&options).unwrap();
    assert_eq!((&done, done.bytes() > 0), (&said, true));
    assert_nothing_left(&store);
}

#[test]
fn an_image_with_a_damaged_document_is_pruned_and_can_be_pulled_again() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    let (_dir, store) = new_store();
    pull(&store, &server.image()).unwrap();
    let config = store.root().join("blobs").join(digest_of(&fixture.config).replace(':', "/"));
    fs::write(&config, "{}").unwrap();
    assert!(matches!(store.list(), Err(Error::DigestMismatch { .. })));
    pull(&store, &server.image()).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    fs::write(&config, "{}").unwrap();
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().images.len(), 1);
    assert_nothing_left(&store);
}

#[test]
fn a_damaged_index_is_an_error_that_names_it() {
    let (_dir, store) = new_store();
    fs::write(store.root().join("index.json"), "{").unwrap();
    assert!(matches!(store.list(), Err(Error::Malformed { what, .. }) if what.ends_with("index.json")));
    assert!(store.prune(&PruneOptions::default()).is_err());
}

#[test]
fn many_writers_of_the_index_lose_no_name() {
    let server = Server::with(&Fixture::new());
    let (dir, store) = new_store();
    pull(&store, &server.image()).unwrap();
    let root = dir.path().join("store");
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (root, image) = (root.clone(), server.image());
            std::thread::spawn(move || {
                let store = Store::open(root).unwrap();
                for n in 0..5 {
                    store.tag(&image, &format!("n:{thread}-{n}").parse().unwrap()).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(store.list().unwrap()[0].names.len(), 21);
}

#[test]
fn what_dead_processes_left_is_removed_by_the_next_open() {
    let (dir, store) = new_store();
    let tmp = store.root().join("tmp");
    fs::create_dir(tmp.join("op-dead")).unwrap();
    fs::write(tmp.join("op-dead/pins"), "blobs/sha256/x\n").unwrap();
    fs::write(tmp.join("blob-dead"), [0; 9000]).unwrap();
    let pruned = store.prune(&PruneOptions { dry_run: true, ..PruneOptions::default() }).unwrap();
    assert!(pruned.bytes() >= 9000);
    let store = Store::open(dir.path().join("store")).unwrap();
    assert_nothing_left(&store);
}

#[test]
fn a_directory_that_cannot_be_a_store_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let result = Store::open(dir.path().join("file/store"));
    assert!(matches!(result, Err(Error::Io { path, .. }) if path.ends_with("file/store")));
}
