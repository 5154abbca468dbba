//! Bytes as a guest's kernel: no panic, and what was taken from one is taken from what was made of it, unchanged.
#![no_main]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use cellule_fuzz::kernel::{bzimage, elf, take};
use cellule_fuzz::mutate::mutate;
use cellule_fuzz::scratch;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

static EXAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let elf = elf();
    let size = Some(elf.len() as u32);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&elf).expect("memory takes everything");
    let gzip = gzip.finish().expect("memory takes everything");
    let zstd = zstd::encode_all(&*elf, 1).expect("memory takes everything");
    // One block of literals alone, which is also what the form allows for what does not shrink.
    let literals = [&[0xf0, 255][..], &[(elf.len() - 15 - 255) as u8], &elf].concat();
    let lz4 = [b"\x02\x21\x4c\x18", &(literals.len() as u32).to_le_bytes()[..], &literals].concat();
    vec![bzimage(&gzip, None), bzimage(&zstd, size), bzimage(&lz4, size), elf]
});

fuzz_target!(|bytes: &[u8]| {
    let home = scratch::directory();
    let file = home.path().join("kernel");
    fs::write(&file, bytes).expect("the scratch directory can be written");
    let Some(packed) = kernel_from(&home.path().join("first"), file) else { return };
    // A packed kernel that names its release is one that takes itself.
    let again = kernel_from(&home.path().join("second"), packed.clone());
    let Some(again) = again else { return };
    assert!(fs::read(packed).ok() == fs::read(again).ok());
});

/// Where the kernel lies that was made of this one, if it was taken.
fn kernel_from(home: &Path, kernel: PathBuf) -> Option<PathBuf> {
    take(home, kernel, None).ok()?;
    let stores = fs::read_dir(home.join("kernels")).expect("a kernel was taken");
    let made = stores.map(|entry| entry.expect("it can be read").path().join("kernel"));
    Some(made.into_iter().find(|path| path.is_file()).expect("a kernel was taken"))
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed, &EXAMPLES, |_| {})
});
