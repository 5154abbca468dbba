//! Kernels and modules of a few hundred bytes, and the reading of both.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use cellule_boot::{Agent, Error, KernelSource, Phase, setup};

/// What the kernels made here call themselves.
pub const RELEASE: &str = "6.1.0-fuzz";

/// An ELF with one segment, a banner and the note of its PVH entry.
pub fn elf() -> Vec<u8> {
    let base: u32 = 0x10_0000;
    let at: u32 = 64 + 2 * 56;
    let mut body = vec![0x90; 32];
    body.extend(format!("Linux version {RELEASE} (a@b) #1\0").bytes());
    body.resize(128, 0);
    let notes = body.len() as u64;
    for number in [4_u32, 8, 18] {
        body.extend(number.to_le_bytes());
    }
    body.extend(b"Xen\0");
    body.extend(u64::from(base).to_le_bytes());
    let size = body.len() as u64;
    body.extend([0; 64]);

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for number in [u64::from(base), 64, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    let total = body.len() as u64;
    for (kind, offset, length) in [(1_u32, 0, total), (4, notes, size - notes)] {
        file.extend(kind.to_le_bytes());
        file.extend(5_u32.to_le_bytes());
        let (from, to) = (u64::from(at) + offset, u64::from(base) + offset);
        for number in [from, to, to, length, length, 16] {
            file.extend(number.to_le_bytes());
        }
    }
    file.extend(body);
    file
}

/// A bzImage with that payload, which is packed already, and the size that it unpacks to behind it if it lacks one.
pub fn bzimage(packed: &[u8], unpacked: Option<u32>) -> Vec<u8> {
    let mut payload = packed.to_vec();
    payload.extend(unpacked.iter().flat_map(|size| size.to_le_bytes()));
    let mut file = vec![0; 1024];
    file[0x1f1] = 1;
    file[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    file[0x20e..0x210].copy_from_slice(&0x0100_u16.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let version = format!("{RELEASE} (a@b) #1\0");
    file[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
    file.extend(payload);
    file
}

/// A module that needs nothing.
pub fn module() -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let info = format!("depends=\0softdep=pre: a b\0vermagic={RELEASE} SMP\0");
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\x01\0\0\0".to_vec();
    let info_at = 64_u64;
    let names_at = info_at + info.len() as u64;
    let headers_at = names_at + names.len() as u64;
    for number in [0, 0, headers_at] {
        file.extend(number.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    file.extend(info.bytes());
    file.extend(names);
    file.extend([0; 64]);
    for (name, kind, at, length) in
        [(1_u32, 1_u32, info_at, info.len() as u64), (10, 3, names_at, names.len() as u64)]
    {
        file.extend(name.to_le_bytes());
        file.extend(kind.to_le_bytes());
        for number in [0, 0, at, length, 0, 1, 0] {
            file.extend(number.to_le_bytes());
        }
    }
    file
}

/// Takes a kernel and its modules into the cache of `home`, and goes no further: what comes next would look for a
/// busybox, and over the network if need be.
///
/// # Errors
/// Why they can't be used.
pub fn take(home: &Path, kernel: PathBuf, modules: Option<PathBuf>) -> Result<(), Error> {
    struct Taken;
    let source = KernelSource::Files { kernel, modules };
    let stop = |progress: cellule_boot::Progress| {
        if progress.phase == Phase::MakingBase {
            // Not a panic: it calls no hook.
            resume_unwind(Box::new(Taken));
        }
    };
    let unwound = catch_unwind(AssertUnwindSafe(|| setup(home, &Agent::new(b""), &source, &stop)));
    match unwound {
        Ok(Ok(_)) => panic!("a setup ended without a base image"),
        Ok(Err(error)) => Err(error),
        Err(reason) if reason.is::<Taken>() => Ok(()),
        Err(panic) => resume_unwind(panic),
    }
}
