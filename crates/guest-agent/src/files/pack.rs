//! Owns the tar of a file or a tree, made as it is read.
//!
//! What it holds is the names of the directories that it is in, and of files with several names. A file is sent at the size
//! that its header has: cut if it grows meanwhile, filled with zeroes if it shrinks. What vanishes is left out, and so are
//! sockets, which no archive can hold, and the contents of the kernel's own file systems.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cellule_protocol::v1::FileInfo;
use rustix::fs::{CWD, FileType, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::failure::{At, Failure};
use super::meta::{Id, Meta};
use super::path::{DIRECTORY, GuestPath, HARMLESS, Place};
use super::pump::Source;
use super::read::read_full;
use super::walk::{Walk, is_pseudo};

const DOING: &str = "pack";
const BLOCK: usize = 512;
/// What fits into the fields of a header.
const MAX_FIELD: usize = 100;
/// What the names of files with several names may take; those beyond are packed as files of their own.
const MAX_LINKED: usize = 8 * 1024 * 1024;

/// A tar that is being made.
pub(super) struct Packing {
    path: GuestPath,
    /// Headers and padding that have not gone yet.
    pending: Vec<u8>,
    gone: usize,
    contents: Option<Contents>,
    tree: Option<Tree>,
    /// The first name of each file that has several.
    linked: HashMap<Id, Vec<u8>>,
    linked_bytes: usize,
    ended: bool,
}

struct Contents {
    file: OwnedFd,
    left: u64,
    padding: usize,
}

struct Tree {
    walk: Walk,
    /// The name in the archive of the directory that the walk is in, with a closing slash.
    prefix: Vec<u8>,
    /// How long it was in the directories above.
    lengths: Vec<usize>,
    device: (u32, u32),
}

impl Packing {
    /// Opens what is at `path`, to be called `name`; without a name, its contents alone.
    pub(super) fn open(path: GuestPath, name: Vec<u8>, follow: bool) -> Result<(Self, FileInfo), Failure> {
        let name = name.strip_suffix(b"/").map(<[u8]>::to_vec).unwrap_or(name);
        if name.contains(&0) {
            return Err(Failure::invalid(DOING, path.as_bytes(), "its name in the archive has a NUL byte"));
        }
        let meta = Meta::of_path(path.as_c_str(), follow).at(DOING, path.as_bytes())?;
        let is_directory = meta.is_directory();
        if name.is_empty() && !is_directory {
            let why = "is not a directory, whose contents could be packed";
            return Err(Failure::because(DOING, path.as_bytes(), Errno::NOTDIR, why));
        }
        let mut packing = Self {
            path,
            pending: Vec::new(),
            gone: 0,
            contents: None,
            tree: None,
            linked: HashMap::new(),
            linked_bytes: 0,
            ended: false,
        };
        if is_directory {
            packing.begin_tree(name, follow, &meta)?;
        } else if follow {
            let (place, _) = packing.path.destination(DOING)?;
            packing.begin_one(&place, name)?;
        } else {
            let place = packing.path.place(DOING)?;
            packing.begin_one(&place, name)?;
        }
        Ok((packing, meta.info(Vec::new())))
    }

    fn begin_one(&mut self, Place { directory, name }: &Place, called: Vec<u8>) -> Result<(), Failure> {
        self.entry(directory.as_fd(), name, called).at(DOING, self.path.as_bytes())?;
        if self.pending.is_empty() {
            let why = "is a socket, which no archive holds";
            return Err(Failure::invalid(DOING, self.path.as_bytes(), why));
        }
        Ok(())
    }

    fn begin_tree(&mut self, name: Vec<u8>, follow: bool, meta: &Meta) -> Result<(), Failure> {
        let no_follow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let top = openat(CWD, self.path.as_c_str(), DIRECTORY | no_follow, Mode::empty())
            .at(DOING, self.path.as_bytes())?;
        let walk = Walk::begin(top, false).at(DOING, self.path.as_bytes())?;
        let prefix = if name.is_empty() {
            b"./".to_vec()
        } else {
            let name = [name, b"/".to_vec()].concat();
            self.header(meta, EntryType::Directory, &name, b"", 0);
            name
        };
        self.tree = Some(Tree { walk, prefix, lengths: Vec::new(), device: meta.device() });
        Ok(())
    }

    /// Makes the next header; false at the end.
    fn advance(&mut self) -> Result<bool, Failure> {
        let Some(mut tree) = self.tree.take() else { return Ok(false) };
        let full =
            |walk: &Walk, name: &CStr| [self.path.as_bytes(), &walk.names(), b"/", name.to_bytes()].concat();
        let Some(entry) = tree.walk.next() else {
            if tree.walk.leave().at(DOING, self.path.as_bytes())?.is_none() {
                return Ok(false);
            }
            tree.prefix.truncate(tree.lengths.pop().unwrap_or(0));
            self.tree = Some(tree);
            return Ok(true);
        };
        let entry = entry.at(DOING, &full(&tree.walk, c""))?;
        let name = entry.file_name();
        let path = full(&tree.walk, name);
        match self.tree_entry(&mut tree, name) {
            // It has vanished meanwhile, or something else has come in its place.
            Ok(()) | Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno).at(DOING, &path),
        }
        self.tree = Some(tree);
        Ok(true)
    }

    fn tree_entry(&mut self, tree: &mut Tree, name: &CStr) -> Result<(), Errno> {
        let mut called = [&tree.prefix, name.to_bytes()].concat();
        let meta = Meta::at(tree.walk.here()?, name)?;
        if !meta.is_directory() {
            return self.entry(tree.walk.here()?, name, called);
        }
        called.push(b'/');
        tree.walk.enter(name)?;
        let meta = Meta::of(tree.walk.here()?)?;
        self.header(&meta, EntryType::Directory, &called, b"", 0);
        if meta.device() != tree.device && is_pseudo(tree.walk.here()?)? {
            tree.walk.leave()?;
            return Ok(());
        }
        tree.lengths.push(tree.prefix.len());
        tree.prefix = called;
        Ok(())
    }

    /// Makes the header of what is no directory, and opens what follows it.
    fn entry(&mut self, directory: BorrowedFd<'_>, name: &CStr, called: Vec<u8>) -> Result<(), Errno> {
        let mut meta = Meta::at(directory, name)?;
        if meta.links() > 1
            && let Some(first) = self.linked.get(&meta.id()).cloned()
        {
            self.header(&meta, EntryType::Link, &called, &first, 0);
            return Ok(());
        }
        match meta.kind() {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | HARMLESS;
                let file = openat(directory, name, flags, Mode::empty())?;
                meta = Meta::of(&file)?;
                if !meta.is_file() {
                    return Err(Errno::NOENT);
                }
                let left = meta.size();
                self.header(&meta, EntryType::Regular, &called, b"", left);
                let over = usize::try_from(left % BLOCK as u64).unwrap_or(0);
                self.contents = Some(Contents { file, left, padding: (BLOCK - over) % BLOCK });
            }
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new())?;
                self.header(&meta, EntryType::Symlink, &called, target.as_bytes(), 0);
            }
            FileType::Fifo => self.header(&meta, EntryType::Fifo, &called, b"", 0),
            FileType::CharacterDevice => self.header(&meta, EntryType::Char, &called, b"", 0),
            FileType::BlockDevice => self.header(&meta, EntryType::Block, &called, b"", 0),
            FileType::Directory | FileType::Socket | FileType::Unknown => return Ok(()),
        }
        if meta.links() > 1 && self.linked_bytes + called.len() <= MAX_LINKED {
            self.linked_bytes += called.len();
            self.linked.insert(meta.id(), called);
        }
        Ok(())
    }

    fn header(&mut self, meta: &Meta, kind: EntryType, name: &[u8], target: &[u8], size: u64) {
        for (kind, text) in [(EntryType::GNULongName, name), (EntryType::GNULongLink, target)] {
            if text.len() > MAX_FIELD {
                self.long(kind, text);
            }
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode());
        header.set_uid(u64::from(meta.owner().0));
        header.set_gid(u64::from(meta.owner().1));
        // The format knows no time before 1970.
        header.set_mtime(u64::try_from(meta.modified()).unwrap_or(0));
        header.set_size(size);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let (major, minor) = meta.node();
            // Linux has none that would not fit.
            let _fits = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
        }
        let fields = header.as_old_mut();
        put(&mut fields.name, name);
        put(&mut fields.linkname, target);
        header.set_cksum();
        self.pending.extend_from_slice(header.as_bytes());
    }

    /// A name that is too long for its field, in GNU's form, which all readers know.
    fn long(&mut self, kind: EntryType, text: &[u8]) {
        let mut header = Header::new_gnu();
        put(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(text.len() as u64 + 1);
        header.set_cksum();
        self.pending.extend_from_slice(header.as_bytes());
        self.pending.extend_from_slice(text);
        self.pending.push(0);
        self.pending.resize(self.pending.len().next_multiple_of(BLOCK), 0);
    }
}

impl Source for Packing {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let mut filled = 0;
        while filled < buffer.len() {
            let free = &mut buffer[filled..];
            if self.gone < self.pending.len() {
                let count = free.len().min(self.pending.len() - self.gone);
                free[..count].copy_from_slice(&self.pending[self.gone..self.gone + count]);
                self.gone += count;
                filled += count;
                continue;
            }
            self.pending.clear();
            self.gone = 0;
            if let Some(contents) = &mut self.contents {
                if contents.left == 0 {
                    self.pending.resize(contents.padding, 0);
                    self.contents = None;
                    continue;
                }
                let count = usize::try_from(contents.left).unwrap_or(usize::MAX).min(free.len());
                let read = read_full(&contents.file, &mut free[..count]).at(DOING, self.path.as_bytes())?;
                free[read..count].fill(0);
                contents.left -= count as u64;
                filled += count;
            } else if !self.advance()? {
                if self.ended {
                    break;
                }
                self.ended = true;
                self.pending.resize(2 * BLOCK, 0);
            }
        }
        Ok(filled)
    }
}

fn put(field: &mut [u8], text: &[u8]) {
    let count = text.len().min(field.len());
    field[..count].copy_from_slice(&text[..count]);
}
