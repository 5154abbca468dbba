//! Writes what the layout has places for.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::directory;
use super::format::{BLOCK, DataLayout, InodeFields, Superblock, file_type};
use super::layout::{Layout, Place, with_dots};
use crate::tree::{Children, Content, Tree};

/// Makes `out` the whole file except for the contents of regular files, which are zeros (and holes) for now.
pub(crate) fn write_metadata(tree: &Tree, layout: &Layout, out: &mut File) -> io::Result<()> {
    out.set_len(0)?;
    out.set_len(layout.file_size())?;
    out.write_all_at(&superblock(layout).encode(), 0)?;
    let mut inodes = Sequence::new(out, BLOCK);
    for (serial, place) in (1..).zip(&layout.places) {
        let inode = tree.inode(place.id);
        let fields = InodeFields {
            attributes: &inode.attributes,
            content: &inode.content,
            layout: if place.inline.is_some() { DataLayout::Inline } else { DataLayout::Plain },
            size: place.size,
            first_block: u32::try_from(place.blocks / BLOCK).map_err(io::Error::other)?,
            serial,
            links: place.links,
        };
        inodes.write_at(place.inode, &fields.encode())?;
        if let Some(inline) = place.inline
            && let Some(contents) = own_contents(tree, layout, place)
        {
            let in_blocks = usize::try_from(place.in_blocks()).map_err(io::Error::other)?;
            inodes.write_at(inline, &contents[in_blocks..])?;
        }
    }
    inodes.finish()?;
    let mut blocks = Sequence::new(out, layout.inodes_end);
    for place in layout.places.iter().filter(|place| place.in_blocks() > 0) {
        if let Some(contents) = own_contents(tree, layout, place) {
            let in_blocks = usize::try_from(place.in_blocks()).map_err(io::Error::other)?;
            blocks.write_at(place.blocks, &contents[..in_blocks])?;
        }
    }
    blocks.finish()
}

/// Writes a piece of a regular file's contents to its place. Zeros need no writing: they are there.
pub(crate) fn write_contents(place: &Place, offset: u64, bytes: &[u8], out: &File) -> io::Result<()> {
    if bytes.iter().all(|b| *b == 0) {
        return Ok(());
    }
    let in_blocks = place.in_blocks();
    let left = usize::try_from(in_blocks.saturating_sub(offset)).unwrap_or(usize::MAX);
    let (blocks, rest) = bytes.split_at(left.min(bytes.len()));
    if !blocks.is_empty() {
        out.write_all_at(blocks, place.blocks + offset)?;
    }
    if let (false, Some(inline)) = (rest.is_empty(), place.inline) {
        out.write_all_at(rest, inline + offset.max(in_blocks) - in_blocks)?;
    }
    Ok(())
}

fn superblock(layout: &Layout) -> Superblock {
    Superblock {
        // The root is the first inode, right behind the superblock's block.
        root_nid: u16::try_from(layout.places[0].nid()).unwrap_or(u16::MAX),
        inodes: layout.places.len() as u64,
        blocks: layout.blocks,
    }
}

/// The contents of anything but a regular file.
fn own_contents(tree: &Tree, layout: &Layout, place: &Place) -> Option<Vec<u8>> {
    match &tree.inode(place.id).content {
        Content::Directory(children) => Some(directory_contents(tree, layout, place, children)),
        Content::Symlink(target) => Some(target.to_vec()),
        _ => None,
    }
}

fn directory_contents(tree: &Tree, layout: &Layout, place: &Place, children: &Children) -> Vec<u8> {
    let entries: Vec<_> = with_dots(children.keys().map(|name| &**name))
        .filter_map(|name| {
            let id = match name {
                b"." => place.id,
                b".." => place.parent,
                name => *children.get(name)?,
            };
            Some((name, layout.place(id)?.nid(), file_type(&tree.inode(id).content)))
        })
        .collect();
    directory::encode(&entries)
}

/// Writes pieces at ascending offsets as one stream, with zeros between them.
struct Sequence<'a> {
    out: BufWriter<At<'a>>,
    offset: u64,
}

struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> Sequence<'a> {
    fn new(file: &'a File, offset: u64) -> Self {
        Self { out: BufWriter::with_capacity(256 << 10, At { file, offset }), offset }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let gap = offset.checked_sub(self.offset).ok_or(io::ErrorKind::InvalidInput)?;
        io::copy(&mut io::Read::take(io::repeat(0), gap), &mut self.out)?;
        self.out.write_all(bytes)?;
        self.offset = offset + bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}
