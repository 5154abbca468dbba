//! The kernel's ELF: whether it boots here, and the smallest form of it that does.
//!
//! QEMU and our own VMM boot an ELF through PVH: they load its segments and jump, in 32-bit mode, to the address in
//! its Xen note of type 18 (`XEN_ELFNOTE_PHYS32_ENTRY`). Section headers, debug data and the relocations at the end
//! serve no one then. And the build stores long runs of zeros (`.bss`, alignment) that a shorter `p_filesz` says as
//! well: loaders fill the rest of `p_memsz` with zeros. Packed so, Debian's kernel has a third fewer bytes to read
//! at each boot.

use elf::ElfBytes;
use elf::abi::{EM_X86_64, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::note::Note;
use elf::segment::ProgramHeader;

use crate::KernelError;

/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PVH_ENTRY: u64 = 18;
/// Kernels have five program headers.
const SEGMENTS_MAX: usize = 64;
/// The most that the segments may take in the guest, all together.
const MEMORY_MAX: u64 = 1 << 30;
const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Segments keep their place in a page, no more: nothing maps this file, loaders copy from it.
const ALIGNMENT: u64 = 4096;

/// A kernel's ELF that was found bootable.
pub(crate) struct Vmlinux<'a> {
    data: &'a [u8],
    segments: Vec<(ProgramHeader, &'a [u8])>,
}

impl<'a> Vmlinux<'a> {
    /// Checks that this is an x86-64 kernel with a PVH entry.
    pub(crate) fn parse(data: &'a [u8]) -> Result<Self, KernelError> {
        if !data.starts_with(b"\x7fELF") {
            return Err(KernelError::NotAKernel);
        }
        let class = data.get(4).copied().unwrap_or_default();
        let little_endian = data.get(5) == Some(&1);
        let machine = data.get(18..20).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        if class != 2 || !little_endian || machine != EM_X86_64 {
            return Err(KernelError::WrongMachine { class, machine });
        }
        let elf = ElfBytes::<LittleEndian>::minimal_parse(data).map_err(KernelError::Elf)?;
        let headers = elf.segments().ok_or(KernelError::ProgramHeaders { what: "there are none" })?;
        if headers.len() > SEGMENTS_MAX {
            return Err(KernelError::ProgramHeaders { what: "there are too many" });
        }

        let mut segments = Vec::new();
        let mut memory = 0_u64;
        let mut entry = None;
        for header in headers.iter().filter(|header| matches!(header.p_type, PT_LOAD | PT_NOTE)) {
            let bytes = elf.segment_data(&header).map_err(KernelError::Elf)?;
            if header.p_type == PT_LOAD {
                if header.p_memsz < header.p_filesz {
                    return Err(KernelError::ProgramHeaders { what: "a segment is smaller than its data" });
                }
                memory = memory.saturating_add(header.p_memsz);
            } else {
                memory = memory.saturating_add(header.p_filesz);
                entry = entry.or(pvh_entry(&elf, &header)?);
            }
            segments.push((header, bytes));
        }
        if memory > MEMORY_MAX {
            return Err(KernelError::ProgramHeaders { what: "the segments are too large" });
        }
        let kernel = Self { data, segments };
        kernel.check_entry(entry.ok_or(KernelError::NoPvh)?)?;
        Ok(kernel)
    }

    fn check_entry(&self, entry: u64) -> Result<(), KernelError> {
        let holds = |header: &ProgramHeader| {
            entry.checked_sub(header.p_paddr).is_some_and(|offset| offset < header.p_filesz)
        };
        let loaded = self.segments.iter().any(|(header, _)| header.p_type == PT_LOAD && holds(header));
        if loaded { Ok(()) } else { Err(KernelError::PvhEntry { entry }) }
    }

    /// The release, from the banner that every kernel prints first.
    pub(crate) fn release(&self) -> Result<String, KernelError> {
        const BANNER: &[u8] = b"Linux version ";
        let loads = self.segments.iter().filter(|(header, _)| header.p_type == PT_LOAD);
        for (_, bytes) in loads {
            let mut rest = *bytes;
            while let Some(start) = rest.iter().position(|byte| *byte == b'L') {
                rest = &rest[start..];
                let Some(after) = rest.strip_prefix(BANNER) else {
                    rest = &rest[1..];
                    continue;
                };
                let end = after.iter().take(128).position(|byte| *byte == b' ').unwrap_or(0);
                // The same words also begin formats, as in "Linux version %s".
                if let Some(release) = valid_release(&after[..end]) {
                    return Ok(release);
                }
                rest = after;
            }
        }
        Err(KernelError::NoRelease)
    }

    /// The same kernel as a file with nothing but its header, its segments' bytes and its notes.
    pub(crate) fn pack(&self) -> Vec<u8> {
        let mut headers = Vec::with_capacity(self.segments.len());
        let mut body = Vec::new();
        let body_start = FILE_HEADER + self.segments.len() * PROGRAM_HEADER;

        for (header, bytes) in &self.segments {
            let kept = if header.p_type == PT_LOAD { without_trailing_zeros(bytes) } else { bytes };
            let align = header.p_align.clamp(1, ALIGNMENT);
            while (body_start + body.len()) as u64 % align != header.p_vaddr % align {
                body.push(0);
            }
            headers.push(ProgramHeader {
                p_offset: (body_start + body.len()) as u64,
                p_filesz: kept.len() as u64,
                p_align: align,
                ..*header
            });
            body.extend_from_slice(kept);
        }

        let mut file = self.data[..FILE_HEADER].to_vec();
        file[32..40].copy_from_slice(&(FILE_HEADER as u64).to_le_bytes()); // e_phoff
        file[40..48].fill(0); // e_shoff
        file[56..58].copy_from_slice(&u16::try_from(headers.len()).unwrap_or(0).to_le_bytes()); // e_phnum
        file[58..64].fill(0); // e_shentsize, e_shnum, e_shstrndx
        for header in &headers {
            write_header(header, &mut file);
        }
        file.append(&mut body);
        file
    }
}

/// A release as the kernel writes it, if that is what the bytes are. It becomes part of paths and messages, so
/// nothing else may pass.
pub(crate) fn valid_release(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    (text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(plain))
        .then(|| text.to_owned())
}

fn pvh_entry(elf: &ElfBytes<'_, LittleEndian>, header: &ProgramHeader) -> Result<Option<u64>, KernelError> {
    for note in elf.segment_data_as_notes(header).map_err(KernelError::Elf)? {
        let Note::Unknown(note) = note else { continue };
        if note.n_type != PVH_ENTRY || note.name.strip_suffix(b"\0").unwrap_or(note.name) != b"Xen" {
            continue;
        }
        // The note is as wide as the address was in its assembler: 4 bytes or 8.
        return Ok(match note.desc.len() {
            4 | 8 => Some(note.desc.iter().rev().fold(0, |entry, byte| entry << 8 | u64::from(*byte))),
            _ => None,
        });
    }
    Ok(None)
}

fn without_trailing_zeros(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}

/// Writes an `Elf64_Phdr`.
fn write_header(header: &ProgramHeader, file: &mut Vec<u8>) {
    file.extend(header.p_type.to_le_bytes());
    file.extend(header.p_flags.to_le_bytes());
    for field in
        [header.p_offset, header.p_vaddr, header.p_paddr, header.p_filesz, header.p_memsz, header.p_align]
    {
        file.extend(field.to_le_bytes());
    }
}

#[cfg(test)]
pub(crate) mod tests;
