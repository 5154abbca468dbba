//! Writes an archive.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt as _;

use cellule_engine::PAGE;
use rustix::fs::SeekFrom;
use sha2::{Digest as _, Sha256};

use super::{PIECE, SUM, add, piece_name};
use crate::files::{DEVICES, DISK, MANIFEST, MEMORY, Manifest};
use crate::sparse::seek_to;

/// Fast, and not much larger than the smallest: memory compresses well.
const LEVEL: i32 = 3;

pub(super) fn write(
    manifest: &Manifest,
    devices: &[u8],
    memory: &File,
    disk: Option<&File>,
    to: impl Write,
) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(BufWriter::new(to), LEVEL)?;
    encoder.include_checksum(true)?;
    let mut archive = Summed { tar: tar::Builder::new(encoder), sum: Sha256::new() };
    archive.put(MANIFEST, &serde_json::to_vec_pretty(manifest)?)?;
    archive.put(DEVICES, devices)?;
    archive.put_file(MEMORY, memory)?;
    if let Some(disk) = disk {
        archive.put_file(DISK, disk)?;
    }
    let Summed { mut tar, sum } = archive;
    append(&mut tar, SUM, hex::encode(sum.finalize()).as_bytes())?;
    let mut to = tar.into_inner()?.finish()?;
    to.flush()
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

    /// Puts in what of a file is no hole.
    fn put_file(&mut self, name: &str, file: &File) -> io::Result<()> {
        let length = file.metadata()?.len();
        let mut piece = Vec::new();
        let mut at = 0;
        while let Some(data) = seek_to(file, SeekFrom::Data(at))? {
            let hole = seek_to(file, SeekFrom::Hole(data))?.unwrap_or(length);
            // The host's blocks may be smaller than pages.
            let data = data / PAGE * PAGE;
            let hole = hole.next_multiple_of(PAGE).min(length);
            at = hole.min(data + PIECE);
            piece.resize(usize::try_from(at - data).unwrap_or(usize::MAX), 0);
            file.read_exact_at(&mut piece, data)?;
            self.put(&piece_name(name, data), &piece)?;
        }
        Ok(())
    }
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, bytes)
}
