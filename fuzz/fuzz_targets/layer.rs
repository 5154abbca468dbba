//! Bytes as the one layer of an image: no panic, and what is built is built alike again.
#![no_main]

use std::io::Write;
use std::sync::LazyLock;

use cellule_fuzz::build::build_twice;
use cellule_fuzz::mutate::mutate;
use cellule_fuzz::tar::{Entry, seal, tar};
use flate2::Compression;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

static EXAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let small = tar(&[
        Entry::directory("a"),
        Entry::file("a/b", b"contents").with_xattr(),
        Entry::hard_link("c", "a/b"),
        Entry::symlink("d", "a"),
        Entry::file("a/.wh.b", b""),
    ]);
    let sparse = tar(&[Entry::sparse("a", true), Entry::sparse("b", false)]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&small).expect("memory takes everything");
    let gzip = gzip.finish().expect("memory takes everything");
    let zstd = zstd::encode_all(&*small, 1).expect("memory takes everything");
    vec![small, sparse, gzip, zstd]
});

fuzz_target!(|bytes: &[u8]| {
    build_twice(&[bytes.to_vec()]);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed, &EXAMPLES, |data| {
        let packed = [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd", b"\xfd7zXZ"];
        if !packed.iter().any(|magic| data.starts_with(magic)) {
            seal(data);
        }
    })
});
