//! Owns the reading of a tar that comes in pieces of any size.
//!
//! ```text
//!   header ──┬─▶ extension ──▶ padding ──▶ header        a long name, a pax header: kept for the next entry
//!            ├─▶ (map) ──▶ contents ──▶ padding ──▶ header
//!            └─▶ end: whatever follows is passed over
//! ```
//! The archive may hold anything. What is kept of it is one header and its extensions, each of bounded size, and the map of
//! one sparse file; a number, a checksum or a record that is not right is an error, and an entry that it ends within is one
//! at [`finish`](Archive::finish). Names are given on as they are: what they may mean is the receiver's business.

mod header;
mod pax;
mod sparse;

use self::header::{BLOCK, Header};
use self::pax::Pax;
use self::sparse::{Extents, Map};

/// The largest extension that is read, as in other implementations.
const MAX_EXTENSION: u64 = 1 << 20;
/// The most of them before one entry; an honest archive has a pax header, or a long name and a long link.
const MAX_EXTENSIONS: u32 = 8;

/// What is wrong with an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// A header that is none.
    #[error("it is no tar, or damaged: the checksum of a header is wrong")]
    Checksum,
    /// A number that is none, or out of range.
    #[error("the number in the field {0} of a header is wrong")]
    Number(&'static str),
    /// Extensions that are too large, or too many.
    #[error("the extended headers of an entry are too large")]
    Extensions,
    /// A pax header that is none.
    #[error("a record of a pax header is wrong")]
    Pax,
    /// A sparse file that is described wrongly.
    #[error("the map of a sparse file is wrong")]
    Sparse,
    /// A sparse file in a form that is not read.
    #[error("a sparse file is in a form that is not supported; make the archive without --sparse")]
    PaxSparse,
    /// An entry of an unknown type.
    #[error("an entry has the unknown type {0:?}")]
    Type(char),
    /// It ends within an entry.
    #[error("it ends in the midst of an entry")]
    Truncated,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// As the archive has it.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: ArchiveKind,
    /// The twelve permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Seconds since 1970, and the nanoseconds after them.
    pub modified: (i64, u32),
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveKind {
    /// A directory.
    Directory,
    /// A regular file of so many bytes, holes included. Its contents follow.
    File(u64),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// Another name of an entry.
    HardLink(Vec<u8>),
    /// A character device, by its numbers.
    CharacterDevice(u32, u32),
    /// A block device, by its numbers.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Who is told what an archive holds.
pub trait Receiver {
    /// What it fails with.
    type Error: From<ArchiveError>;

    /// An entry begins.
    ///
    /// # Errors
    /// The receiver's own, which ends the reading.
    fn begin(&mut self, entry: ArchiveEntry) -> Result<(), Self::Error>;

    /// A piece of the contents of the regular file that began, at its place in the file.
    ///
    /// # Errors
    /// The receiver's own, which ends the reading.
    fn contents(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// The regular file that began is complete.
    ///
    /// # Errors
    /// The receiver's own, which ends the reading.
    fn end(&mut self) -> Result<(), Self::Error>;
}

/// A tar that is being read.
#[derive(Debug, Default)]
pub struct Archive {
    state: State,
    /// A block that has not come whole.
    block: Vec<u8>,
    /// Zeroes behind what is stored, up to a whole block.
    padding: u64,
    extensions: u32,
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    Extension {
        kind: u8,
        left: u64,
        bytes: Vec<u8>,
    },
    /// Of the entry whose header this is.
    Map(Box<Header>, Map),
    Contents {
        extents: Extents,
        left: u64,
    },
    /// What nobody wants.
    Passing(u64),
    Padding,
    End,
}

impl Archive {
    /// Takes the next piece of the archive.
    ///
    /// # Errors
    /// When it is wrong, or the receiver fails. Then nothing more may be given.
    pub fn feed<R: Receiver>(&mut self, mut bytes: &[u8], to: &mut R) -> Result<(), R::Error> {
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                State::Header | State::Map(..) => self.feed_block(bytes, to)?,
                State::Extension { left, bytes: kept, .. } => {
                    let count = at_most(*left, bytes);
                    kept.extend_from_slice(&bytes[..count]);
                    *left -= count as u64;
                    if *left == 0 {
                        self.extended()?;
                    }
                    count
                }
                State::Contents { extents, left } => {
                    let (offset, length) = extents.next().ok_or(ArchiveError::Sparse)?;
                    let count = at_most(length.min(*left), bytes);
                    to.contents(offset, &bytes[..count])?;
                    extents.advance(count as u64);
                    *left -= count as u64;
                    if *left == 0 {
                        to.end()?;
                        self.state = self.behind_contents();
                    }
                    count
                }
                State::Passing(left) => {
                    let count = at_most(*left, bytes);
                    *left -= count as u64;
                    if *left == 0 {
                        self.state = self.behind_contents();
                    }
                    count
                }
                State::Padding => {
                    let count = at_most(self.padding, bytes);
                    self.padding -= count as u64;
                    if self.padding == 0 {
                        self.state = State::Header;
                    }
                    count
                }
                State::End => return Ok(()),
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Says that no more comes.
    ///
    /// # Errors
    /// When that is in the midst of an entry. Some writers leave the closing blocks out.
    pub fn finish(&self) -> Result<(), ArchiveError> {
        match self.state {
            State::End => Ok(()),
            _ if self.extensions > 0 => Err(ArchiveError::Truncated),
            State::Header if self.block.is_empty() => Ok(()),
            // The padding of the last entry is nothing that is missed.
            State::Padding => Ok(()),
            _ => Err(ArchiveError::Truncated),
        }
    }

    fn feed_block<R: Receiver>(&mut self, bytes: &[u8], to: &mut R) -> Result<usize, R::Error> {
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if let Some(block) = self.block.first_chunk::<BLOCK>() {
            let block = *block;
            self.block.clear();
            self.whole_block(&block, to)?;
        }
        Ok(count)
    }

    fn whole_block<R: Receiver>(&mut self, block: &[u8; BLOCK], to: &mut R) -> Result<(), R::Error> {
        match std::mem::take(&mut self.state) {
            State::Map(header, mut map) => {
                map.extend(block)?;
                self.sparse(header, map, to)
            }
            _ if *block == [0; BLOCK] => {
                if self.extensions > 0 {
                    return Err(ArchiveError::Truncated.into());
                }
                self.state = State::End;
                Ok(())
            }
            _ => self.header(Header::new(block)?, to),
        }
    }

    fn header<R: Receiver>(&mut self, header: Header, to: &mut R) -> Result<(), R::Error> {
        match header.kind() {
            kind @ (b'x' | b'L' | b'K') => {
                let size = header.size()?;
                self.extensions += 1;
                if size > MAX_EXTENSION || self.extensions > MAX_EXTENSIONS {
                    return Err(ArchiveError::Extensions.into());
                }
                self.state = State::Extension { kind, left: size, bytes: Vec::new() };
                self.padding = padding(size);
                if size == 0 {
                    self.extended()?;
                }
                Ok(())
            }
            // What holds for all entries, a volume's label: nothing of the tree.
            b'g' | b'V' => {
                let size = header.size()?;
                self.padding = padding(size);
                self.state = if size == 0 { State::Header } else { State::Passing(size) };
                Ok(())
            }
            b'S' => {
                let map = Map::new(&header)?;
                self.sparse(Box::new(header), map, to)
            }
            _ => self.entry(&header, to),
        }
    }

    /// Takes in what an extension says.
    fn extended(&mut self) -> Result<(), ArchiveError> {
        let behind = self.behind_contents();
        let State::Extension { kind, bytes, .. } = std::mem::replace(&mut self.state, behind) else {
            return Ok(());
        };
        match kind {
            b'x' => self.pax.parse(&bytes)?,
            b'L' => self.long_name = Some(until_nul(bytes)),
            _ => self.long_link = Some(until_nul(bytes)),
        }
        Ok(())
    }

    fn behind_contents(&self) -> State {
        if self.padding == 0 { State::Header } else { State::Padding }
    }

    fn sparse<R: Receiver>(&mut self, header: Box<Header>, map: Map, to: &mut R) -> Result<(), R::Error> {
        if map.goes_on() {
            self.state = State::Map(header, map);
            return Ok(());
        }
        let stored = self.stored(&header)?;
        let (size, extents) = map.finish(stored)?;
        self.file(&header, size, stored, extents, to)
    }

    fn entry<R: Receiver>(&mut self, header: &Header, to: &mut R) -> Result<(), R::Error> {
        let name = self.pax.path.as_deref().or(self.long_name.as_deref());
        let ends_with_slash = name.map_or_else(|| header.name().ends_with(b"/"), |name| name.ends_with(b"/"));
        let kind = match header.kind() {
            // Before POSIX a directory was a file whose name ends with a slash.
            0 if ends_with_slash => ArchiveKind::Directory,
            0 | b'0' | b'7' => {
                if self.pax.sparse {
                    return Err(ArchiveError::PaxSparse.into());
                }
                let size = self.stored(header)?;
                return self.file(header, size, size, Extents::whole(size), to);
            }
            // Whatever size these state, no contents follow.
            b'1' => ArchiveKind::HardLink(self.link(header)),
            b'2' => ArchiveKind::Symlink(self.link(header)),
            b'3' => ArchiveKind::CharacterDevice(header.major()?, header.minor()?),
            b'4' => ArchiveKind::BlockDevice(header.major()?, header.minor()?),
            b'5' => ArchiveKind::Directory,
            b'6' => ArchiveKind::Fifo,
            other => return Err(ArchiveError::Type(char::from(other)).into()),
        };
        let entry = self.complete(header, kind)?;
        self.state = State::Header;
        to.begin(entry)
    }

    fn file<R: Receiver>(
        &mut self,
        header: &Header,
        size: u64,
        stored: u64,
        extents: Extents,
        to: &mut R,
    ) -> Result<(), R::Error> {
        let entry = self.complete(header, ArchiveKind::File(size))?;
        self.padding = padding(stored);
        to.begin(entry)?;
        if stored == 0 {
            self.state = State::Header;
            return to.end();
        }
        self.state = State::Contents { extents, left: stored };
        Ok(())
    }

    /// Bytes of the entry's contents in the archive.
    fn stored(&self, header: &Header) -> Result<u64, ArchiveError> {
        match self.pax.size {
            Some(size) => Ok(size),
            None => header.size(),
        }
    }

    fn link(&mut self, header: &Header) -> Vec<u8> {
        self.pax.link_path.take().or(self.long_link.take()).unwrap_or_else(|| header.link_name())
    }

    /// The entry with all that its extensions said; and then those are forgotten.
    fn complete(&mut self, header: &Header, kind: ArchiveKind) -> Result<ArchiveEntry, ArchiveError> {
        let pax = std::mem::take(&mut self.pax);
        let long_name = self.long_name.take();
        self.long_link = None;
        self.extensions = 0;
        Ok(ArchiveEntry {
            name: pax.path.or(long_name).unwrap_or_else(|| header.name()),
            kind,
            mode: header.mode()?,
            owner: (pax.uid.map_or_else(|| header.uid(), Ok)?, pax.gid.map_or_else(|| header.gid(), Ok)?),
            modified: pax.modified.map_or_else(|| header.modified().map(|seconds| (seconds, 0)), Ok)?,
        })
    }
}

fn padding(size: u64) -> u64 {
    match size % BLOCK as u64 {
        0 => 0,
        over => BLOCK as u64 - over,
    }
}

fn at_most(left: u64, bytes: &[u8]) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())
}

/// The contents of a GNU long-name header, which end with a NUL.
fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests;
