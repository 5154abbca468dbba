use proptest::prelude::*;

use super::*;

/// A kernel with one loaded segment of a few pages (code, the banner, the notes, then zeros), and behind it what
/// is no segment: a section header of nonsense, relocations.
pub(crate) fn kernel(release: &str, with_pvh: bool) -> Vec<u8> {
    let entry: u32 = 0x0100_0010;
    let mut segment = vec![0x90; 64];
    segment.extend(format!("Linux version %s (%s)\0Linux version {release} (builder@host) #1\0").bytes());
    segment.resize(256, 0x90);
    let notes_at = segment.len();
    let mut notes = Vec::new();
    note(&mut notes, b"Xen\0", 6, b"linux\0");
    if with_pvh {
        note(&mut notes, b"Xen\0", 18, &u64::from(entry).to_le_bytes());
    }
    note(&mut notes, b"GNU\0", 3, &[0xab; 20]);
    segment.extend(&notes);
    segment.push(1);
    segment.resize(0x5000, 0);

    let load = ProgramHeader {
        p_type: PT_LOAD,
        p_flags: 5,
        p_offset: 0x20_0000,
        p_vaddr: 0xffff_ffff_8100_0000,
        p_paddr: 0x0100_0000,
        p_filesz: segment.len() as u64,
        p_memsz: segment.len() as u64 + 0x1000,
        p_align: 0x20_0000,
    };
    let notes_header = ProgramHeader {
        p_type: PT_NOTE,
        p_flags: 0,
        p_offset: load.p_offset + notes_at as u64,
        p_vaddr: load.p_vaddr + notes_at as u64,
        p_paddr: load.p_paddr + notes_at as u64,
        p_filesz: notes.len() as u64,
        p_memsz: notes.len() as u64,
        p_align: 4,
    };
    let stack = ProgramHeader { p_type: 0x6474_e551, ..notes_header };

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend(u64::from(entry).to_le_bytes());
    file.extend(64_u64.to_le_bytes()); // e_phoff
    file.extend((load.p_offset + load.p_filesz).to_le_bytes()); // e_shoff
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 3, 0, 64, 0, 1, 0, 0, 0]);
    for header in [&stack, &load, &notes_header] {
        write_header(header, &mut file);
    }
    file.resize(0x20_0000, 0);
    file.extend(segment);
    file.extend([0xff; 5000]);
    file
}

fn note(notes: &mut Vec<u8>, name: &[u8], kind: u32, desc: &[u8]) {
    notes.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
    notes.extend(u32::try_from(desc.len()).unwrap().to_le_bytes());
    notes.extend(kind.to_le_bytes());
    for part in [name, desc] {
        notes.extend(part);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
}

/// What a loader puts into memory: address, bytes with the zeros filled in.
fn loaded(kernel: &Vmlinux<'_>) -> Vec<(u64, Vec<u8>)> {
    let loads = kernel.segments.iter().filter(|(header, _)| header.p_type == PT_LOAD);
    loads
        .map(|(header, bytes)| {
            let mut memory = bytes.to_vec();
            memory.resize(usize::try_from(header.p_memsz).unwrap(), 0);
            (header.p_paddr, memory)
        })
        .collect()
}

#[test]
fn a_packed_kernel_loads_to_the_same_memory() {
    let original = kernel("6.12.0-test", true);
    let original = Vmlinux::parse(&original).unwrap();
    let packed = original.pack();
    assert!(packed.len() < 8192, "{}", packed.len());
    let packed = Vmlinux::parse(&packed).unwrap();
    assert!(loaded(&original) == loaded(&packed));
    assert_eq!(packed.release().unwrap(), "6.12.0-test");
}

#[test]
fn a_packed_kernel_is_a_well_formed_elf() {
    let packed = kernel("6.12.0-test", true);
    let packed = Vmlinux::parse(&packed).unwrap().pack();
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&packed).unwrap();
    assert!(elf.section_headers().is_none());
    let segments = elf.segments().unwrap();
    assert_eq!(segments.len(), 2);
    for header in segments.iter() {
        assert_eq!(header.p_offset % header.p_align, header.p_vaddr % header.p_align);
    }
}

#[test]
fn a_kernel_without_pvh_is_refused() {
    let kernel = kernel("6.12.0-test", false);
    assert!(matches!(Vmlinux::parse(&kernel), Err(KernelError::NoPvh)));
}

#[test]
fn an_entry_outside_every_segment_is_refused() {
    let mut kernel = kernel("6.12.0-test", true);
    let header = FILE_HEADER + PROGRAM_HEADER;
    kernel[header + 24..header + 32].copy_from_slice(&0x0200_0000_u64.to_le_bytes());
    assert!(matches!(Vmlinux::parse(&kernel), Err(KernelError::PvhEntry { entry: 0x0100_0010 })));
}

#[test]
fn programs_for_other_machines_are_refused() {
    let mut arm = kernel("6.12.0-test", true);
    arm[18] = 183;
    assert!(matches!(Vmlinux::parse(&arm), Err(KernelError::WrongMachine { class: 2, machine: 183 })));
    let mut short = kernel("6.12.0-test", true);
    short[4] = 1;
    assert!(matches!(Vmlinux::parse(&short), Err(KernelError::WrongMachine { class: 1, .. })));
}

#[test]
fn a_segment_outside_the_file_is_refused() {
    let kernel = kernel("6.12.0-test", true);
    let error = Vmlinux::parse(&kernel[..0x20_1000]).err().unwrap();
    assert!(matches!(error, KernelError::Elf(_)), "{error}");
}

#[test]
fn a_kernel_that_does_not_say_its_release_is_refused() {
    let kernel = kernel("../../etc", true);
    assert!(matches!(Vmlinux::parse(&kernel).unwrap().release(), Err(KernelError::NoRelease)));
}

proptest! {
    #[test]
    fn hostile_headers_never_panic_nor_grow(
        changes in prop::collection::vec((0_usize..FILE_HEADER + 3 * PROGRAM_HEADER, any::<u8>()), 1..12),
    ) {
        let mut kernel = kernel("6.12.0-test", true);
        for (offset, value) in changes {
            kernel[offset] = value;
        }
        if let Ok(parsed) = Vmlinux::parse(&kernel) {
            let _ = parsed.release();
            prop_assert!(parsed.pack().len() as u64 <= MEMORY_MAX);
        }
    }
}
