//! What can go wrong, and where it did.

use std::io;
use std::path::PathBuf;

use crate::compression::Compression;
use crate::limits::Limit;

/// Why no EROFS file or tar was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The progress callback asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A layer can't be read or can't be merged.
    #[error("layer {layer}{}, at byte {offset} of its tar", entry(path.as_deref()))]
    Layer {
        /// What [`LayerSource::describe`](crate::LayerSource::describe) said.
        layer: String,
        /// The entry's path as the layer gives it, made printable; none outside of any entry.
        path: Option<String>,
        /// Where in the uncompressed tar: the entry's header, or where reading stopped.
        offset: u64,
        /// The cause.
        source: Fault,
    },
    /// The host's file that receives the result can't be written or read back.
    #[error("cannot write the result")]
    Output {
        /// The host's reason.
        source: io::Error,
    },
    /// The merged tree is larger than 32-bit block numbers can address (16 TiB).
    #[error("the merged tree needs {blocks} blocks of 4096 bytes, more than EROFS can address")]
    TooLarge {
        /// The blocks that it would take.
        blocks: u64,
    },
    /// Something in a root filesystem directory can't be read.
    #[error("cannot read {}", path.display())]
    Directory {
        /// The path on the host.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// A file in a root filesystem directory has a name that means a whiteout in a layer.
    #[error("{} cannot go into a layer: names that begin with \".wh.\" mean deletions there", path.display())]
    ReservedName {
        /// The path on the host.
        path: PathBuf,
    },
}

pub(crate) fn entry(path: Option<&str>) -> String {
    path.map(|path| format!(", entry {path:?}")).unwrap_or_default()
}

/// What is wrong with a layer. Where it is, says [`Error::Layer`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The layer's source can't be opened.
    #[error("cannot open it")]
    Open(#[source] io::Error),
    /// The layer's source failed while it was read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// The compressed stream is damaged, cut short, followed by garbage, or asks for too large a window.
    #[error("its {compression} stream is damaged")]
    Decompress {
        /// The format, by its magic.
        compression: Compression,
        /// The decompressor's reason.
        source: io::Error,
    },
    /// The tar ends inside of a header or of a file.
    #[error("the tar is cut short")]
    Truncated,
    /// A header's checksum is wrong: no tar, or a damaged one.
    #[error("not a tar header: its checksum is wrong")]
    Checksum,
    /// One zero block stands where an archive ends with two.
    #[error("a single zero block stands between entries")]
    LoneZeroBlock,
    /// A numeric field holds no number, or one out of range.
    #[error("the field {field} holds no usable number")]
    Number {
        /// The field's name in tar or pax.
        field: &'static str,
    },
    /// A pax extended header isn't made of `length key=value` records.
    #[error("malformed pax header")]
    Pax,
    /// A pax or GNU long-name header is larger than 1 MiB, or too many precede one entry.
    #[error("extension headers of unreasonable size or number")]
    ExtensionHeaders,
    /// The map of a sparse file is malformed, unordered, overlapping, or disagrees with the sizes.
    #[error("malformed sparse file map")]
    Sparse,
    /// The entry's type is none that a layer can hold.
    #[error("unsupported entry type {:?}", char::from(*.0))]
    EntryType(u8),
    /// The path has a `..` component.
    #[error("the path leads upwards with \"..\"")]
    DotDot,
    /// A path, link target or attribute name is empty where it must not be, or contains a NUL byte.
    #[error("a name is empty or contains a NUL byte")]
    Name,
    /// A path component is longer than 255 bytes.
    #[error("a path component is longer than 255 bytes")]
    NameTooLong,
    /// The root directory's path is used by something that is no directory.
    #[error("only a directory can be the root")]
    Root,
    /// A whiteout names nothing that could be deleted (`.wh.`, `.wh..`, `.wh...`), or stands inside of a
    /// path.
    #[error("a whiteout that names no entry")]
    Whiteout,
    /// A parent of the path is neither a directory nor a symbolic link to one.
    #[error("a parent is no directory")]
    ParentNotDirectory,
    /// More than 40 symbolic links on the way to the parent.
    #[error("too many symbolic links on the way")]
    SymlinkLoop,
    /// A hard link's target doesn't exist in this layer so far, nor in a lower one.
    #[error("the hard link's target {target:?} does not exist")]
    HardLinkMissing {
        /// The target, made printable.
        target: String,
    },
    /// A hard link's target is a directory.
    #[error("the hard link's target {target:?} is a directory")]
    HardLinkToDirectory {
        /// The target, made printable.
        target: String,
    },
    /// A device number is beyond Linux's 12-bit major or 20-bit minor.
    #[error("device number {major}:{minor} is out of range")]
    DeviceNumber {
        /// The major number.
        major: u64,
        /// The minor number.
        minor: u64,
    },
    /// A bound of [`Limits`](crate::Limits) was exceeded.
    #[error("more than {allowed} {limit}")]
    Limit {
        /// Which.
        limit: Limit,
        /// Its value.
        allowed: u64,
    },
    /// The source gave other bytes when it was read a second time.
    #[error("it changed while it was read")]
    Changed,
}

/// Makes hostile bytes a string for messages, which print it quoted and escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
