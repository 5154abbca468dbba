//! Reads an archive, which may be anybody's.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cellule_engine::{DEVICES_MAX, MemorySize};
use sha2::{Digest as _, Sha256};

use super::{PIECE, SUM, add, piece_name};
use crate::error::{Damage, Error};
use crate::files::{DEVICES, DISK, MANIFEST, MANIFEST_MAX, MEMORY, Manifest, sha256};
use crate::saving::{Durability, Extent, Saving};

/// What can be behind the last entry.
const END_MAX: u64 = 1 << 20;
/// The longest name in it.
const NAME_MAX: usize = 64;
/// The largest disk that is taken, and that a sandbox can have.
const DISK_MAX: u64 = 1 << 40;

/// Reads all of it into `dir`, an empty directory.
pub(super) fn read(dir: &Path, from: impl Read) -> Result<(), Error> {
    let cut = |source: io::Error| damaged(Damage::Cut(source));
    let decoder = zstd::Decoder::new(BufReader::new(from)).map_err(cut)?;
    let mut tar = tar::Archive::new(decoder);
    let saving = Saving::begin(dir, None, Extent::Whole)?;
    let mut reading = Reading { dir, saving, expected: Expected::Manifest, sum: Sha256::new() };
    // As they are: what follows an extension is read without a bound.
    for entry in tar.entries().map_err(cut)?.raw(true) {
        let mut entry = entry.map_err(cut)?;
        let name = entry.path_bytes().into_owned();
        let name = String::from_utf8(name).ok().filter(|name| name.len() <= NAME_MAX);
        let name = name.filter(|_| entry.header().entry_type() == tar::EntryType::Regular);
        let name = name.ok_or_else(|| damaged(Damage::Entry(String::new())))?;
        let Some(limit) = reading.limit(&name) else { return Err(damaged(Damage::Entry(name))) };
        let mut bytes = Vec::new();
        let read = entry.by_ref().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(cut)?;
        if bytes.len() as u64 > limit {
            return Err(damaged(Damage::Entry(name)));
        }
        reading = reading.take(&name, bytes)?;
        if let Expected::Nothing(_) = reading.expected {
            break;
        }
    }
    let Reading { saving, expected: Expected::Nothing(pieces), .. } = reading else {
        return Err(cut(io::ErrorKind::UnexpectedEof.into()));
    };
    // What follows are the tar's own last blocks, and the frame's checksum.
    io::copy(&mut tar.into_inner().take(END_MAX), &mut io::sink()).map_err(cut)?;
    let (memory, disk) = saving.settle(Durability::Durable)?;
    let manifest = Manifest { memory, disk, ..pieces.manifest };
    saving.complete(&manifest, &pieces.devices, Durability::Durable)
}

fn damaged(damage: Damage) -> Error {
    Error::Damaged { path: Path::new("the archive").to_path_buf(), damage }
}

/// An archive, as far as it was read.
struct Reading<'a> {
    dir: &'a Path,
    saving: Saving,
    expected: Expected,
    /// Of all entries until now.
    sum: Sha256,
}

/// What may come next.
enum Expected {
    Manifest,
    Devices(Box<Manifest>),
    Pieces(Box<Pieces>),
    /// It is complete.
    Nothing(Box<Pieces>),
}

/// The parts of the memory, and then of the disk.
struct Pieces {
    manifest: Manifest,
    devices: Vec<u8>,
    file: File,
    name: &'static str,
    /// Its size, and how far it was read.
    bytes: u64,
    end: u64,
    disk: Option<File>,
}

impl Reading<'_> {
    /// How many bytes an entry of this name may have now; none if it may not come.
    fn limit(&self, name: &str) -> Option<u64> {
        match (&self.expected, name) {
            (Expected::Manifest, MANIFEST) => Some(MANIFEST_MAX),
            (Expected::Devices(_), DEVICES) => Some(DEVICES_MAX as u64),
            (Expected::Pieces(_), SUM) => Some(64),
            (Expected::Pieces(_), _) => Some(PIECE),
            _ => None,
        }
    }

    /// Takes the next entry, whose name and size may be.
    fn take(mut self, name: &str, bytes: Vec<u8>) -> Result<Self, Error> {
        if name == SUM {
            if hex::encode(self.sum.clone().finalize()).as_bytes() != bytes {
                return Err(damaged(Damage::Sum));
            }
        } else {
            add(&mut self.sum, name, &bytes);
        }
        self.expected = match self.expected {
            Expected::Manifest => Expected::Devices(Box::new(manifest(&bytes)?)),
            Expected::Devices(manifest) => {
                if sha256(&bytes) != manifest.devices_sha256 {
                    return Err(damaged(Damage::Altered { file: DEVICES }));
                }
                Expected::Pieces(Box::new(Pieces::begin(*manifest, bytes, self.dir, &mut self.saving)?))
            }
            Expected::Pieces(pieces) if name == SUM => Expected::Nothing(pieces),
            Expected::Pieces(mut pieces) => {
                pieces.take(name, &bytes, self.dir)?;
                Expected::Pieces(pieces)
            }
            Expected::Nothing(pieces) => Expected::Nothing(pieces),
        };
        Ok(self)
    }
}

fn manifest(bytes: &[u8]) -> Result<Manifest, Error> {
    let manifest = Manifest::parse(bytes).map_err(damaged)?;
    let size = u32::try_from(manifest.memory.bytes >> 20).unwrap_or(u32::MAX);
    let size = MemorySize::from_mib(size).map_err(|_| damaged(Damage::Pages))?;
    let disk_can_be = manifest.disk.is_none_or(|disk| disk.bytes <= DISK_MAX);
    if size.bytes() != manifest.memory.bytes || manifest.base.is_some() || !disk_can_be {
        return Err(damaged(Damage::Pages));
    }
    Ok(manifest)
}

impl Pieces {
    fn begin(manifest: Manifest, devices: Vec<u8>, dir: &Path, saving: &mut Saving) -> Result<Self, Error> {
        let make =
            |file: &File, name: &str, bytes| file.set_len(bytes).map_err(Error::io("write", &dir.join(name)));
        let (file, bytes) = (saving.memory()?, manifest.memory.bytes);
        make(&file, MEMORY, bytes)?;
        let disk = manifest.disk.map(|record| {
            let disk = saving.make_disk()?;
            make(&disk, DISK, record.bytes)?;
            Ok(disk)
        });
        let disk = disk.transpose()?;
        Ok(Self { manifest, devices, file, name: MEMORY, bytes, end: 0, disk })
    }

    /// Puts a part of a file in its place.
    fn take(&mut self, name: &str, bytes: &[u8], dir: &Path) -> Result<(), Error> {
        // The disk is behind the memory.
        if name.strip_prefix(DISK).is_some_and(|rest| rest.starts_with('/'))
            && let (Some(disk), Some(record)) = (self.disk.take(), self.manifest.disk)
        {
            (self.file, self.name, self.bytes, self.end) = (disk, DISK, record.bytes, 0);
        }
        let offset = name.strip_prefix(self.name).and_then(|name| name.strip_prefix('/'));
        let offset = offset.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let offset = offset.filter(|offset| *offset >= self.end && name == piece_name(self.name, *offset));
        let pages = |bytes: u64| bytes.is_multiple_of(cellule_engine::PAGE);
        let offset = offset.filter(|offset| pages(*offset) && pages(bytes.len() as u64) && !bytes.is_empty());
        let offset = offset.ok_or_else(|| damaged(Damage::Entry(name.to_owned())))?;
        self.end = offset.saturating_add(bytes.len() as u64);
        if self.end > self.bytes {
            return Err(damaged(Damage::Pages));
        }
        self.file.write_all_at(bytes, offset).map_err(Error::io("write", &dir.join(self.name)))
    }
}
