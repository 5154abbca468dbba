//! Merges the layers of an image into one uncompressed, deterministic EROFS file.
//!
//! This crate owns the tars of layers (whiteouts, hard links, sparse files and all), the merged tree, and the
//! bytes of the EROFS file made from it; and, as what it reads and writes tars with serves others too, tars of files that
//! are copied ([`ArchiveReader`], [`pack`]). It must never know of registries, references, stores or VMs: it is
//! given layers that can be read, and a file to write to.
//!
//! Nothing is unpacked on the host. The first pass reads each layer's headers into a tree in memory; the tree
//! alone decides where everything lies; the second pass writes the contents of the files that are left to
//! their places:
//!
//! ```text
//! layer blobs ──► decompress ──► entries ──► merged tree ──► layout ──► inodes and directories ─┐
//!      └────────► decompress ──► contents of the files that no later layer replaced ────────────┴──► EROFS file
//! ```
//!
//! So the host's paths are never touched by what a layer says, no privilege is needed, memory grows with the
//! number of entries and not with their sizes, and the file depends on the merged tree alone: not on
//! compression, the order of entries, time or host.
//!
//! # How layers merge
//! As the OCI image specification says and, where it is silent, as Docker does:
//! - Whiteouts (`.wh.NAME`, `.wh..wh..opq`) delete from lower layers only, wherever they stand in their own
//!   layer. Other names that begin with `.wh..wh.` are metadata of AUFS and ignored.
//! - Of entries with one path in one layer the last counts. A directory over a directory keeps what is in it
//!   and takes the new attributes; every other meeting replaces, with all that was below.
//! - Missing parents are made: mode 0755, owner 0:0, time 0. So is the root, if no layer has it.
//! - Paths are relative to the root, absolute ones too; `..` in them is refused. A parent that is a symbolic
//!   link is followed inside of the merged tree, where `/` and `..` can't leave the root, as in Docker's
//!   chroot. Whatever an entry itself replaces isn't followed.
//! - A hard link names a path that exists by then, in its own or a lower layer, and shares that inode with
//!   all that is in it. Forward links are refused.
//! - Extended attributes are kept in the namespaces that Linux has (`user.`, `trusted.`, `security.` and the
//!   two POSIX ACLs). Others, such as those of macOS, are dropped, and so is `trusted.overlay.`, whose
//!   meaning would be for an overlay that shows the image and not for the image.
//! - Pax global headers and volume labels are ignored; unknown types of entries are refused.
#![forbid(unsafe_code)]

mod archive;
mod build;
mod compression;
mod digest;
mod directory;
mod erofs;
mod error;
mod layer;
mod limits;
mod path;
mod source;
mod tree;

pub use archive::{ArchiveEntry, ArchiveEntryKind, ArchiveError, ArchiveReader, PackOptions, pack};
pub use build::{Built, LAYOUT_VERSION, Progress, build, build_from_directory};
pub use compression::Compression;
pub use digest::{Digest, Hasher, ParseDigestError};
pub use directory::{DirectoryLayer, tar_from_directory};
pub use error::{Error, Fault};
pub use limits::{Limit, Limits};
pub use source::{BytesLayer, FileLayer, LayerSource};
