use proptest::prelude::*;

use super::*;
use crate::decompress::tests::{ALL, pack};

pub(crate) const RELEASE: &str = "6.12.0-test";

/// A bzImage around some payload: two setup sectors, the version text in the second.
pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 3 * 512];
    image[0x1f1] = 2;
    image[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x200_u16.to_le_bytes());
    let version = format!("{RELEASE} (builder@host) #1 SMP\0");
    image[0x400..0x400 + version.len()].copy_from_slice(version.as_bytes());
    image[0x248..0x24c].copy_from_slice(&7_u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    image.extend([0xcc; 7]);
    image.extend(payload);
    image.extend([0xee; 600]);
    image
}

/// Packs a kernel as the kernel's build does: the size goes behind all forms but gzip, which has it.
pub(crate) fn packed_payload(format: Format, kernel: &[u8]) -> Vec<u8> {
    let mut payload = pack(format, kernel);
    if format != Format::Gzip {
        payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
    }
    payload
}

#[test]
fn the_payload_of_every_form_is_unpacked() {
    let kernel = b"kernel".repeat(50_000);
    for format in ALL {
        let image = bzimage(&packed_payload(format, &kernel));
        assert!(unpack(image).unwrap() == kernel, "{format:?}");
    }
}

#[test]
fn an_elf_is_taken_as_it_is() {
    assert_eq!(unpack(b"\x7fELF and more".to_vec()).unwrap(), b"\x7fELF and more");
}

#[test]
fn the_release_is_read_from_the_header() {
    assert_eq!(release(&bzimage(b"")).as_deref(), Some(RELEASE));
}

#[test]
fn a_release_that_leads_out_of_its_directory_is_none() {
    let mut image = bzimage(b"");
    image[0x400..0x406].copy_from_slice(b"../../");
    assert_eq!(release(&image), None);
}

#[test]
fn an_unknown_form_names_its_first_bytes() {
    let error = unpack(bzimage(b"BZh91AY&SY and so on")).unwrap_err();
    let KernelError::UnknownCompression { magic } = error else { panic!("{error}") };
    assert_eq!(magic, hex::encode("BZh91AY&"));
}

#[test]
fn a_payload_that_lies_about_its_size_is_refused() {
    for (declared, small) in [(10_u32, true), (4_000_000_000, false)] {
        let mut payload = pack(Format::Zstd, &[7; 1000]);
        payload.extend(declared.to_le_bytes());
        let error = unpack(bzimage(&payload)).unwrap_err();
        match error {
            KernelError::Payload(DecompressError::TooLarge { limit: 10, .. }) if small => (),
            KernelError::PayloadSize { found: 1000, .. } if !small => (),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn offsets_outside_the_file_are_refused() {
    for (field, value) in [(0x248, u32::MAX), (0x24c, u32::MAX), (0x248, 1 << 20)] {
        let mut image = bzimage(&packed_payload(Format::Xz, b"kernel"));
        image[field..field + 4].copy_from_slice(&value.to_le_bytes());
        let error = unpack(image).unwrap_err();
        assert!(matches!(error, KernelError::OutOfBounds { what: "payload" }), "{error}");
    }
}

#[test]
fn an_old_protocol_and_other_files_are_refused() {
    let mut old = bzimage(b"");
    old[0x206] = 0x07;
    old[0x207] = 0x02;
    assert!(matches!(unpack(old), Err(KernelError::OldProtocol { protocol: 0x0207 })));
    assert!(matches!(unpack(b"#!/bin/sh".to_vec()), Err(KernelError::NotAKernel)));
    assert!(matches!(unpack(Vec::new()), Err(KernelError::NotAKernel)));
}

proptest! {
    #[test]
    fn a_hostile_header_never_panics(
        cut in 0_usize..2500,
        changes in prop::collection::vec((0x1f0_usize..0x260, any::<u8>()), 0..12),
    ) {
        let mut image = bzimage(&packed_payload(Format::Lz4Legacy, b"a small kernel"));
        for (offset, value) in changes {
            image[offset] = value;
        }
        image.truncate(cut);
        let _ = release(&image);
        let _ = unpack(image);
    }
}
