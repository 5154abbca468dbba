//! Pulling from a registry that behaves.

use std::{fs, time::Duration};

use cellule_image::{Error, Policy, PruneOptions, Store};

use crate::support::{Fixture, Reply, Server, assert_tmp_is_empty, digest_of, new_store, options, pull, run};

#[test]
fn an_image_is_pulled_with_its_config_and_rootfs() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    let (_dir, store) = new_store();
    let image = pull(&store, &server.image()).unwrap();

    assert_eq!(image.info.id.to_string(), digest_of(&fixture.config));
    assert_eq!(image.info.manifest_digest.to_string(), digest_of(&fixture.manifest));
    assert_eq!(image.info.names, [server.image().parse().unwrap()]);
    assert_eq!(image.info.repo_digests, [format!("{}/t@{}", server.host(), digest_of(&fixture.manifest))]);
    assert_eq!(image.info.config.cmd, ["/bin/true"]);
    assert_eq!(image.info.created.as_deref(), Some("2024-01-02T03:04:05Z"));
    let erofs = fs::read(&image.rootfs.path).unwrap();
    assert_eq!((digest_of(&erofs), erofs.len() as u64), (image.rootfs.digest.to_string(), image.rootfs.size));
    assert_eq!(erofs[1024..1028], 0xe0f5_e1e2_u32.to_le_bytes());
    assert_tmp_is_empty(&store);
}

#[test]
fn what_is_there_is_not_asked_for_again() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    pull(&store, &server.image()).unwrap();
    let before = server.log().len();
    for policy in [Policy::Missing, Policy::Never] {
        run(store.pull(&server.image().parse().unwrap(), policy, &options())).unwrap();
    }
    assert_eq!(server.log().len(), before);
}

#[test]
fn always_asks_for_the_digest_and_no_more_if_it_is_the_same() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    pull(&store, &server.image()).unwrap();
    let before = server.requests("/v2/t/").len();
    run(store.pull(&server.image().parse().unwrap(), Policy::Always, &options())).unwrap();
    let after = server.requests("/v2/t/");
    assert_eq!((after.len() - before, after.last().unwrap().method.as_str()), (1, "HEAD"));
}

#[test]
fn a_tag_that_moved_takes_its_name_along() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    let old = pull(&store, &server.image()).unwrap().info.id;
    let newer = Fixture::of("amd64", &Fixture::new().plain_layers[..1]);
    server.add(&newer, "1");
    let new = run(store.pull(&server.image().parse().unwrap(), Policy::Always, &options())).unwrap();
    assert_ne!(new.info.id, old);
    // The layer that both have came once.
    assert_eq!(server.requests(&newer.layer_digest(0)).len(), 1);
    let list = store.list().unwrap();
    assert_eq!((list[0].id, list[0].names.len(), list[1].id, list[1].names.len()), (new.info.id, 1, old, 0));
    let pruned = store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(pruned.images, [(old, vec![])]);
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn never_fails_where_the_store_lacks_the_image() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    let result = run(store.pull(&server.image().parse().unwrap(), Policy::Never, &options()));
    assert!(matches!(result, Err(Error::NoSuchImage { .. })));
    assert!(server.log().is_empty());
}

#[test]
fn a_digest_decides_what_is_pulled() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    let (_dir, store) = new_store();
    let name = format!("{}/t@{}", server.host(), digest_of(&fixture.manifest));
    let image = pull(&store, &name).unwrap();
    assert_eq!(image.info.names[0].to_string(), name);
    server.set(&format!("/v2/t/manifests/{}", digest_of(b"other")), Reply::ok(fixture.manifest.clone()));
    let other = format!("{}/t@{}", server.host(), digest_of(b"other"));
    assert!(matches!(pull(&store, &other), Err(Error::DigestMismatch { .. })));
}

#[test]
fn an_index_gives_the_image_of_the_platform() {
    let (amd64, arm64) = (Fixture::new(), Fixture::of("arm64", &[Fixture::new().plain_layers[0].clone()]));
    let server = Server::with(&amd64);
    server.add(&arm64, "arm");
    server.set_manifest(
        "multi",
        &Fixture::index(&[arm64.entry(Some("linux/arm64")), amd64.entry(Some("linux/amd64"))]),
    );
    let (_dir, store) = new_store();
    let name = format!("{}/t:multi", server.host());
    assert_eq!(pull(&store, &name).unwrap().info.id.to_string(), digest_of(&amd64.config));
    let mut wanted = options();
    wanted.platform = "linux/arm64".parse().unwrap();
    let image = run(store.pull(&name.parse().unwrap(), Policy::Missing, &wanted)).unwrap();
    assert_eq!(image.info.id.to_string(), digest_of(&arm64.config));
    wanted.platform = "linux/s390x".parse().unwrap();
    let Err(Error::WrongPlatform { offered, .. }) =
        run(store.pull(&name.parse().unwrap(), Policy::Missing, &wanted))
    else {
        panic!()
    };
    assert_eq!(offered.iter().map(ToString::to_string).collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
}

#[test]
fn an_image_of_another_architecture_is_refused_before_its_layers_come() {
    let fixture = Fixture::of("arm64", &Fixture::new().plain_layers);
    let server = Server::with(&fixture);
    let (_dir, store) = new_store();
    let Err(Error::WrongPlatform { offered, .. }) = pull(&store, &server.image()) else { panic!() };
    assert_eq!(offered[0].to_string(), "linux/arm64");
    assert!(server.requests(&fixture.layer_digest(0)).is_empty());
}

#[test]
fn two_pulls_at_once_make_one_download() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    server.set_delay(Duration::from_millis(60));
    let (dir, store) = new_store();
    let other = Store::open(dir.path().join("store")).unwrap();
    let name = server.image();
    let threads = [store, other].map(|store| {
        let name = name.clone();
        std::thread::spawn(move || pull(&store, &name).unwrap().rootfs)
    });
    let [one, two] = threads.map(|thread| thread.join().unwrap());
    assert_eq!(one, two);
    for number in 0..2 {
        assert_eq!(server.requests(&fixture.layer_digest(number)).len(), 1);
    }
}

#[test]
fn a_pull_goes_on_while_the_store_is_pruned() {
    let server = Server::with(&Fixture::new());
    server.set_delay(Duration::from_millis(40));
    let (dir, store) = new_store();
    let name = server.image();
    let pulling = std::thread::spawn({
        let store = store.clone();
        move || pull(&store, &name)
    });
    while !pulling.is_finished() {
        Store::open(dir.path().join("store")).unwrap().prune(&PruneOptions::default()).unwrap();
    }
    let image = pulling.join().unwrap().unwrap();
    assert!(image.rootfs.path.exists());
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn a_pull_can_be_spawned() {
    fn assert_send<T: Send>(value: T) -> T {
        value
    }
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    let (source, options) = (server.image().parse().unwrap(), options());
    run(assert_send(store.pull(&source, Policy::Always, &options))).unwrap();
}

#[test]
fn a_damaged_rootfs_or_layer_is_made_anew() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    let (_dir, store) = new_store();
    let image = pull(&store, &server.image()).unwrap();
    let rootfs = image.rootfs.clone();
    drop(image);
    fs::write(&rootfs.path, b"short").unwrap();
    assert_eq!(pull(&store, &server.image()).unwrap().rootfs, rootfs);
    fs::remove_file(&rootfs.path).unwrap();
    let blob = store.root().join("blobs").join(fixture.layer_digest(0).replace(':', "/"));
    fs::write(&blob, b"short").unwrap();
    assert_eq!(pull(&store, &server.image()).unwrap().rootfs, rootfs);
    assert_eq!(fs::read(&blob).unwrap(), fixture.layers[0]);
}
