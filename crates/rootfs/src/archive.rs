//! Tars outside of images: one is read entry by entry from a stream that may be hostile, another made of a file or a
//! directory of the host.
//!
//! What comes in must be a plain tar, closed by its two zero blocks: the end of a stream alone is where it was cut. Each
//! field is bounded by [`Limits`] as a layer's is, so memory does not grow with what is read.

mod pack;

use std::io::{self, Read};

use crate::error::Fault;
use crate::layer::{self, Data, Stream, TarReader, Unclosed};
use crate::limits::Limits;
use crate::path;

pub use pack::{PackOptions, pack};

/// What is wrong with an archive, and where.
#[derive(Debug, thiserror::Error)]
#[error("the archive cannot be read{}, at byte {offset}", crate::error::entry(path.as_deref()))]
pub struct ArchiveError {
    /// The entry's path as the archive gives it, made printable; none outside of any entry.
    pub path: Option<String>,
    /// Where in the archive: the entry's header, or where reading stopped.
    pub offset: u64,
    /// The cause.
    pub source: Fault,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// The path: relative, without empty, `.` and `..` components; the root itself is empty.
    pub path: Box<[u8]>,
    /// What it is.
    pub kind: ArchiveEntryKind,
    /// The twelve permission bits.
    pub mode: u16,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When it was changed: seconds since 1970, and the nanoseconds after them.
    pub mtime: (i64, u32),
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveEntryKind {
    /// A directory.
    Directory,
    /// A regular file, whose contents follow.
    File {
        /// Its size in bytes, holes included.
        size: u64,
    },
    /// A symbolic link to this target, which is kept as it is: not empty, and without NUL.
    Symlink(Box<[u8]>),
    /// Another name of what is at this path, whose form is that of [`ArchiveEntry::path`].
    HardLink(Box<[u8]>),
    /// A block or character device.
    Device,
    /// A named pipe.
    Fifo,
}

struct Plain<R>(R);

impl<R: Read> Stream for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(Fault::Read),
            }
        }
    }
}

/// Reads a tar from a stream, once.
pub struct ArchiveReader<R> {
    tar: TarReader<Plain<R>>,
    limits: Limits,
}

impl<R> std::fmt::Debug for ArchiveReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveReader").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<R: Read> ArchiveReader<R> {
    /// One at the beginning of `stream`. Of `limits`, those of one layer and of one entry count.
    pub fn new(stream: R, limits: &Limits) -> Self {
        Self { tar: TarReader::new(Plain(stream), limits, Unclosed::Truncated), limits: limits.clone() }
    }

    /// The next entry; none at the archive's end. What is left of the last one's contents is skipped.
    ///
    /// # Errors
    /// The archive is damaged, cut short or beyond a limit, or its stream failed.
    pub fn next_entry(&mut self) -> Result<Option<ArchiveEntry>, ArchiveError> {
        let next = self.read_entry();
        next.map_err(|fault| self.locate(fault))
    }

    fn read_entry(&mut self) -> Result<Option<ArchiveEntry>, Fault> {
        loop {
            let Some(entry) = self.tar.next_entry()? else { return Ok(None) };
            let kind = match entry.kind {
                layer::EntryKind::Ignored => continue,
                layer::EntryKind::Directory => ArchiveEntryKind::Directory,
                layer::EntryKind::File { size } => ArchiveEntryKind::File { size },
                layer::EntryKind::Symlink(target) => {
                    path::check_symlink_target(&target, &self.limits)?;
                    ArchiveEntryKind::Symlink(target)
                }
                layer::EntryKind::HardLink(target) => {
                    ArchiveEntryKind::HardLink(path::normalise(&target, &self.limits)?)
                }
                layer::EntryKind::CharDevice(_) | layer::EntryKind::BlockDevice(_) => {
                    ArchiveEntryKind::Device
                }
                layer::EntryKind::Fifo => ArchiveEntryKind::Fifo,
            };
            let attributes = entry.attributes;
            return Ok(Some(ArchiveEntry {
                path: path::normalise(&entry.raw_path, &self.limits)?,
                kind,
                mode: attributes.mode,
                uid: attributes.uid,
                gid: attributes.gid,
                mtime: (attributes.mtime, attributes.mtime_nsec),
            }));
        }
    }

    /// The next piece of the current entry's contents and its place in the file, without holes; none at their end.
    ///
    /// # Errors
    /// The archive is cut short, or its stream failed.
    pub fn next_data(&mut self) -> Result<Option<Data<'_>>, ArchiveError> {
        match self.tar.next_piece() {
            Ok(piece) => Ok(piece.map(|piece| self.tar.bytes(piece))),
            Err(fault) => Err(self.locate(fault)),
        }
    }

    /// Behind the archive's end: reads what its writer padded it with, so that the writer can end, but no more than
    /// `most` bytes. Says whether the stream ended.
    ///
    /// # Errors
    /// The stream failed.
    pub fn drain(&mut self, most: u64) -> Result<bool, ArchiveError> {
        let mut read = 0;
        while read <= most {
            match self.tar.drain() {
                Ok(0) => return Ok(true),
                Ok(count) => read += count as u64,
                Err(fault) => return Err(self.locate(fault)),
            }
        }
        Ok(false)
    }

    fn locate(&self, fault: Fault) -> ArchiveError {
        let (path, offset) = self.tar.position();
        ArchiveError { path, offset, source: fault }
    }
}
