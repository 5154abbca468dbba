//! An OCI layout whose index, manifest and configuration are edited, and whose digests are right all the same: no
//! panic, and what is taken can be read back.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use cellule_fuzz::archive::{CONFIG, INDEX, LAYER, MANIFEST, config, descriptor, index, layer, manifest};
use cellule_fuzz::documents::Edits;
use cellule_fuzz::{build, scratch};
use cellule_image::{Digest, Limits, Options, Policy, Source, Store};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("there is an event loop"));

#[derive(Debug, Arbitrary)]
struct Layout {
    index: Edits,
    /// The index points to one more before the manifest.
    inner: Option<Edits>,
    manifest: Edits,
    config: Edits,
    tag: Option<bool>,
}

fuzz_target!(|layout: Layout| {
    let home = scratch::directory();
    let dir = home.path().join("layout");
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("the scratch directory can be written");
    let blob = |bytes: &[u8]| {
        fs::write(blobs.join(Digest::of(bytes).hex()), bytes).expect("the scratch directory can be written");
    };
    let layer = layer();
    let config = layout.config.apply(config(&[&layer]));
    let manifest =
        layout.manifest.apply(manifest(&descriptor(CONFIG, &config), &[descriptor(LAYER, &layer)]));
    let mut entry = descriptor(MANIFEST, &manifest);
    if let Some(edits) = &layout.inner {
        let inner = edits.apply(index(&[entry]));
        entry = descriptor(INDEX, &inner);
        blob(&inner);
    }
    let index = layout.index.apply(index(&[entry]));
    for bytes in [&layer, &config, &manifest] {
        blob(bytes);
    }
    fs::write(dir.join("index.json"), index).expect("the scratch directory can be written");

    let limits = Limits {
        document: 16 << 10,
        layers: 8,
        layer: 1 << 20,
        archive_entries: 64,
        rootfs: build::limits(),
    };
    let options = Options { limits, ..Options::default() };
    let store = Store::open(home.path().join("store")).expect("the scratch directory can be written");
    let tag = layout.tag.map(|other| if other { "b" } else { "a:b" }.to_owned());
    let pulled = RUNTIME.block_on(store.pull(&Source::OciLayout { dir, tag }, Policy::Missing, &options));
    let listed = store.list().expect("what was stored can be read");
    let Ok(image) = pulled else { return };
    assert!(listed.iter().any(|listed| listed.manifest_digest == image.info.manifest_digest));
    let mut saved = Vec::new();
    store.save(&[image.info.manifest_digest.to_string()], &mut saved).expect("what was stored can be saved");
});
