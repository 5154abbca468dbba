//! Which parts of a sparse file an archive holds, in GNU's own form.

use super::ArchiveError;
use super::header::{BLOCK, Header, number};

/// More extents than this are refused; a map is held in memory while its file is read.
const MAX_EXTENTS: usize = 1 << 16;
/// An offset and a length.
const SLOT: usize = 24;
/// Slots of a block that continues a map.
const SLOTS: usize = 21;

/// A map that is being read.
#[derive(Debug)]
pub(super) struct Map {
    extents: Vec<(u64, u64)>,
    goes_on: bool,
    size: u64,
}

/// The contents of one file: extents that follow each other, all else is holes.
#[derive(Debug)]
pub(super) struct Extents {
    list: std::vec::IntoIter<(u64, u64)>,
    now: (u64, u64),
}

impl Map {
    pub(super) fn new(header: &Header) -> Result<Self, ArchiveError> {
        let (slots, goes_on, size) = header.sparse();
        let mut map = Self { extents: Vec::new(), goes_on, size: size? };
        map.slots(slots)?;
        Ok(map)
    }

    /// Whether another block of it follows.
    pub(super) fn goes_on(&self) -> bool {
        self.goes_on
    }

    pub(super) fn extend(&mut self, block: &[u8; BLOCK]) -> Result<(), ArchiveError> {
        self.goes_on = block[SLOTS * SLOT] != 0;
        self.slots(&block[..SLOTS * SLOT])
    }

    fn slots(&mut self, slots: &[u8]) -> Result<(), ArchiveError> {
        for slot in slots.chunks_exact(SLOT) {
            let (offset, length) = slot.split_at(SLOT / 2);
            // A slot that is not used begins with a NUL.
            if offset[0] == 0 && length[0] == 0 {
                break;
            }
            let number =
                |field| number(field).and_then(|n| u64::try_from(n).ok()).ok_or(ArchiveError::Sparse);
            self.extents.push((number(offset)?, number(length)?));
            if self.extents.len() > MAX_EXTENTS {
                return Err(ArchiveError::Sparse);
            }
        }
        Ok(())
    }

    /// The size with holes and the extents, checked against each other and the `stored` bytes.
    pub(super) fn finish(self, stored: u64) -> Result<(u64, Extents), ArchiveError> {
        let (mut end, mut sum) = (0, 0_u64);
        for (offset, length) in &self.extents {
            if *offset < end {
                return Err(ArchiveError::Sparse);
            }
            end = offset.checked_add(*length).ok_or(ArchiveError::Sparse)?;
            sum = sum.checked_add(*length).ok_or(ArchiveError::Sparse)?;
        }
        if end > self.size || sum != stored {
            return Err(ArchiveError::Sparse);
        }
        Ok((self.size, Extents { list: self.extents.into_iter(), now: (0, 0) }))
    }
}

impl Extents {
    /// A file without holes.
    pub(super) fn whole(size: u64) -> Self {
        Self { list: Vec::new().into_iter(), now: (0, size) }
    }

    /// What comes next: where, and how much.
    pub(super) fn next(&mut self) -> Option<(u64, u64)> {
        while self.now.1 == 0 {
            self.now = self.list.next()?;
        }
        Some(self.now)
    }

    /// So much of it has come.
    pub(super) fn advance(&mut self, count: u64) {
        self.now = (self.now.0 + count, self.now.1 - count);
    }
}
