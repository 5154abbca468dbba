//! How much one image may ask for.

use std::fmt;

/// The bounds of one [`build`](crate::build). What exceeds one is refused with
/// [`Fault::Limit`](crate::Fault::Limit).
///
/// Together they bound time, disk and memory: a hostile layer can't cost more than an honest one of this
/// size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one layer's tar, uncompressed. Default 64 GiB. This is what stops a decompression bomb.
    pub layer_bytes: u64,
    /// Bytes of all regular files of all layers together, at their unpacked (not sparse) size, replaced and
    /// deleted ones included. Default 64 GiB.
    pub total_bytes: u64,
    /// Entries of all layers together, counting the parent directories that had to be made. Default 2
    /// million.
    pub entries: u64,
    /// Bytes of one entry's path or link target. Default 4095, the longest that Linux takes.
    pub path_bytes: u64,
    /// Bytes of one entry's extended attributes: names and values, and four for each. Default 64 KiB; 256 KiB
    /// is the most that can be stored.
    pub xattr_bytes_per_entry: u64,
    /// Bytes of all paths, link targets and extended attributes of all layers together, which are held in
    /// memory. Symbolic links followed to place entries have the same bound, counted apart, since each costs
    /// time. Default 512 MiB.
    pub metadata_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes: 64 << 30,
            total_bytes: 64 << 30,
            entries: 2_000_000,
            path_bytes: 4095,
            xattr_bytes_per_entry: 64 << 10,
            metadata_bytes: 512 << 20,
        }
    }
}

/// Names the field of [`Limits`] that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// [`Limits::layer_bytes`]
    LayerBytes,
    /// [`Limits::total_bytes`]
    TotalBytes,
    /// [`Limits::entries`]
    Entries,
    /// [`Limits::path_bytes`]
    PathBytes,
    /// [`Limits::xattr_bytes_per_entry`]
    XattrBytesPerEntry,
    /// [`Limits::metadata_bytes`]
    MetadataBytes,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LayerBytes => "uncompressed bytes of one layer",
            Self::TotalBytes => "unpacked bytes of all files",
            Self::Entries => "entries of all layers",
            Self::PathBytes => "bytes of a path",
            Self::XattrBytesPerEntry => "bytes of an entry's extended attributes",
            Self::MetadataBytes => "bytes of all paths, link targets and extended attributes",
        })
    }
}
