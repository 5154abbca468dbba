//! A first look at the kernel's file, so that a wrong one is named before anything starts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The fixed part of a 64-bit ELF header, and what stands at its places (little-endian).
const HEADER: usize = 64;
const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_64: u8 = 2;
const MACHINE_AT: usize = 18;
const MACHINE_X86_64: [u8; 2] = [62, 0];
/// Where a compressed kernel (bzImage) shows its own sign.
const BZIMAGE_AT: u64 = 0x202;
const BZIMAGE: [u8; 4] = *b"HdrS";

/// Why a file can't be the guest's kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelProblem {
    /// It can't be read.
    #[error("it can't be read")]
    Unreadable(#[source] io::Error),
    /// It is a bzImage: its decompressor would take longer under emulation than the whole boot.
    #[error("it is a compressed kernel (bzImage); an uncompressed ELF file is needed")]
    Compressed,
    /// It is something else.
    #[error("it is no ELF file")]
    NotElf,
    /// It is an ELF file for another processor.
    #[error("it is not for x86-64")]
    OtherProcessor,
}

/// Looks at the header only; whether the kernel has a PVH entry is for the engine to say.
pub(crate) fn check(kernel: &File) -> Result<(), KernelProblem> {
    let mut header = [0; HEADER];
    match kernel.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(KernelProblem::NotElf),
        Err(e) => return Err(KernelProblem::Unreadable(e)),
    }
    if !header.starts_with(&MAGIC) {
        let mut sign = [0; BZIMAGE.len()];
        let compressed = kernel.read_exact_at(&mut sign, BZIMAGE_AT).is_ok() && sign == BZIMAGE;
        return Err(if compressed { KernelProblem::Compressed } else { KernelProblem::NotElf });
    }
    if header[MAGIC.len()] != CLASS_64 || header[MACHINE_AT..MACHINE_AT + 2] != MACHINE_X86_64 {
        return Err(KernelProblem::OtherProcessor);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check_bytes(bytes: &[u8]) -> Result<(), KernelProblem> {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("room for a kilobyte");
        check(&file)
    }

    fn header(class: u8, machine: u8) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = class;
        bytes[MACHINE_AT] = machine;
        bytes
    }

    #[test]
    fn an_x86_64_elf_file_passes() {
        assert!(check_bytes(&header(CLASS_64, 62)).is_ok());
    }

    #[test]
    fn other_processors_are_named() {
        assert!(matches!(check_bytes(&header(CLASS_64, 183)), Err(KernelProblem::OtherProcessor)));
        assert!(matches!(check_bytes(&header(1, 62)), Err(KernelProblem::OtherProcessor)));
    }

    #[test]
    fn a_compressed_kernel_is_told_from_rubbish() {
        let mut bytes = vec![0; 1024];
        assert!(matches!(check_bytes(&bytes), Err(KernelProblem::NotElf)));
        bytes[0x202..0x206].copy_from_slice(&BZIMAGE);
        assert!(matches!(check_bytes(&bytes), Err(KernelProblem::Compressed)));
    }

    #[test]
    fn an_empty_and_a_cut_file_are_no_elf() {
        assert!(matches!(check_bytes(b""), Err(KernelProblem::NotElf)));
        assert!(matches!(check_bytes(&header(CLASS_64, 62)[..63]), Err(KernelProblem::NotElf)));
    }
}
