//! Bytes as an archive of images: no panic; what failed leaves nothing half made; what was loaded can be listed, is
//! within the store, and is the same when it is loaded again.
#![no_main]

use std::io::Cursor;
use std::sync::LazyLock;

use cellule_fuzz::mutate::mutate;
use cellule_fuzz::tar::seal;
use cellule_fuzz::{archive, build, scratch};
use cellule_image::{Image, Limits, LoadFrom, Options, Store};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use tokio::runtime::{Builder, Runtime};

static EXAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| vec![archive::docker(), archive::oci()]);
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("there is an event loop"));

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        document: 16 << 10,
        layers: 8,
        layer: 1 << 20,
        archive_entries: 64,
        rootfs: build::limits(),
    };
    let options = Options { limits, ..Options::default() };
    let home = scratch::directory();
    let store = Store::open(home.path()).expect("the scratch directory can be written");
    let load = || {
        let from = LoadFrom::Reader(Box::new(Cursor::new(bytes.to_vec())));
        RUNTIME.block_on(store.load(from, &options))
    };
    let loaded = load();
    let left: Vec<_> = std::fs::read_dir(store.root().join("tmp")).expect("it is there").collect();
    assert!(left.is_empty(), "{left:?} are left");
    let listed = store.list().expect("what was stored can be read");
    let Ok(loaded) = loaded else { return };
    for image in &loaded {
        assert!(image.rootfs.path.starts_with(store.root()) && image.rootfs.path.is_file());
        assert!(listed.iter().any(|listed| listed.manifest_digest == image.info.manifest_digest));
    }
    let digests = |images: &[Image]| -> Vec<_> {
        images.iter().map(|image| (image.info.manifest_digest, image.rootfs.digest)).collect()
    };
    let again = load().expect("it could be loaded before");
    assert_eq!(digests(&loaded), digests(&again));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed, &EXAMPLES, seal)
});
