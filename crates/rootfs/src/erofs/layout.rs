//! Decides where everything lies, from the merged tree alone.

use super::directory;
use super::format::{BLOCK, INODE, SLOT, xattr_bytes};
use crate::error::Error;
use crate::tree::{Content, DataSource, InodeId, ROOT, Tree};

/// A rest of at most this size always goes behind its inode, even if that begins a new block; a longer one
/// only where it happens to fit. So at most half of an inode block is lost to padding.
const ALWAYS_INLINE: u64 = BLOCK / 2;

/// Where one inode and its contents lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(super) id: InodeId,
    /// The offset of the inode.
    pub(super) inode: u64,
    /// Bytes of contents: of a file, of a directory's entries, of a symbolic link's target.
    pub(crate) size: u64,
    /// The offset of the first block of contents; 0 if there is none.
    pub(super) blocks: u64,
    /// The offset of what is left after the whole blocks, if it lies behind the inode.
    pub(super) inline: Option<u64>,
    pub(super) links: u32,
    /// A directory's parent; the root's is itself.
    pub(super) parent: InodeId,
}

impl Place {
    /// Bytes that lie in blocks; the others are inline.
    pub(super) fn in_blocks(&self) -> u64 {
        if self.inline.is_some() { self.size - self.size % BLOCK } else { self.size }
    }

    pub(super) fn nid(&self) -> u64 {
        self.inode / SLOT
    }
}

/// Where all inodes that the root reaches lie, in their order in the file.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(super) places: Vec<Place>,
    /// By inode id: the index of its place, if it is reachable.
    by_id: Vec<Option<u32>>,
    /// The end of the inodes, a block's boundary.
    pub(super) inodes_end: u64,
    /// Blocks in all.
    pub(super) blocks: u32,
    names: u64,
}

impl Layout {
    /// Lays the tree out.
    pub(crate) fn new(tree: &Tree) -> Result<Self, Error> {
        let mut layout = Self::reach(tree);
        layout.place_inodes(tree);
        layout.place_blocks(tree)?;
        Ok(layout)
    }

    /// Bytes of the whole file.
    pub(crate) fn file_size(&self) -> u64 {
        u64::from(self.blocks) * BLOCK
    }

    /// Names in the tree, the root included.
    pub(crate) fn names(&self) -> u64 {
        self.names
    }

    /// The files whose contents must be written, each with the entry that holds them, sorted by that.
    pub(crate) fn files(&self, tree: &Tree) -> Vec<(DataSource, Place)> {
        let mut files: Vec<_> = self
            .places
            .iter()
            .filter_map(|place| match tree.inode(place.id).content {
                Content::File { data, .. } => Some((data, *place)),
                _ => None,
            })
            .collect();
        files.sort_unstable_by_key(|(data, _)| *data);
        files
    }

    pub(super) fn place(&self, id: InodeId) -> Option<&Place> {
        self.places.get(self.by_id[id.index()]? as usize)
    }

    /// Finds every reachable inode, breadth first, and counts its names.
    fn reach(tree: &Tree) -> Self {
        let new = |id, parent| Place { id, inode: 0, size: 0, blocks: 0, inline: None, links: 0, parent };
        let mut by_id = vec![None; tree.len()];
        let mut places = vec![new(ROOT, ROOT)];
        by_id[ROOT.index()] = Some(0);
        places[0].links = 1;
        let (mut next, mut names) = (0, 1);
        while let Some(Place { id, .. }) = places.get(next).copied() {
            if let Content::Directory(children) = &tree.inode(id).content {
                // Its own "." is a name of the directory, and so is each child's "..".
                places[next].links += 1;
                for child in children.values().copied() {
                    names += 1;
                    let index = *by_id[child.index()].get_or_insert_with(|| {
                        places.push(new(child, id));
                        u32::try_from(places.len() - 1).unwrap_or(u32::MAX)
                    });
                    places[index as usize].links += 1;
                    if matches!(tree.inode(child).content, Content::Directory(_)) {
                        places[next].links += 1;
                    }
                }
            }
            next += 1;
        }
        Self { places, by_id, inodes_end: 0, blocks: 0, names }
    }

    /// Gives each inode its place, with the rest of its contents where that fits into one block with it.
    fn place_inodes(&mut self, tree: &Tree) {
        let mut at = BLOCK;
        for place in &mut self.places {
            let inode = tree.inode(place.id);
            place.size = match &inode.content {
                Content::Directory(children) => directory_size(children.keys().map(|name| &**name)),
                Content::File { size, .. } => *size,
                Content::Symlink(target) => target.len() as u64,
                Content::CharDevice(_) | Content::BlockDevice(_) | Content::Fifo => 0,
            };
            let head = INODE + xattr_bytes(&inode.attributes.xattrs);
            let rest = place.size % BLOCK;
            let whole = head + rest;
            let room = BLOCK - at % BLOCK;
            let inline = rest > 0 && (whole <= room || (rest <= ALWAYS_INLINE && whole <= BLOCK));
            // Attributes may go on in the next block; an inode, and a rest with all before it, may not.
            let together = if inline { whole } else { INODE };
            if together > room {
                at = at.next_multiple_of(BLOCK);
            }
            place.inode = at;
            place.inline = inline.then_some(at + head);
            at += if inline { whole } else { head };
            at = at.next_multiple_of(SLOT);
        }
        self.inodes_end = at.next_multiple_of(BLOCK);
    }

    /// Gives blocks to what needs any: first to all that lookups read, then to files.
    fn place_blocks(&mut self, tree: &Tree) -> Result<(), Error> {
        let mut at = self.inodes_end;
        for files in [false, true] {
            for place in &mut self.places {
                let is_file = matches!(tree.inode(place.id).content, Content::File { .. });
                if is_file == files && place.in_blocks() > 0 {
                    place.blocks = at;
                    // The limit on all files together keeps this far from an overflow; saturating is refused
                    // below.
                    at = at
                        .saturating_add(place.in_blocks())
                        .checked_next_multiple_of(BLOCK)
                        .unwrap_or(u64::MAX);
                }
            }
        }
        let blocks = at / BLOCK;
        self.blocks = u32::try_from(blocks).map_err(|_| Error::TooLarge { blocks })?;
        Ok(())
    }
}

/// The names of a directory in EROFS's order: "." and ".." are among them, not always first.
pub(super) fn with_dots<'a>(names: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    let mut dots = [b".".as_slice(), b".."].into_iter().peekable();
    let mut names = names.peekable();
    std::iter::from_fn(move || match (dots.peek(), names.peek()) {
        (Some(dot), Some(name)) if dot < name => dots.next(),
        (Some(_), None) => dots.next(),
        _ => names.next(),
    })
}

fn directory_size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    directory::size(with_dots(names))
}
