//! Bytes as a kernel module, beside a kernel that has all others built in: no panic.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use cellule_boot::{OPTIONAL_MODULES, REQUIRED_MODULES};
use cellule_fuzz::kernel::{elf, module, take};
use cellule_fuzz::mutate::mutate;
use cellule_fuzz::scratch;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

static EXAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let module = module();
    let signed =
        [&*module, &[7; 20], &[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 20], b"~Module signature appended~\n"]
            .concat();
    let zstd = zstd::encode_all(&*signed, 1).expect("memory takes everything");
    vec![module, signed, zstd]
});

fuzz_target!(|bytes: &[u8]| {
    let home = scratch::directory();
    let modules = home.path().join("modules");
    fs::create_dir(&modules).expect("the scratch directory can be written");
    let write = |path, bytes: &[u8]| fs::write(path, bytes).expect("the scratch directory can be written");
    let builtin = REQUIRED_MODULES.iter().chain(&OPTIONAL_MODULES).filter(|name| **name != "erofs");
    let builtin: String = builtin.map(|name| format!("kernel/{name}.ko\n")).collect();
    write(modules.join("modules.builtin"), builtin.as_bytes());
    write(modules.join("erofs.ko.zst"), bytes);
    let kernel = home.path().join("kernel");
    write(kernel.clone(), &elf());
    drop(take(&home.path().join("home"), kernel, Some(modules)));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed, &EXAMPLES, |_| {})
});
