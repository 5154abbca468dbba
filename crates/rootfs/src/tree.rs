//! The merged tree: what the image holds once all layers lie on each other.

mod merge;

pub(crate) use merge::{MergeFault, PendingLayer};

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::Fault;
use crate::layer::Attributes;
use crate::limits::{Limit, Limits};
use crate::path::{NAME_BYTES, components};

/// Linux's own bound on symbolic links in one path.
const MAX_SYMLINKS: u32 = 40;

/// Names an inode of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InodeId(u32);

impl InodeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The root directory of every tree.
pub(crate) const ROOT: InodeId = InodeId(0);

/// Inodes by number. Those that were replaced or deleted stay, unreachable from the root.
#[derive(Debug)]
pub(crate) struct Tree {
    inodes: Vec<Inode>,
    limits: Limits,
    /// Entries of layers so far, and bytes of files and of what is held in memory: what `limits` bounds.
    entries: u64,
    file_bytes: u64,
    metadata_bytes: u64,
    /// Bytes of the targets of symbolic links that were followed: without a bound, few links could make every
    /// entry walk tens of thousands of directories.
    followed_bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) attributes: Attributes,
    pub(crate) content: Content,
}

/// The children of a directory, sorted by name as EROFS wants them.
pub(crate) type Children = BTreeMap<Box<[u8]>, InodeId>;

#[derive(Debug)]
pub(crate) enum Content {
    Directory(Children),
    File { size: u64, data: DataSource },
    Symlink(Box<[u8]>),
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
}

/// Which entry of which layer holds a file's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DataSource {
    pub(crate) layer: u32,
    pub(crate) ordinal: u32,
}

/// What to do when a directory on the way is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Leave,
}

impl Tree {
    /// An empty root.
    pub(crate) fn new(limits: &Limits) -> Self {
        let root = Inode { attributes: made_directory(), content: Content::Directory(Children::new()) };
        Self {
            inodes: vec![root],
            limits: limits.clone(),
            entries: 0,
            file_bytes: 0,
            metadata_bytes: 0,
            followed_bytes: 0,
        }
    }

    pub(crate) fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.index()]
    }

    /// The number of inodes ever made; no id is larger.
    pub(crate) fn len(&self) -> usize {
        self.inodes.len()
    }

    fn children_mut(&mut self, id: InodeId) -> Option<&mut Children> {
        match &mut self.inodes[id.index()].content {
            Content::Directory(children) => Some(children),
            _ => None,
        }
    }

    fn child(&self, id: InodeId, name: &[u8]) -> Option<InodeId> {
        match &self.inode(id).content {
            Content::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    fn is_directory(&self, id: InodeId) -> bool {
        matches!(self.inode(id).content, Content::Directory(_))
    }

    fn make(&mut self, inode: Inode) -> Result<InodeId, Fault> {
        let full = Fault::Limit { limit: Limit::Entries, allowed: self.limits.entries };
        let id = u32::try_from(self.inodes.len()).map_err(|_| full)?;
        self.inodes.push(inode);
        Ok(InodeId(id))
    }

    fn count_entry(&mut self) -> Result<(), Fault> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Fault::Limit { limit: Limit::Entries, allowed: self.limits.entries });
        }
        Ok(())
    }

    fn count_metadata(&mut self, bytes: usize) -> Result<(), Fault> {
        self.metadata_bytes += bytes as u64;
        if self.metadata_bytes > self.limits.metadata_bytes {
            return Err(Fault::Limit { limit: Limit::MetadataBytes, allowed: self.limits.metadata_bytes });
        }
        Ok(())
    }

    fn count_file(&mut self, bytes: u64) -> Result<(), Fault> {
        self.file_bytes = self.file_bytes.saturating_add(bytes);
        if self.file_bytes > self.limits.total_bytes {
            return Err(Fault::Limit { limit: Limit::TotalBytes, allowed: self.limits.total_bytes });
        }
        Ok(())
    }

    /// Finds the directory at a path, following symbolic links as a process would whose root this tree is:
    /// neither an absolute target nor `..` leaves it. None: it is missing and was to be left so.
    fn directory_at(&mut self, path: &[u8], missing: Missing) -> Result<Option<InodeId>, Fault> {
        let mut walked = vec![ROOT];
        let mut ahead: Vec<Cow<'_, [u8]>> = components(path).rev().map(Cow::Borrowed).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if *name == *b".." {
                walked.truncate(walked.len().saturating_sub(1).max(1));
                continue;
            }
            let here = walked.last().copied().unwrap_or(ROOT);
            let Some(next) = self.child(here, &name) else {
                if missing == Missing::Leave {
                    return Ok(None);
                }
                walked.push(self.make_directory(here, &name)?);
                continue;
            };
            match &self.inode(next).content {
                Content::Directory(_) => walked.push(next),
                Content::Symlink(target) => {
                    links += 1;
                    if links > MAX_SYMLINKS {
                        return Err(Fault::SymlinkLoop);
                    }
                    if target.starts_with(b"/") {
                        walked.truncate(1);
                    }
                    ahead.extend(components(target).rev().map(|c| Cow::Owned(c.to_vec())));
                    self.followed_bytes += target.len() as u64;
                    if self.followed_bytes > self.limits.metadata_bytes {
                        let allowed = self.limits.metadata_bytes;
                        return Err(Fault::Limit { limit: Limit::MetadataBytes, allowed });
                    }
                }
                _ if missing == Missing::Leave => return Ok(None),
                _ => return Err(Fault::ParentNotDirectory),
            }
        }
        Ok(walked.last().copied())
    }

    /// Makes a directory that no layer has an entry for.
    fn make_directory(&mut self, parent: InodeId, name: &[u8]) -> Result<InodeId, Fault> {
        // The name may come from a symbolic link's target, which isn't checked otherwise.
        if name.len() > NAME_BYTES {
            return Err(Fault::NameTooLong);
        }
        self.count_entry()?;
        self.count_metadata(name.len())?;
        let id =
            self.make(Inode { attributes: made_directory(), content: Content::Directory(Children::new()) })?;
        self.put(parent, name, id);
        Ok(id)
    }

    fn put(&mut self, parent: InodeId, name: &[u8], id: InodeId) {
        if let Some(children) = self.children_mut(parent) {
            children.insert(name.into(), id);
        }
    }
}

/// The attributes of a directory that no layer has an entry for.
fn made_directory() -> Attributes {
    Attributes { mode: 0o755, uid: 0, gid: 0, mtime: 0, mtime_nsec: 0, xattrs: BTreeMap::new() }
}
