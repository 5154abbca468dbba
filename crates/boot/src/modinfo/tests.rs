use proptest::prelude::*;

use super::*;

/// A relocatable ELF with nothing but a `.modinfo` section and the names of its sections.
pub(crate) fn module(fields: &[&str]) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let info: Vec<u8> = fields.iter().flat_map(|field| field.bytes().chain([0])).collect();
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([1, 0, 62, 0, 1, 0, 0, 0]);
    file.extend([0; 16]); // e_entry, e_phoff
    let sections_at = 64 + info.len() + names.len();
    file.extend((sections_at as u64).to_le_bytes());
    file.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    file.extend(&info);
    file.extend(names);
    file.extend([0; 64]);
    section(&mut file, 1, 1, 64, info.len());
    section(&mut file, 10, 3, 64 + info.len(), names.len());
    file
}

fn section(file: &mut Vec<u8>, name: u32, kind: u32, offset: usize, size: usize) {
    file.extend(name.to_le_bytes());
    file.extend(kind.to_le_bytes());
    file.extend([0; 16]); // flags, address
    file.extend((offset as u64).to_le_bytes());
    file.extend((size as u64).to_le_bytes());
    file.extend([0; 8]); // link, info
    file.extend(1_u64.to_le_bytes());
    file.extend([0; 8]);
}

/// Appends a signature as the kernel's build does.
pub(crate) fn sign(mut module: Vec<u8>, length: u32) -> Vec<u8> {
    module.extend([0x5a; 300]);
    module.extend([0, 0, 2, 0, 0, 0, 0, 0]);
    module.extend(length.to_be_bytes());
    module.extend(SIGNATURE_MARK);
    module
}

#[test]
fn dependencies_are_read_and_their_names_normalised() {
    let module = module(&[
        "license=GPL",
        "depends=virtio-ring,virtio",
        "softdep=pre: crc32c lz4-decompress post: late",
        "vermagic=6.12.0-test SMP mod_unload",
    ]);
    let expected = Modinfo {
        depends: vec!["virtio_ring".into(), "virtio".into()],
        soft_depends: vec!["crc32c".into(), "lz4_decompress".into()],
        built_for: Some("6.12.0-test".into()),
    };
    assert_eq!(Modinfo::parse(&module).unwrap(), expected);
}

#[test]
fn an_empty_list_is_no_dependency() {
    assert_eq!(Modinfo::parse(&module(&["depends="])).unwrap(), Modinfo::default());
}

#[test]
fn names_that_are_paths_are_no_modules() {
    let info = Modinfo::parse(&module(&["depends=../../etc/passwd,a/b,good,.."])).unwrap();
    assert_eq!(info.depends, ["good"]);
}

#[test]
fn other_files_are_refused() {
    assert!(matches!(Modinfo::parse(b"#!/bin/sh"), Err(ModuleError::Elf(_))));
    let mut unnamed = module(&["depends="]);
    let names_at = 64 + "depends=\0".len();
    unnamed[names_at + 1] = b'x';
    assert!(matches!(Modinfo::parse(&unnamed), Err(ModuleError::NoModinfo)));
}

#[test]
fn the_signature_is_cut_off() {
    let plain = module(&["depends="]);
    let signed = sign(plain.clone(), 300);
    assert_eq!(without_signature(&signed).unwrap(), plain);
    assert_eq!(without_signature(&plain).unwrap(), plain);
}

#[test]
fn a_signature_longer_than_the_file_is_refused() {
    let signed = sign(module(&[]), u32::MAX);
    assert!(matches!(without_signature(&signed), Err(ModuleError::Signature { length: u32::MAX })));
    assert!(matches!(without_signature(SIGNATURE_MARK), Err(ModuleError::Signature { length: 0 })));
}

proptest! {
    #[test]
    fn a_hostile_module_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut bytes = sign(module(&["depends=a,b", "vermagic=6.12 SMP"]), 300);
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let _ = without_signature(&bytes).map(Modinfo::parse);
    }
}
