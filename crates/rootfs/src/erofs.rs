//! EROFS, as far as a read-only image without compression needs it.
//!
//! ```text
//! block 0        1 ..                          ..                          .. end
//! ┌────────────┬──────────────────────────────┬───────────────────────────┬─────────────────────┐
//! │ superblock │ inodes, each with its xattrs │ blocks of directories and │ blocks of files,    │
//! │ at 1024    │ and, if short, its last bytes│ long symbolic links       │ in the inodes' order│
//! └────────────┴──────────────────────────────┴───────────────────────────┴─────────────────────┘
//! ```
//! Inodes come breadth first, each directory's children by name, so that a directory's inodes lie together;
//! the root is the first, since the superblock has only 16 bits for its number. All inodes are of the
//! extended form: the compact one has neither a time nor owners beyond 16 bits.
//!
//! Written for Linux 5.4 and later and every erofs-utils: no incompatible feature is used.

mod directory;
mod format;
mod layout;
mod write;

pub(crate) use layout::{Layout, Place};
pub(crate) use write::{write_contents, write_metadata};
