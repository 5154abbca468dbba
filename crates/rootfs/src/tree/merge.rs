//! Lays one layer on the tree. The crate's documentation has the rules.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::{Children, Content, DataSource, Inode, InodeId, Missing, ROOT, Tree};
use crate::error::{Fault, printable};
use crate::layer::{Attributes, Entry, EntryKind};
use crate::path::{Purpose, check_symlink_target, normalise, purpose, split};

/// The entries of one layer, checked and waiting for the layer's end.
///
/// They must wait: a whiteout deletes from lower layers only, also when it stands after new entries of the
/// same path.
#[derive(Debug)]
pub(crate) struct PendingLayer {
    number: u32,
    whiteouts: Vec<Pending<()>>,
    additions: Vec<Pending<Addition>>,
}

#[derive(Debug)]
struct Pending<T> {
    path: Box<[u8]>,
    offset: u64,
    what: T,
}

#[derive(Debug)]
struct Addition {
    kind: EntryKind,
    attributes: Attributes,
    data: DataSource,
}

/// What is wrong with an entry that was merged, and which it is.
#[derive(Debug)]
pub(crate) struct MergeFault {
    pub(crate) path: Box<[u8]>,
    pub(crate) offset: u64,
    pub(crate) fault: Fault,
}

impl PendingLayer {
    /// The layer with this number, counted from the bottom.
    pub(crate) fn new(number: u32) -> Self {
        Self { number, whiteouts: Vec::new(), additions: Vec::new() }
    }
}

impl Tree {
    /// Checks an entry, counts it, and keeps it for [`merge`](Self::merge).
    pub(crate) fn add(&mut self, layer: &mut PendingLayer, entry: Entry) -> Result<(), Fault> {
        self.count_entry()?;
        let Entry { raw_path, kind, attributes, offset, ordinal } = entry;
        if kind == EntryKind::Ignored {
            return Ok(());
        }
        let path = normalise(&raw_path, &self.limits)?;
        self.count_metadata(path.len())?;
        match purpose(&path)? {
            Purpose::Ignore => return Ok(()),
            Purpose::Whiteout { .. } | Purpose::Opaque { .. } => {
                layer.whiteouts.push(Pending { path, offset, what: () });
                return Ok(());
            }
            Purpose::Add => {}
        }
        match &kind {
            EntryKind::Symlink(target) => {
                check_symlink_target(target, &self.limits)?;
                self.count_metadata(target.len())?;
            }
            EntryKind::HardLink(target) => {
                normalise(target, &self.limits)?;
                self.count_metadata(target.len())?;
            }
            EntryKind::File { size } => self.count_file(*size)?,
            _ => {}
        }
        self.count_metadata(
            attributes.xattrs.iter().map(|((_, name), value)| name.len() + value.len()).sum(),
        )?;
        let data = DataSource { layer: layer.number, ordinal };
        layer.additions.push(Pending { path, offset, what: Addition { kind, attributes, data } });
        Ok(())
    }

    /// Deletes what the layer's whiteouts name, then puts its entries into the tree, in their order.
    ///
    /// `tick` is called between them and may break off, since a layer can have millions.
    pub(crate) fn merge(
        &mut self,
        layer: PendingLayer,
        tick: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, MergeFault> {
        let PendingLayer { whiteouts, additions, .. } = layer;
        if !whiteouts.is_empty() {
            let own: HashSet<&[u8]> = additions.iter().map(|addition| &*addition.path).collect();
            for Pending { path, offset, .. } in whiteouts {
                self.delete(&path, &own).map_err(|fault| MergeFault { path, offset, fault })?;
                if tick().is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        for Pending { path, offset, what } in additions {
            self.place(&path, what).map_err(|fault| MergeFault { path, offset, fault })?;
            if tick().is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Does what a whiteout says. `own` are the paths that its own layer has entries for.
    fn delete(&mut self, path: &[u8], own: &HashSet<&[u8]>) -> Result<(), Fault> {
        let (parent, name) = match purpose(path)? {
            Purpose::Whiteout { parent, name } => (parent, Some(name)),
            Purpose::Opaque { parent } => (parent, None),
            Purpose::Add | Purpose::Ignore => return Ok(()),
        };
        if self.is_replaced(parent, own) {
            return Ok(());
        }
        let parent = self.directory_at(parent, Missing::Leave)?;
        if let Some(children) = parent.and_then(|id| self.children_mut(id)) {
            match name {
                Some(name) => drop(children.remove(name)),
                None => children.clear(),
            }
        }
        Ok(())
    }

    /// Whether something on a path, such as a symbolic link, gives way to an entry of the layer itself. What
    /// it leads to is then none of a whiteout's business: an opaque directory in a link's place must not
    /// empty the link's target.
    fn is_replaced(&self, path: &[u8], own: &HashSet<&[u8]>) -> bool {
        let mut here = ROOT;
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
        for prefix in ends.chain([path.len()]).map(|end| &path[..end]) {
            let Some((_, name)) = split(prefix) else { return false };
            match self.child(here, name) {
                Some(next) if self.is_directory(next) => here = next,
                Some(_) => return own.contains(prefix),
                None => return false,
            }
        }
        false
    }

    fn place(&mut self, path: &[u8], addition: Addition) -> Result<(), Fault> {
        let Addition { kind, attributes, data } = addition;
        let Some((parent, name)) = split(path) else {
            if kind != EntryKind::Directory {
                return Err(Fault::Root);
            }
            self.inodes[ROOT.index()].attributes = attributes;
            return Ok(());
        };
        let content = match kind {
            EntryKind::HardLink(target) => {
                let linked = self.hard_link_target(&target)?;
                let parent = self.parent_at(parent)?;
                self.put(parent, name, linked);
                return Ok(());
            }
            EntryKind::Ignored => return Ok(()),
            EntryKind::Directory => Content::Directory(Children::new()),
            EntryKind::File { size } => Content::File { size, data },
            EntryKind::Symlink(target) => Content::Symlink(target),
            EntryKind::CharDevice(device) => Content::CharDevice(device),
            EntryKind::BlockDevice(device) => Content::BlockDevice(device),
            EntryKind::Fifo => Content::Fifo,
        };
        let parent = self.parent_at(parent)?;
        if let (Content::Directory(_), Some(there)) = (&content, self.child(parent, name))
            && self.is_directory(there)
        {
            self.inodes[there.index()].attributes = attributes;
            return Ok(());
        }
        let id = self.make(Inode { attributes, content })?;
        self.put(parent, name, id);
        Ok(())
    }

    /// The directory an entry goes into, made if it is missing.
    fn parent_at(&mut self, path: &[u8]) -> Result<InodeId, Fault> {
        Ok(self.directory_at(path, Missing::Make)?.unwrap_or(ROOT))
    }

    /// What a hard link shall share. Its last name isn't followed: a link to a symbolic link is one more name
    /// of it.
    fn hard_link_target(&mut self, target: &[u8]) -> Result<InodeId, Fault> {
        let path = normalise(target, &self.limits)?;
        let target = || printable(target);
        let Some((parent, name)) = split(&path) else {
            return Err(Fault::HardLinkToDirectory { target: target() });
        };
        let parent = self.directory_at(parent, Missing::Leave)?;
        match parent.and_then(|parent| self.child(parent, name)) {
            None => Err(Fault::HardLinkMissing { target: target() }),
            Some(id) if self.is_directory(id) => Err(Fault::HardLinkToDirectory { target: target() }),
            Some(id) => Ok(id),
        }
    }
}
