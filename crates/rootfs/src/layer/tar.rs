//! Walks the entries of one tar.
//!
//! ```text
//!          ┌──────────────── next_entry ───────────────┐
//!          ▼                                           │
//!   skip what is left ─► header ─► (extensions) ─► Entry, then its contents through next_piece
//!                          │
//!                          └─ two zero blocks, or the end ─► None, then the rest through drain
//! ```
//! No call runs for longer than a few blocks or one buffer takes, so the caller can stop between calls.

use std::ops::Range;

use super::header::{BLOCK, Header};
use super::pax::Pax;
use super::sparse::{Extents, OldGnu, PaxMap};
use super::{Attributes, Entry, EntryKind};
use crate::error::{Fault, printable};
use crate::limits::{Limit, Limits};

const BUFFER: usize = 256 << 10;
/// The largest pax or long-name header that is read, as in other implementations.
const MAX_EXTENSION: u64 = 1 << 20;
/// The most of them before one entry; an honest archive has a pax header, or a long name and a long link.
const MAX_EXTENSIONS: u32 = 8;

/// The bytes of a tar, one after the other.
pub(crate) trait Stream {
    /// Reads some; 0 is the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault>;
}

/// What a tar is that ends without its two closing zero blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unclosed {
    /// Some writers leave them out.
    Accepted,
    /// It may be the beginning of a longer one.
    Truncated,
}

/// Reads one tar from its start to its end.
pub(crate) struct TarReader<S> {
    stream: S,
    limits: Limits,
    unclosed: Unclosed,
    buffer: Box<[u8]>,
    /// What is read and not yet taken: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Bytes taken so far.
    offset: u64,
    /// Bytes of the current entry's contents that are not taken yet, and the padding after them.
    stored: u64,
    padding: u64,
    extents: std::vec::IntoIter<(u64, u64)>,
    extent: (u64, u64),
    next_ordinal: u32,
    /// For messages: the current entry, if any, and where its header is.
    path: Option<Box<[u8]>>,
    header_offset: u64,
}

/// Contents of a file: where in the file, and the bytes.
pub(crate) type Data<'a> = (u64, &'a [u8]);

/// Contents of a file: where in the file, and where the bytes are in the buffer.
pub(crate) struct Piece {
    offset: u64,
    range: Range<usize>,
}

impl<S: Stream> TarReader<S> {
    pub(crate) fn new(stream: S, limits: &Limits, unclosed: Unclosed) -> Self {
        Self {
            stream,
            limits: limits.clone(),
            unclosed,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            offset: 0,
            stored: 0,
            padding: 0,
            extents: Vec::new().into_iter(),
            extent: (0, 0),
            next_ordinal: 0,
            path: None,
            header_offset: 0,
        }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    /// The next entry, once the contents of the last one are taken.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Fault> {
        while self.next_piece()?.is_some() {}
        self.read_entry()
    }

    /// The next piece of the current entry's contents, without its holes; none at their end. What it is, say
    /// [`bytes`](Self::bytes), until the next call.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Piece>, Fault> {
        if self.stored == 0 { Ok(None) } else { self.read_data().map(Some) }
    }

    /// The bytes of the piece that was read last.
    pub(crate) fn bytes(&self, piece: Piece) -> Data<'_> {
        (piece.offset, &self.buffer[piece.range])
    }

    /// Takes what follows the archive's end, one buffer a call. Zero bytes: that was all.
    pub(crate) fn drain(&mut self) -> Result<usize, Fault> {
        self.path = None;
        self.header_offset = self.offset;
        self.fill()?;
        let got = self.end - self.start;
        self.take(got);
        Ok(got)
    }

    /// For messages: the path of the current entry, if any, made printable, and where its header is, or where reading
    /// stopped.
    pub(crate) fn position(&self) -> (Option<String>, u64) {
        (self.path.as_deref().map(printable), self.header_offset)
    }

    /// Makes sure that the buffer holds something, unless the stream is at its end.
    fn fill(&mut self) -> Result<(), Fault> {
        if self.start < self.end {
            return Ok(());
        }
        (self.start, self.end) = (0, 0);
        self.end = self.stream.read(&mut self.buffer)?;
        if self.offset + self.end as u64 > self.limits.layer_bytes {
            return Err(Fault::Limit { limit: Limit::LayerBytes, allowed: self.limits.layer_bytes });
        }
        Ok(())
    }

    fn take(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    /// Fills `into` completely. False: the stream was at its end before the first byte.
    fn read_exact(&mut self, into: &mut [u8]) -> Result<bool, Fault> {
        let mut done = 0;
        while done < into.len() {
            self.fill()?;
            let count = (self.end - self.start).min(into.len() - done);
            if count == 0 {
                return if done == 0 { Ok(false) } else { Err(Fault::Truncated) };
            }
            into[done..done + count].copy_from_slice(&self.buffer[self.start..self.start + count]);
            self.take(count);
            done += count;
        }
        Ok(true)
    }

    /// A block that must be there.
    fn block(&mut self) -> Result<[u8; BLOCK], Fault> {
        let mut block = [0; BLOCK];
        if self.read_exact(&mut block)? { Ok(block) } else { Err(Fault::Truncated) }
    }

    /// The next header; none at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, Fault> {
        self.skip_padding()?;
        let mut block = [0; BLOCK];
        if !self.read_exact(&mut block)? {
            return if self.unclosed == Unclosed::Accepted { Ok(None) } else { Err(Fault::Truncated) };
        }
        if block != [0; BLOCK] {
            return Header::new(&block).map(Some);
        }
        if self.read_exact(&mut block)? && block != [0; BLOCK] {
            return Err(Fault::LoneZeroBlock);
        }
        Ok(None)
    }

    fn skip_padding(&mut self) -> Result<(), Fault> {
        let mut padding = [0; BLOCK];
        let count = usize::try_from(self.padding).unwrap_or(BLOCK).min(BLOCK);
        self.padding = 0;
        if count > 0 && !self.read_exact(&mut padding[..count])? {
            return Err(Fault::Truncated);
        }
        Ok(())
    }

    fn read_entry(&mut self) -> Result<Option<Entry>, Fault> {
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        let mut extensions = 0;
        self.path = None;
        loop {
            self.header_offset = self.offset + self.padding;
            let Some(header) = self.header()? else {
                return if extensions == 0 { Ok(None) } else { Err(Fault::Truncated) };
            };
            match header.entry_type() {
                b'x' => pax.parse(&self.extension(&header)?, &self.limits)?,
                b'L' => long_name = Some(c_string(self.extension(&header)?)),
                b'K' => long_link = Some(c_string(self.extension(&header)?)),
                _ => {
                    pax.path = pax.sparse.name.take().or(pax.path.take()).or(long_name);
                    pax.link_path = pax.link_path.take().or(long_link);
                    return self.entry(&header, pax).map(Some);
                }
            }
            extensions += 1;
            if extensions > MAX_EXTENSIONS {
                return Err(Fault::ExtensionHeaders);
            }
        }
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, Fault> {
        let size = header.size()?;
        if size > MAX_EXTENSION {
            return Err(Fault::ExtensionHeaders);
        }
        let mut data = Vec::new();
        let mut left = size;
        while left > 0 {
            let block = self.block()?;
            let count = left.min(BLOCK as u64);
            #[expect(clippy::cast_possible_truncation, reason = "at most a block")]
            data.extend_from_slice(&block[..count as usize]);
            left -= count;
        }
        Ok(data)
    }

    fn entry(&mut self, header: &Header, mut pax: Pax) -> Result<Entry, Fault> {
        let raw_path = pax.path.take().unwrap_or_else(|| header.path()).into_boxed_slice();
        self.path = Some(raw_path.clone());
        let entry_type = match header.entry_type() {
            // Before POSIX a directory was a file whose name ends with a slash.
            0 if raw_path.ends_with(b"/") => b'5',
            0 | b'7' => b'0',
            other => other,
        };
        let stored = match entry_type {
            // Whatever size these state, no contents follow.
            b'1'..=b'6' => 0,
            _ => match pax.size {
                Some(size) => size,
                None => header.size()?,
            },
        };
        // The end of what is stored must be a possible offset, or the sums below overflow.
        if stored > self.limits.layer_bytes {
            return Err(Fault::Limit { limit: Limit::LayerBytes, allowed: self.limits.layer_bytes });
        }
        self.stored = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;
        let link =
            |pax: &mut Pax| pax.link_path.take().unwrap_or_else(|| header.link_name()).into_boxed_slice();
        let kind = match entry_type {
            b'0' | b'S' => EntryKind::File { size: self.begin_contents(header, entry_type, &pax)? },
            b'1' => EntryKind::HardLink(link(&mut pax)),
            b'2' => EntryKind::Symlink(link(&mut pax)),
            b'3' => EntryKind::CharDevice(device(header)?),
            b'4' => EntryKind::BlockDevice(device(header)?),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            b'g' | b'V' => EntryKind::Ignored,
            other => return Err(Fault::EntryType(other)),
        };
        if kind == EntryKind::Ignored {
            self.extents = Extents::whole(stored).list.into_iter();
        }
        let ordinal = self.next_ordinal;
        self.next_ordinal = ordinal
            .checked_add(1)
            .ok_or(Fault::Limit { limit: Limit::Entries, allowed: self.limits.entries })?;
        let attributes = attributes(header, pax)?;
        Ok(Entry { raw_path, kind, attributes, offset: self.header_offset, ordinal })
    }

    /// Finds out which extents of the file are stored, and gives its size with holes.
    fn begin_contents(&mut self, header: &Header, entry_type: u8, pax: &Pax) -> Result<u64, Fault> {
        let mut size = self.stored;
        let sparse = &pax.sparse;
        let extents = if entry_type == b'S' {
            let mut map = OldGnu::new(&header.0)?;
            while map.extended {
                map.extend(&self.block()?)?;
            }
            size = map.size;
            map.finish(self.stored)?
        } else if sparse.version.is_some_and(|(major, _)| major > 0) {
            if sparse.version != Some((1, 0)) {
                return Err(Fault::Sparse);
            }
            size = sparse.size.ok_or(Fault::Sparse)?;
            let mut map = PaxMap::default();
            loop {
                self.stored = self.stored.checked_sub(BLOCK as u64).ok_or(Fault::Sparse)?;
                if map.add(&self.block()?)? {
                    break;
                }
            }
            map.finish(size, self.stored)?
        } else if let Some(map) = &sparse.map {
            size = sparse.size.ok_or(Fault::Sparse)?;
            Extents::from_pairs(map, size, self.stored)?
        } else {
            Extents::whole(size)
        };
        self.extents = extents.list.into_iter();
        self.extent = (0, 0);
        Ok(size)
    }

    fn read_data(&mut self) -> Result<Piece, Fault> {
        if self.extent.1 == 0 {
            self.extent = self.extents.next().ok_or(Fault::Sparse)?;
        }
        self.fill()?;
        if self.start == self.end {
            return Err(Fault::Truncated);
        }
        let (offset, left) = self.extent;
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.end - self.start);
        let range = self.start..self.start + count;
        self.take(count);
        self.extent = (offset + count as u64, left - count as u64);
        self.stored -= count as u64;
        Ok(Piece { offset, range })
    }
}

/// The contents of a GNU long-name header, which end with a NUL.
fn c_string(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|b| *b == 0) {
        data.truncate(end);
    }
    data
}

fn attributes(header: &Header, pax: Pax) -> Result<Attributes, Fault> {
    let id = |over: Option<u64>, field: Result<u64, Fault>, name| -> Result<u32, Fault> {
        let id = over.map_or(field, Ok)?;
        u32::try_from(id).map_err(|_| Fault::Number { field: name })
    };
    let (mtime, mtime_nsec) = match pax.mtime {
        Some(time) => time,
        None => (header.mtime()?, 0),
    };
    let mode = (header.mode()? & 0o7777) as u16;
    Ok(Attributes {
        mode,
        uid: id(pax.uid, header.uid(), "uid")?,
        gid: id(pax.gid, header.gid(), "gid")?,
        mtime,
        mtime_nsec,
        xattrs: pax.xattrs,
    })
}

/// Linux's encoding of a device number in 32 bits.
fn device(header: &Header) -> Result<u32, Fault> {
    let (major, minor) = header.device()?;
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(high @ 0..=0xfff), Ok(low @ 0..=0xf_ffff)) => {
            Ok((low & 0xff) | (high << 8) | ((low & !0xff) << 12))
        }
        _ => Err(Fault::DeviceNumber { major, minor }),
    }
}
