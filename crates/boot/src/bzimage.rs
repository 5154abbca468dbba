//! Takes the kernel's ELF out of a bzImage, so that no guest ever has to unpack it: under emulation that is dear.
//!
//! Offsets are those of the kernel's boot protocol (Documentation/arch/x86/boot.rst). The payload is a compressed
//! ELF whose last four bytes are the unpacked size, appended by the kernel's build (gzip's own trailer is the same).

use crate::DecompressError;
use crate::decompress::Format;

/// The most that a kernel may unpack to. Distributions' are near 60 MiB.
const KERNEL_LIMIT: u64 = 512 << 20;
/// The first protocol that says where the payload lies.
const PROTOCOL_MIN: u16 = 0x0208;
/// The longest version text taken from a header.
const VERSION_LIMIT: usize = 256;

/// Why a kernel cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The file is neither a bzImage nor an ELF.
    #[error("it is neither a bzImage nor an ELF")]
    NotAKernel,
    /// The file ends before what its header speaks of.
    #[error("its {what} lies outside the file")]
    OutOfBounds {
        /// What is missing.
        what: &'static str,
    },
    /// The bzImage is older than Linux 2.6.26.
    #[error("its boot protocol {protocol:#06x} is older than 0x0208")]
    OldProtocol {
        /// The version in the header.
        protocol: u16,
    },
    /// The payload is packed in a form that is not supported.
    #[error(
        "its payload is packed in a form unknown here (first bytes {magic}); known are zstd, xz, gzip and lz4"
    )]
    UnknownCompression {
        /// The first bytes, in hexadecimal.
        magic: String,
    },
    /// The payload does not unpack.
    #[error("its payload cannot be unpacked")]
    Payload(#[source] DecompressError),
    /// The payload unpacks to another size than the file says.
    #[error("its payload unpacks to {found} bytes where the file says {declared}")]
    PayloadSize {
        /// What the file says.
        declared: u32,
        /// What came out.
        found: usize,
    },
    /// The ELF is malformed.
    #[error("its ELF is malformed")]
    Elf(#[source] elf::ParseError),
    /// The ELF is not for an x86-64 machine.
    #[error("it is no x86-64 executable (class {class}, machine {machine})")]
    WrongMachine {
        /// `EI_CLASS`: 1 is 32 bits, 2 is 64.
        class: u8,
        /// `e_machine`; x86-64 is 62.
        machine: u16,
    },
    /// The program headers make no sense together.
    #[error("its program headers make no sense: {what}")]
    ProgramHeaders {
        /// What is wrong.
        what: &'static str,
    },
    /// The kernel has no PVH entry, by which an ELF is booted.
    #[error("it has no PVH entry note: it was built without CONFIG_PVH")]
    NoPvh,
    /// The PVH entry points to where nothing is loaded.
    #[error("its PVH entry {entry:#x} lies in no loaded segment")]
    PvhEntry {
        /// The physical address in the note.
        entry: u64,
    },
    /// The kernel does not say which release it is.
    #[error("it does not say its release")]
    NoRelease,
}

/// The kernel in `image`, a bzImage or an ELF already, as an ELF that is not yet looked into.
pub(crate) fn unpack(image: Vec<u8>) -> Result<Vec<u8>, KernelError> {
    if image.starts_with(b"\x7fELF") {
        return Ok(image);
    }
    let payload = payload(&image)?;
    let format = Format::detect(payload).ok_or_else(|| KernelError::UnknownCompression {
        magic: hex::encode(&payload[..payload.len().min(8)]),
    })?;
    let (packed, size) =
        payload.split_last_chunk::<4>().ok_or(KernelError::OutOfBounds { what: "payload" })?;
    let declared = u32::from_le_bytes(*size);
    // gzip's size belongs to the stream, the others' was appended to it.
    let packed = if format == Format::Gzip { payload } else { packed };
    let kernel = format.unpack(packed, KERNEL_LIMIT.min(declared.into())).map_err(KernelError::Payload)?;
    if kernel.len() as u64 != u64::from(declared) {
        return Err(KernelError::PayloadSize { declared, found: kernel.len() });
    }
    Ok(kernel)
}

/// The release that a bzImage's header names, such as `6.12.9-cloud-amd64`; `None` for an ELF.
pub(crate) fn release(image: &[u8]) -> Option<String> {
    header_protocol(image)?;
    let start = usize::from(u16_at(image, 0x20e)?).checked_add(0x200)?;
    let version = image.get(start..)?;
    let version = &version[..version.len().min(VERSION_LIMIT)];
    let end = version.iter().position(|byte| matches!(byte, 0 | b' '))?;
    crate::vmlinux::valid_release(&version[..end])
}

fn payload(image: &[u8]) -> Result<&[u8], KernelError> {
    let protocol = header_protocol(image).ok_or(KernelError::NotAKernel)?;
    if protocol < PROTOCOL_MIN {
        return Err(KernelError::OldProtocol { protocol });
    }
    let out = || KernelError::OutOfBounds { what: "payload" };
    // 0 stands for 4, from the time before the field.
    let setup_sectors = match image.get(0x1f1).copied().ok_or_else(out)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let offset = u32_at(image, 0x248).ok_or_else(out)?;
    let length = u32_at(image, 0x24c).ok_or_else(out)?;
    let start = (setup_sectors + 1) * 512 + offset as usize;
    let end = start.checked_add(length as usize).ok_or_else(out)?;
    image.get(start..end).ok_or_else(out)
}

/// The version of the boot protocol; `None` if this is no bzImage.
fn header_protocol(image: &[u8]) -> Option<u16> {
    let bootable = image.get(0x1fe..0x200)? == b"\x55\xaa" && image.get(0x202..0x206)? == b"HdrS";
    bootable.then(|| u16_at(image, 0x206)).flatten()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
pub(crate) mod tests;
