//! A saved machine as one file, to be taken elsewhere. Owns that file's format.
//!
//! ```text
//!   zstd frame, its content checked, of a tar:
//!     manifest.json        as in a directory, for a memory that is whole
//!     devices              the engine's state of processors and devices
//!     memory/<offset>      what of the memory is no hole, in order; the offset in bytes, sixteen hexadecimal digits
//!     …
//!     disk/<offset>        the same of the scratch disk, if there is one
//!     …
//!     sha256               of all before: of each its name, its length, and its bytes
//! ```
//! Without the last entry it was cut; with another hash it was altered. What is read may be anybody's: no name in it becomes
//! one of a file, and no more is written than the memory and the disk have that it says they are.

mod read;
mod write;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cellule_engine::PageRange;
use sha2::{Digest as _, Sha256};

use crate::directory::Unfinished;
use crate::error::Error;
use crate::files::{MEMORY, Manifest, SavedFiles, record_of};
use crate::saving::{Extent, Saving};
use crate::snapshots::{SnapshotDraft, Snapshots};

const SUM: &str = "sha256";
/// How much of a file is in one entry.
const PIECE: u64 = 16 << 20;
impl Snapshots {
    /// Writes a snapshot as one file.
    ///
    /// # Errors
    /// It is damaged, or cannot be written.
    pub fn export(&self, files: &SavedFiles, to: impl Write) -> Result<(), Error> {
        // Base and changes become one memory.
        let whole = Unfinished::begin(self.dir())?;
        let path = whole.path().join(MEMORY);
        let saved = files.load()?;
        let saving = Saving::begin(whole.path(), Some(&saved.base), Extent::Whole)?;
        let memory = saving.memory()?;
        lay_over(saved.changes.file(), saved.changes.ranges(), &memory).map_err(Error::io("write", &path))?;
        let mut manifest = Manifest { base: None, ..files.manifest().clone() };
        manifest.memory = record_of(&memory).map_err(Error::io("look at", &path))?;
        let disk = files.disk()?;
        write::write(&manifest, &saved.devices, &memory, disk.as_ref(), to)
            .map_err(Error::io("write", Path::new("the archive")))
    }

    /// Reads a snapshot from one file, to be given its name.
    ///
    /// # Errors
    /// It is no snapshot of this version's, cut, or altered; or there is no room for it.
    pub fn import(&self, from: impl Read) -> Result<SnapshotDraft, Error> {
        let draft = self.draft()?;
        read::read(draft.path(), from)?;
        Ok(draft)
    }
}

/// Puts pages in their places.
fn lay_over(pages: &File, ranges: &[PageRange], memory: &File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    for range in ranges {
        let (start, bytes) =
            (u64::from(range.first) * cellule_engine::PAGE, u64::from(range.count) * cellule_engine::PAGE);
        for at in (start..start + bytes).step_by(buffer.len()) {
            let length = usize::try_from(start + bytes - at).unwrap_or(usize::MAX).min(buffer.len());
            let piece = &mut buffer[..length];
            pages.read_exact_at(piece, at)?;
            memory.write_all_at(piece, at)?;
        }
    }
    Ok(())
}

/// What an entry is called that has a part of a file.
fn piece_name(file: &str, offset: u64) -> String {
    format!("{file}/{offset:016x}")
}

/// Adds an entry to the sum of all.
fn add(sum: &mut Sha256, name: &str, bytes: &[u8]) {
    sum.update((name.len() as u64).to_le_bytes());
    sum.update(name);
    sum.update((bytes.len() as u64).to_le_bytes());
    sum.update(bytes);
}

#[cfg(test)]
mod tests;
