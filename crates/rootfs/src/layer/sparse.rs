//! Which parts of a sparse file a tar holds. All of GNU's formats come down to a list of extents.

use super::header::{BLOCK, number};
use crate::error::Fault;

/// More extents than this are refused; a map is held in memory while its file is read.
const MAX_EXTENTS: usize = 1 << 17;

/// The contents of one file in a tar: extents that follow each other, all else is holes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extents {
    /// Ascending (offset, length), none empty.
    pub(super) list: Vec<(u64, u64)>,
}

impl Extents {
    /// A file without holes.
    pub(super) fn whole(size: u64) -> Self {
        Self { list: if size == 0 { Vec::new() } else { vec![(0, size)] } }
    }

    /// Checks a map that a tar gave against the file's `size` and the `stored` bytes.
    pub(super) fn checked(map: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Self, Fault> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for (offset, length) in &map {
            if *offset < end {
                return Err(Fault::Sparse);
            }
            end = offset.checked_add(*length).ok_or(Fault::Sparse)?;
            sum = sum.checked_add(*length).ok_or(Fault::Sparse)?;
        }
        if end > size || sum != stored {
            return Err(Fault::Sparse);
        }
        Ok(Self { list: map.into_iter().filter(|(_, length)| *length > 0).collect() })
    }

    /// A map from a flat list of offsets and lengths (pax formats 0.0 and 0.1).
    pub(super) fn from_pairs(numbers: &[u64], size: u64, stored: u64) -> Result<Self, Fault> {
        if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_EXTENTS {
            return Err(Fault::Sparse);
        }
        Self::checked(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), size, stored)
    }
}

/// Collects the map of the old GNU format: four extents in the header, 21 in each block that follows.
#[derive(Debug)]
pub(super) struct OldGnu {
    map: Vec<(u64, u64)>,
    pub(super) size: u64,
    /// Another block follows.
    pub(super) extended: bool,
}

impl OldGnu {
    pub(super) fn new(header: &[u8; BLOCK]) -> Result<Self, Fault> {
        let size = unsigned(&header[483..495])?;
        let mut this = Self { map: Vec::new(), size, extended: header[482] != 0 };
        this.add(&header[386..482])?;
        Ok(this)
    }

    pub(super) fn extend(&mut self, block: &[u8; BLOCK]) -> Result<(), Fault> {
        self.extended = block[504] != 0;
        self.add(&block[..504])
    }

    fn add(&mut self, extents: &[u8]) -> Result<(), Fault> {
        for extent in extents.chunks_exact(24) {
            // An unused slot is empty; a used one holds digits.
            if extent[0] == 0 || extent[12] == 0 {
                break;
            }
            if self.map.len() == MAX_EXTENTS {
                return Err(Fault::Sparse);
            }
            self.map.push((unsigned(&extent[..12])?, unsigned(&extent[12..])?));
        }
        Ok(())
    }

    pub(super) fn finish(self, stored: u64) -> Result<Extents, Fault> {
        Extents::checked(self.map, self.size, stored)
    }
}

fn unsigned(field: &[u8]) -> Result<u64, Fault> {
    number(field).and_then(|n| n.try_into().ok()).ok_or(Fault::Sparse)
}

/// Reads the map of pax format 1.0, which stands before the contents: decimal lines, padded to whole blocks.
/// The first says how many extents follow.
#[derive(Debug, Default)]
pub(super) struct PaxMap {
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl PaxMap {
    /// Takes one block. True: the map is complete and the contents follow.
    pub(super) fn add(&mut self, block: &[u8; BLOCK]) -> Result<bool, Fault> {
        for byte in block {
            match byte {
                b'\n' => {
                    self.numbers
                        .push(super::pax::decimal(&self.digits, "sparse map").map_err(|_| Fault::Sparse)?);
                    self.digits.clear();
                    let count = usize::try_from(self.numbers[0]).map_err(|_| Fault::Sparse)?;
                    if count > MAX_EXTENTS {
                        return Err(Fault::Sparse);
                    }
                    if self.numbers.len() == 1 + 2 * count {
                        return Ok(true);
                    }
                }
                _ if self.digits.len() == 20 => return Err(Fault::Sparse),
                digit => self.digits.push(*digit),
            }
        }
        Ok(false)
    }

    pub(super) fn finish(self, size: u64, stored: u64) -> Result<Extents, Fault> {
        Extents::from_pairs(&self.numbers[1..], size, stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_ascend_and_agree_with_the_sizes() {
        let ok = Extents::checked(vec![(0, 1), (4, 2), (8, 0)], 8, 3).unwrap();
        assert_eq!(ok.list, [(0, 1), (4, 2)]);
        for (map, size, stored) in [
            (vec![(4, 2), (0, 1)], 8, 3),
            (vec![(0, 5), (4, 2)], 8, 7),
            (vec![(7, 2)], 8, 2),
            (vec![(0, 2)], 8, 3),
            (vec![(u64::MAX, 2)], u64::MAX, 2),
            (vec![(9, 0)], 8, 0),
        ] {
            assert!(matches!(Extents::checked(map.clone(), size, stored), Err(Fault::Sparse)), "{map:?}");
        }
    }

    #[test]
    fn a_pax_map_that_never_ends_is_refused() {
        let mut map = PaxMap::default();
        let mut block = [b'1'; BLOCK];
        assert!(matches!(map.add(&block), Err(Fault::Sparse)));
        // As many extents as the number says would follow, if they were read.
        block.copy_from_slice(&[&b"0131073\n"[..], &b"1\n".repeat(252)].concat());
        assert!(matches!(PaxMap::default().add(&block), Err(Fault::Sparse)));
    }

    #[test]
    fn a_pax_map_may_span_blocks() {
        let mut text = b"100\n".to_vec();
        for i in 0..100 {
            text.extend_from_slice(format!("{}\n1\n", i * 10).as_bytes());
        }
        text.resize(text.len().next_multiple_of(BLOCK), 0);
        let mut map = PaxMap::default();
        let done: Vec<_> = text.chunks(BLOCK).map(|b| map.add(b.try_into().unwrap()).unwrap()).collect();
        assert_eq!(done, [false, true]);
        assert_eq!(map.finish(1000, 100).unwrap().list.len(), 100);
    }
}
