//! Packs directory entries into blocks.
//!
//! A block holds as many entries as fit, sorted by name: first the fixed parts, then the names without a
//! separator, then zeros. The kernel searches blocks and entries by bisection, so the order must hold across
//! blocks.

use super::format::{BLOCK, DIRENT, encode_dirent};

/// One entry: the name, the inode's number and its type.
pub(super) type Dirent<'a> = (&'a [u8], u64, u8);

/// The bytes that [`encode`] will give for these names.
pub(super) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut whole, mut used) = (0, 0);
    for name in names {
        let entry = DIRENT + name.len() as u64;
        if used + entry > BLOCK {
            whole += BLOCK;
            used = 0;
        }
        used += entry;
    }
    whole + used
}

/// The contents of the directory with these entries, which must be sorted.
pub(super) fn encode(entries: &[Dirent<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut used = 0;
        let fits = |(name, ..): &&Dirent<'_>| {
            used += DIRENT + name.len() as u64;
            used <= BLOCK
        };
        let count = rest.iter().take_while(fits).count();
        let (block, after) = rest.split_at(count);
        encode_block(block, &mut out);
        rest = after;
        if !rest.is_empty() {
            out.resize(out.len().next_multiple_of(BLOCK_USIZE), 0);
        }
    }
    out
}

const BLOCK_USIZE: usize = 4096;
const DIRENT_USIZE: usize = 12;

fn encode_block(entries: &[Dirent<'_>], out: &mut Vec<u8>) {
    let mut name_offset = entries.len() * DIRENT_USIZE;
    for (name, nid, file_type) in entries {
        // Within a block of 4096 bytes.
        let offset = u16::try_from(name_offset).unwrap_or(u16::MAX);
        out.extend_from_slice(&encode_dirent(*nid, offset, *file_type));
        name_offset += name.len();
    }
    for (name, ..) in entries {
        out.extend_from_slice(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_what_is_written_at_every_block_boundary() {
        for length in [1, 7, 100, 255] {
            for count in 0..120 {
                let names: Vec<Vec<u8>> = (0..count).map(|i| format!("{i:0length$}").into_bytes()).collect();
                let entries: Vec<Dirent<'_>> = names.iter().map(|name| (name.as_slice(), 1, 1)).collect();
                assert_eq!(encode(&entries).len() as u64, size(names.iter().map(Vec::as_slice)));
            }
        }
    }

    #[test]
    fn an_entry_that_fills_a_block_exactly_stays_in_it() {
        // 16 entries of 12 + 244 bytes are 4096.
        let name = [b'n'; 244];
        let entries = [(name.as_slice(), 1, 1); 17];
        assert_eq!(encode(&entries[..16]).len(), 4096);
        assert_eq!(encode(&entries).len(), 4096 + 256);
        assert_eq!(size(entries[..16].iter().map(|entry| entry.0)), 4096);
        assert_eq!(size(entries.iter().map(|entry| entry.0)), 4096 + 256);
    }
}
