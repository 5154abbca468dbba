//! A tar as a stream of entries: every field bounded and checked, and of a layer's, every byte hashed.
//!
//! The `tar` crate reads extension headers of any size into memory, ends a pax record at the first newline of
//! its value (which a binary attribute may hold), cuts large base-256 numbers, and doesn't know pax's sparse
//! files. So reading is our own; writing isn't.

mod header;
mod pax;
mod reader;
mod sparse;
mod tar;

pub(crate) use reader::LayerReader;
pub(crate) use tar::{Data, Stream, TarReader, Unclosed};

use std::collections::BTreeMap;

/// One entry of a layer.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The path as the layer gives it.
    pub(crate) raw_path: Box<[u8]>,
    pub(crate) kind: EntryKind,
    pub(crate) attributes: Attributes,
    /// Where its header lies in the tar.
    pub(crate) offset: u64,
    /// Counts the layer's entries from 0; how the second pass finds it again.
    pub(crate) ordinal: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    /// A regular file of `size` bytes, holes included.
    File {
        size: u64,
    },
    Symlink(Box<[u8]>),
    /// Another name of what is at this path.
    HardLink(Box<[u8]>),
    /// Device numbers are encoded as Linux's `new_encode_dev` does.
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
    /// Nothing that belongs to the tree.
    Ignored,
}

/// Owner, permissions, time and extended attributes: what every inode has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The twelve permission bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970, and the nanoseconds after them.
    pub(crate) mtime: i64,
    pub(crate) mtime_nsec: u32,
    pub(crate) xattrs: Xattrs,
}

/// Extended attributes by namespace and the rest of the name, so sorted.
pub(crate) type Xattrs = BTreeMap<(Namespace, Box<[u8]>), Box<[u8]>>;

/// The namespaces that EROFS can store, by its own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Namespace {
    User = 1,
    PosixAclAccess = 2,
    PosixAclDefault = 3,
    Trusted = 4,
    Security = 6,
}

impl Namespace {
    /// Splits a full attribute name; none if there is no place for it in an image.
    pub(crate) fn split(name: &[u8]) -> Option<(Self, &[u8])> {
        match name {
            b"system.posix_acl_access" => return Some((Self::PosixAclAccess, b"")),
            b"system.posix_acl_default" => return Some((Self::PosixAclDefault, b"")),
            _ if name.starts_with(b"trusted.overlay.") => return None,
            _ => {}
        }
        [(Self::User, &b"user."[..]), (Self::Trusted, b"trusted."), (Self::Security, b"security.")]
            .into_iter()
            .find_map(|(namespace, prefix)| Some((namespace, name.strip_prefix(prefix)?)))
            .filter(|(_, rest)| !rest.is_empty())
    }
}
