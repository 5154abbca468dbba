//! The structures on disk, all little-endian.

use crate::layer::{Attributes, Namespace, Xattrs};
use crate::tree::Content;

pub(super) const BLOCK: u64 = 4096;
pub(super) const BLOCK_BITS: u8 = 12;

/// Inodes are numbered by their place in units of this size.
pub(super) const SLOT: u64 = 32;
pub(super) const INODE: u64 = 64;
pub(super) const DIRENT: u64 = 12;

const SUPERBLOCK_OFFSET: usize = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// The checksum counts, and inodes hold times of modification (and not of change).
const COMPATIBLE: u32 = 0x1 | 0x2;

/// How an inode's contents are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLayout {
    /// All in blocks.
    Plain = 0,
    /// Whole blocks, and what is left over behind the inode.
    Inline = 2,
}

/// What the superblock says of the whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Superblock {
    pub(super) root_nid: u16,
    pub(super) inodes: u64,
    pub(super) blocks: u32,
}

impl Superblock {
    /// All of block 0. The build time and the UUID stay zero, so that equal trees give equal files.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; usize::from(1_u16 << BLOCK_BITS)];
        let superblock = &mut block[SUPERBLOCK_OFFSET..];
        put(superblock, 0, &MAGIC.to_le_bytes());
        put(superblock, 8, &COMPATIBLE.to_le_bytes());
        put(superblock, 12, &[BLOCK_BITS]);
        put(superblock, 14, &self.root_nid.to_le_bytes());
        put(superblock, 16, &self.inodes.to_le_bytes());
        put(superblock, 36, &self.blocks.to_le_bytes());
        // Inode numbers count from block 0, so the places of metadata and of shared xattrs are 0.
        let checksum = crc32c(superblock);
        put(superblock, 4, &checksum.to_le_bytes());
        block
    }
}

/// One inode's own fields.
#[derive(Debug)]
pub(super) struct InodeFields<'a> {
    pub(super) attributes: &'a Attributes,
    pub(super) content: &'a Content,
    pub(super) layout: DataLayout,
    pub(super) size: u64,
    pub(super) first_block: u32,
    /// The number that 32-bit programs see; unique in the image.
    pub(super) serial: u32,
    pub(super) links: u32,
}

impl InodeFields<'_> {
    /// The inode and its extended attributes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let attributes = self.attributes;
        let mut inode = vec![0; 64];
        let format = 1 | ((self.layout as u16) << 1);
        let union = match self.content {
            Content::CharDevice(device) | Content::BlockDevice(device) => *device,
            _ => self.first_block,
        };
        put(&mut inode, 0, &format.to_le_bytes());
        put(&mut inode, 2, &xattr_count(&attributes.xattrs).to_le_bytes());
        put(&mut inode, 4, &(file_mode(self.content) | attributes.mode).to_le_bytes());
        put(&mut inode, 8, &self.size.to_le_bytes());
        put(&mut inode, 16, &union.to_le_bytes());
        put(&mut inode, 20, &self.serial.to_le_bytes());
        put(&mut inode, 24, &attributes.uid.to_le_bytes());
        put(&mut inode, 28, &attributes.gid.to_le_bytes());
        put(&mut inode, 32, &attributes.mtime.to_le_bytes());
        put(&mut inode, 40, &attributes.mtime_nsec.to_le_bytes());
        put(&mut inode, 44, &self.links.to_le_bytes());
        encode_xattrs(&attributes.xattrs, &mut inode);
        inode
    }
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    into[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A directory entry without its name.
pub(super) fn encode_dirent(nid: u64, name_offset: u16, file_type: u8) -> [u8; 12] {
    let mut dirent = [0; 12];
    put(&mut dirent, 0, &nid.to_le_bytes());
    put(&mut dirent, 8, &name_offset.to_le_bytes());
    dirent[10] = file_type;
    dirent
}

/// The type bits of `st_mode`.
fn file_mode(content: &Content) -> u16 {
    match content {
        Content::Fifo => 0o010_000,
        Content::CharDevice(_) => 0o020_000,
        Content::Directory(_) => 0o040_000,
        Content::BlockDevice(_) => 0o060_000,
        Content::File { .. } => 0o100_000,
        Content::Symlink(_) => 0o120_000,
    }
}

/// The type that a directory entry states.
pub(super) fn file_type(content: &Content) -> u8 {
    match content {
        Content::File { .. } => 1,
        Content::Directory(_) => 2,
        Content::CharDevice(_) => 3,
        Content::BlockDevice(_) => 4,
        Content::Fifo => 5,
        Content::Symlink(_) => 7,
    }
}

const XATTR_HEADER: u64 = 12;
const XATTR_ENTRY: usize = 4;

/// Bytes of an inode's extended attributes, with their header.
pub(super) fn xattr_bytes(xattrs: &Xattrs) -> u64 {
    if xattrs.is_empty() {
        return 0;
    }
    let entry = |((_, name), value): ((_, &[u8]), &[u8])| {
        (XATTR_ENTRY + name.len() + value.len()).next_multiple_of(4)
    };
    XATTR_HEADER + xattrs.iter().map(|((ns, name), value)| entry(((ns, name), value)) as u64).sum::<u64>()
}

/// The same as the inode states it: units of four bytes after the header, and one.
fn xattr_count(xattrs: &Xattrs) -> u16 {
    match xattr_bytes(xattrs) {
        0 => 0,
        // The limits on reading keep this within 16 bits.
        bytes => u16::try_from((bytes - XATTR_HEADER) / 4 + 1).unwrap_or(u16::MAX),
    }
}

fn encode_xattrs(xattrs: &Xattrs, out: &mut Vec<u8>) {
    if xattrs.is_empty() {
        return;
    }
    // No name filter, and no attribute is shared between inodes.
    out.extend_from_slice(&[0; 12]);
    for ((namespace, name), value) in xattrs {
        encode_xattr(*namespace, name, value, out);
    }
}

fn encode_xattr(namespace: Namespace, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    // Both lengths were checked when the attribute was read.
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.push(namespace as u8);
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// CRC-32C as the kernel computes it: started with all ones and not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_its_published_check_value() {
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn the_size_of_xattrs_is_what_is_written() {
        let mut xattrs = Xattrs::new();
        assert_eq!(xattr_bytes(&xattrs), 0);
        for (i, name) in ["a", "bb", "ccc", "dddd"].into_iter().enumerate() {
            xattrs.insert((Namespace::User, name.as_bytes().into()), vec![7; i * 3].into());
            let mut out = Vec::new();
            encode_xattrs(&xattrs, &mut out);
            assert_eq!(out.len() as u64, xattr_bytes(&xattrs));
            assert_eq!(u64::from(xattr_count(&xattrs) - 1) * 4 + 12, xattr_bytes(&xattrs));
        }
    }
}
