//! A saved machine as one file, to be taken elsewhere. Owns that file's format.
//!
//! ```text
//!   zstd frame, its content checked, of a tar:
//!     manifest.json        as in a directory, for a memory that is whole
//!     devices              the engine's state of processors and devices
//!     memory/<offset>      what of the memory is no hole, in order; the offset in bytes, sixteen hexadecimal digits
//!     …
//!     sha256               of all before: of each its name, its length, and its bytes
//! ```
//! Without the last entry it was cut; with another hash it was altered. What is read may be anybody's: no name in it becomes
//! one of a file, and no more is written than the memory has that it says it is.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cellule_engine::{DEVICES_MAX, MemorySize, PageRange};
use rustix::fs::SeekFrom;
use sha2::{Digest as _, Sha256};

use crate::directory::Unfinished;
use crate::error::{Damage, Error};
use crate::files::{DEVICES, MANIFEST, MANIFEST_MAX, MEMORY, Manifest, SavedFiles, record_of, sha256};
use crate::saving::{Durability, Extent, Saving};
use crate::snapshots::{SnapshotDraft, Snapshots};
use crate::sparse::seek_to;

const SUM: &str = "sha256";
/// How much of the memory is in one entry.
const PIECE: u64 = 16 << 20;
/// Fast, and not much larger than the smallest: memory compresses well.
const LEVEL: i32 = 3;
/// What can be behind the last entry.
const END_MAX: u64 = 1 << 20;
/// The longest name in it.
const NAME_MAX: usize = 64;

impl Snapshots {
    /// Writes a snapshot as one file.
    ///
    /// # Errors
    /// It is damaged, or cannot be written.
    pub fn export(&self, files: &SavedFiles, to: impl Write) -> Result<(), Error> {
        // Base and changes become one memory.
        let whole = Unfinished::begin(self.dir())?;
        let path = whole.path().join(MEMORY);
        let saved = files.load()?;
        let saving = Saving::begin(whole.path(), Some(&saved.base), Extent::Whole)?;
        let memory = saving.memory()?;
        lay_over(saved.changes.file(), saved.changes.ranges(), &memory).map_err(Error::io("write", &path))?;
        let mut manifest = Manifest { base: None, ..files.manifest().clone() };
        manifest.memory = record_of(&memory).map_err(Error::io("look at", &path))?;
        write_archive(&manifest, &saved.devices, &memory, to)
            .map_err(Error::io("write", Path::new("the archive")))
    }

    /// Reads a snapshot from one file, to be given its name.
    ///
    /// # Errors
    /// It is no snapshot of this version's, cut, or altered; or there is no room for it.
    pub fn import(&self, from: impl Read) -> Result<SnapshotDraft, Error> {
        let draft = self.draft()?;
        read_archive(draft.path(), from)?;
        Ok(draft)
    }
}

/// Puts pages in their places.
fn lay_over(pages: &File, ranges: &[PageRange], memory: &File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    for range in ranges {
        let (start, bytes) =
            (u64::from(range.first) * cellule_engine::PAGE, u64::from(range.count) * cellule_engine::PAGE);
        for at in (start..start + bytes).step_by(buffer.len()) {
            let length = usize::try_from(start + bytes - at).unwrap_or(usize::MAX).min(buffer.len());
            let piece = &mut buffer[..length];
            pages.read_exact_at(piece, at)?;
            memory.write_all_at(piece, at)?;
        }
    }
    Ok(())
}

fn write_archive(manifest: &Manifest, devices: &[u8], memory: &File, to: impl Write) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(BufWriter::new(to), LEVEL)?;
    encoder.include_checksum(true)?;
    let mut archive = Summed { tar: tar::Builder::new(encoder), sum: Sha256::new() };
    archive.put(MANIFEST, &serde_json::to_vec_pretty(manifest)?)?;
    archive.put(DEVICES, devices)?;
    let mut piece = Vec::new();
    let mut at = 0;
    while let Some(data) = seek_to(memory, SeekFrom::Data(at))? {
        let hole = seek_to(memory, SeekFrom::Hole(data))?.unwrap_or(manifest.memory.bytes);
        at = hole.min(data + PIECE);
        piece.resize(usize::try_from(at - data).unwrap_or(usize::MAX), 0);
        memory.read_exact_at(&mut piece, data)?;
        archive.put(&piece_name(data), &piece)?;
    }
    let Summed { mut tar, sum } = archive;
    append(&mut tar, SUM, hex::encode(sum.finalize()).as_bytes())?;
    let mut to = tar.into_inner()?.finish()?;
    to.flush()
}

fn piece_name(offset: u64) -> String {
    format!("{MEMORY}/{offset:016x}")
}

/// A tar whose entries are summed up.
struct Summed<W: Write> {
    tar: tar::Builder<W>,
    sum: Sha256,
}

impl<W: Write> Summed<W> {
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        add(&mut self.sum, name, bytes);
        append(&mut self.tar, name, bytes)
    }
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, bytes)
}

fn add(sum: &mut Sha256, name: &str, bytes: &[u8]) {
    sum.update((name.len() as u64).to_le_bytes());
    sum.update(name);
    sum.update((bytes.len() as u64).to_le_bytes());
    sum.update(bytes);
}

/// What may come next.
enum Expected {
    Manifest,
    Devices(Manifest),
    Memory(Manifest, Vec<u8>),
}

fn read_archive(dir: &Path, from: impl Read) -> Result<(), Error> {
    let damaged = |damage| Error::Damaged { path: Path::new("the archive").to_path_buf(), damage };
    let cut = |source: io::Error| damaged(Damage::Cut(source));
    let decoder = zstd::Decoder::new(BufReader::new(from)).map_err(cut)?;
    let mut tar = tar::Archive::new(decoder);
    let saving = Saving::begin(dir, None, Extent::Whole)?;
    let memory = saving.memory()?;
    let path = dir.join(MEMORY);
    let (mut expected, mut sum, mut end) = (Expected::Manifest, Sha256::new(), 0);
    let mut whole = None;
    // As they are: what follows an extension is read without a bound.
    for entry in tar.entries().map_err(cut)?.raw(true) {
        let mut entry = entry.map_err(cut)?;
        let name = entry.path_bytes().into_owned();
        let name = String::from_utf8(name).ok().filter(|name| name.len() <= NAME_MAX);
        let name = name.filter(|_| entry.header().entry_type() == tar::EntryType::Regular);
        let name = name.ok_or_else(|| damaged(Damage::Entry(String::new())))?;
        let limit = match (&expected, name.as_str()) {
            (Expected::Manifest, MANIFEST) => MANIFEST_MAX,
            (Expected::Devices(_), DEVICES) => DEVICES_MAX as u64,
            (Expected::Memory(..), SUM) => 64,
            (Expected::Memory(..), _) => PIECE,
            _ => return Err(damaged(Damage::Entry(name))),
        };
        let mut bytes = Vec::new();
        let read = entry.by_ref().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(cut)?;
        if bytes.len() as u64 > limit {
            return Err(damaged(Damage::Entry(name)));
        }
        if name != SUM {
            add(&mut sum, &name, &bytes);
        }
        expected = match expected {
            Expected::Memory(manifest, devices) if name == SUM => {
                if hex::encode(sum.finalize()).as_bytes() != bytes {
                    return Err(damaged(Damage::Sum));
                }
                whole = Some((manifest, devices));
                break;
            }
            Expected::Manifest => {
                let manifest = Manifest::parse(&bytes).map_err(damaged)?;
                let size = u32::try_from(manifest.memory.bytes >> 20).unwrap_or(u32::MAX);
                let size = MemorySize::from_mib(size).map_err(|_| damaged(Damage::Pages))?;
                if size.bytes() != manifest.memory.bytes || manifest.base.is_some() {
                    return Err(damaged(Damage::Pages));
                }
                memory.set_len(size.bytes()).map_err(Error::io("write", &path))?;
                Expected::Devices(manifest)
            }
            Expected::Devices(manifest) => {
                if sha256(&bytes) != manifest.devices_sha256 {
                    return Err(damaged(Damage::Altered { file: DEVICES }));
                }
                Expected::Memory(manifest, bytes)
            }
            Expected::Memory(manifest, devices) => {
                let offset = name.strip_prefix(MEMORY).and_then(|name| name.strip_prefix('/'));
                let offset = offset.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                let offset = offset.filter(|offset| *offset >= end && name == piece_name(*offset));
                let pages = |bytes: u64| bytes.is_multiple_of(cellule_engine::PAGE);
                let offset =
                    offset.filter(|offset| pages(*offset) && pages(bytes.len() as u64) && !bytes.is_empty());
                let offset = offset.ok_or_else(|| damaged(Damage::Entry(name)))?;
                end = offset.saturating_add(bytes.len() as u64);
                if end > manifest.memory.bytes {
                    return Err(damaged(Damage::Pages));
                }
                memory.write_all_at(&bytes, offset).map_err(Error::io("write", &path))?;
                Expected::Memory(manifest, devices)
            }
        };
    }
    let (manifest, devices) = whole.ok_or_else(|| cut(io::ErrorKind::UnexpectedEof.into()))?;
    // What follows are the tar's own last blocks, and the frame's checksum.
    io::copy(&mut tar.into_inner().take(END_MAX), &mut io::sink()).map_err(cut)?;
    let manifest = Manifest { memory: saving.settle(Durability::Durable)?, ..manifest };
    saving.complete(&manifest, &devices, Durability::Durable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::tests::{base, name, save, snapshots, subject};

    fn exported(extent: Extent) -> (tempfile::TempDir, Snapshots, Vec<u8>) {
        let (top, snapshots) = snapshots();
        let files = save(&snapshots, &base(&top), extent).publish(&name("one")).unwrap();
        let mut archive = Vec::new();
        snapshots.export(&files, &mut archive).unwrap();
        (top, snapshots, archive)
    }

    fn refused(snapshots: &Snapshots, archive: &[u8]) -> Damage {
        match snapshots.import(archive) {
            Err(Error::Damaged { damage, .. }) => damage,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_exported_is_imported_as_one_memory() {
        for extent in [Extent::Changes, Extent::Whole] {
            let (_top, snapshots, archive) = exported(extent);
            assert!(archive.len() < 100_000, "{} bytes", archive.len());
            let files = snapshots.import(&archive[..]).unwrap().publish(&name("two")).unwrap();
            assert_eq!(files.manifest().subject, subject());
            let machine = files.load().unwrap();
            assert_eq!(machine.devices, b"the state of devices");
            assert_eq!(machine.base.metadata().unwrap().len(), MemorySize::MIN.bytes());
            let mut pages = vec![9; 3 * 4096];
            machine.base.read_exact_at(&mut pages, 0).unwrap();
            // The first page was cleared and the second written.
            let firsts: Vec<u8> = pages.chunks(4096).map(|page| page[0]).collect();
            assert_eq!(firsts, [0, 2, 0]);
            assert_eq!(std::fs::read_dir(snapshots.dir()).unwrap().count(), 2);
        }
    }

    #[test]
    fn what_is_cut_anywhere_is_refused_and_leaves_nothing() {
        let (_top, snapshots, archive) = exported(Extent::Changes);
        for length in (0..archive.len()).step_by(97).chain([archive.len() - 1]) {
            refused(&snapshots, &archive[..length]);
        }
        assert_eq!(std::fs::read_dir(snapshots.dir()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_altered_anywhere_is_refused() {
        let (_top, snapshots, archive) = exported(Extent::Changes);
        let contents = zstd::decode_all(&archive[..]).unwrap();
        for at in (0..archive.len()).step_by(61) {
            let mut altered = archive.clone();
            altered[at] ^= 0x20;
            // The frame has a few bits that its contents do not depend on.
            if zstd::decode_all(&altered[..]).is_ok_and(|altered| altered == contents) {
                continue;
            }
            refused(&snapshots, &altered);
        }
        // By somebody who knows zstd, too.
        let mut plain = zstd::decode_all(&archive[..]).unwrap();
        let at = plain.windows(20).position(|window| window == b"the state of devices").unwrap();
        plain[at] = b'T';
        let altered = zstd::encode_all(&plain[..], 1).unwrap();
        assert!(matches!(refused(&snapshots, &altered), Damage::Altered { file: DEVICES }));
        let mut plain = zstd::decode_all(&archive[..]).unwrap();
        let at = plain.windows(4096).position(|window| window.iter().all(|byte| *byte == 2)).unwrap();
        plain[at] = 3;
        let altered = zstd::encode_all(&plain[..], 1).unwrap();
        assert!(matches!(refused(&snapshots, &altered), Damage::Sum));
    }

    #[test]
    fn entries_that_are_none_of_its_are_refused() {
        let (_top, snapshots, archive) = exported(Extent::Whole);
        let files = snapshots.find(&name("one")).unwrap();
        let manifest = |bytes: u64| {
            let mut manifest = files.manifest().clone();
            manifest.memory.bytes = bytes;
            serde_json::to_vec(&manifest).unwrap()
        };
        let (good, devices) = (manifest(MemorySize::MIN.bytes()), b"the state of devices".as_slice());
        let cases: [&[(&str, &[u8])]; 8] = [
            &[("manifest.json", &good), ("devices", devices), ("memory/0000000000000000", &[])],
            &[("manifest.json", &good), ("devices", devices), ("memory/0000000000000000", &[1; 4095])],
            &[("../manifest.json", &good)],
            &[("devices", devices)],
            &[("manifest.json", &manifest(u64::MAX))],
            &[("manifest.json", &good), ("devices", devices), ("memory/ffffffffffff0000", &[1; 4096])],
            &[("manifest.json", &good), ("devices", devices), ("memory/1", &[1; 4096])],
            &[
                ("manifest.json", &good),
                ("devices", devices),
                ("memory/0000000000001000", &[1; 4096]),
                ("memory/0000000000000000", &[1; 4096]),
            ],
        ];
        for entries in cases {
            let mut tar = tar::Builder::new(Vec::new());
            for (name, bytes) in entries {
                let mut header = tar::Header::new_ustar();
                header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_size(bytes.len() as u64);
                header.set_cksum();
                tar.append(&header, *bytes).unwrap();
            }
            let archive = zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap();
            let damage = refused(&snapshots, &archive);
            assert!(matches!(damage, Damage::Entry(_) | Damage::Pages), "{damage:?}");
        }
        // A name without end, of a kind that its reader would read whole.
        for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader, tar::EntryType::Symlink] {
            let mut header = tar::Header::new_ustar();
            header.as_ustar_mut().unwrap().name[..1].copy_from_slice(b"x");
            header.set_entry_type(kind);
            header.set_size(1 << 40);
            header.set_cksum();
            let archive =
                zstd::encode_all(&[header.as_bytes().as_slice(), &[0; 4096]].concat()[..], 1).unwrap();
            let damage = refused(&snapshots, &archive);
            assert!(matches!(damage, Damage::Entry(_)), "{damage:?}");
        }
        drop(archive);
    }
}
