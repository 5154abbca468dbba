//! Owns which directory a watch is of, as it is known from the events so far: a name in another directory, up to the one
//! that was asked for. So a directory that is renamed takes what is beneath it along.

use std::collections::HashMap;

/// Deeper than any tree; a circle can't come about, and must not be gone round for ever if it does.
const MAX_DEPTH: usize = 16_384;

/// The kernel's number of a watch.
pub(super) type Wd = i32;

/// The directories that are watched.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: HashMap<Wd, Node>,
    root: Option<Wd>,
}

#[derive(Debug)]
struct Node {
    /// None for the root.
    parent: Option<Wd>,
    name: Vec<u8>,
    children: HashMap<Vec<u8>, Wd>,
}

impl Tree {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn contains(&self, wd: Wd) -> bool {
        self.nodes.contains_key(&wd)
    }

    pub(super) fn is_root(&self, wd: Wd) -> bool {
        self.root == Some(wd)
    }

    pub(super) fn watches(&self) -> impl Iterator<Item = Wd> {
        self.nodes.keys().copied()
    }

    /// Makes `wd` the watch of a name in another directory, or of the root; wherever it was before.
    pub(super) fn place(&mut self, wd: Wd, parent: Option<Wd>, name: &[u8]) {
        self.detach(wd);
        match parent {
            None => self.root = Some(wd),
            Some(parent) => {
                if let Some(parent) = self.nodes.get_mut(&parent) {
                    parent.children.insert(name.to_vec(), wd);
                }
            }
        }
        let children = self.nodes.remove(&wd).map(|node| node.children).unwrap_or_default();
        self.nodes.insert(wd, Node { parent, name: name.to_vec(), children });
    }

    /// The watch of the directory of that name.
    pub(super) fn child(&self, parent: Wd, name: &[u8]) -> Option<Wd> {
        self.nodes.get(&parent)?.children.get(name).copied()
    }

    /// Forgets that a directory has a child of that name.
    pub(super) fn forget_name(&mut self, parent: Wd, name: &[u8]) {
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children.remove(name);
        }
    }

    /// Forgets one watch, which the kernel has ended.
    pub(super) fn forget(&mut self, wd: Wd) {
        self.detach(wd);
        self.nodes.remove(&wd);
        if self.root == Some(wd) {
            self.root = None;
        }
    }

    /// Forgets a directory with all beneath it. Returns the watches.
    pub(super) fn forget_all(&mut self, wd: Wd) -> Vec<Wd> {
        self.detach(wd);
        let mut forgotten = vec![wd];
        let mut at = 0;
        while let Some(wd) = forgotten.get(at) {
            if let Some(node) = self.nodes.remove(wd) {
                forgotten.extend(node.children.into_values());
            }
            at += 1;
        }
        forgotten
    }

    /// Where a watched directory is, beneath the root: empty for that, else with a slash before each name.
    pub(super) fn path(&self, wd: Wd) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let mut at = wd;
        for _ in 0..MAX_DEPTH {
            let node = self.nodes.get(&at)?;
            let Some(parent) = node.parent else {
                let names = names.iter().rev().flat_map(|name: &&[u8]| [&b"/"[..], name]);
                return Some(names.collect::<Vec<_>>().concat());
            };
            names.push(node.name.as_slice());
            at = parent;
        }
        None
    }

    fn detach(&mut self, wd: Wd) {
        let Some(Node { parent: Some(parent), name, .. }) = self.nodes.get(&wd) else { return };
        let (parent, name) = (*parent, name.clone());
        // Another may be of that name by now.
        if self.child(parent, &name) == Some(wd) {
            self.forget_name(parent, &name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.place(1, None, b"");
        tree.place(2, Some(1), b"a");
        tree.place(3, Some(2), b"b");
        tree.place(4, Some(3), b"c");
        tree
    }

    #[test]
    fn a_renamed_directory_takes_all_beneath_it_along() {
        let mut tree = tree();
        assert_eq!(tree.path(4).unwrap(), b"/a/b/c");
        tree.place(3, Some(1), b"new");
        assert_eq!(tree.path(4).unwrap(), b"/new/c");
        assert_eq!((tree.child(2, b"b"), tree.child(1, b"new")), (None, Some(3)));
    }

    #[test]
    fn what_leaves_takes_all_beneath_it_along() {
        let mut tree = tree();
        let mut forgotten = tree.forget_all(3);
        forgotten.sort_unstable();
        assert_eq!(forgotten, [3, 4]);
        assert_eq!((tree.len(), tree.child(2, b"b"), tree.path(4)), (2, None, None));
    }

    #[test]
    fn the_late_end_of_a_watch_does_not_touch_who_has_its_name_now() {
        let mut tree = tree();
        tree.place(5, Some(1), b"a");
        tree.forget(2);
        assert_eq!(tree.child(1, b"a"), Some(5));
    }

    #[test]
    fn a_circle_has_no_path() {
        let mut tree = tree();
        tree.place(2, Some(4), b"x");
        assert_eq!(tree.path(4), None);
    }
}
