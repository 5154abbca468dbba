//! The small JSON documents of a directory, a sandbox's above all: read with a bound, written whole.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::spec::FORMAT;

/// A document that this version did not write.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is no JSON, or not of the shape that this version writes.
    #[error("it does not have the shape of its format")]
    Shape(#[from] serde_json::Error),
    /// It is of another version.
    #[error("it has the format {found}, this version writes {FORMAT}")]
    Format {
        /// The format that it has.
        found: u32,
    },
    /// A part of it is larger than this version writes.
    #[error("its field `{field}` is out of bounds")]
    Bounds {
        /// The part.
        field: &'static str,
    },
}

/// Reads a document that says which format it has.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DocumentError> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format: found } = serde_json::from_slice(bytes)?;
    if found != FORMAT {
        return Err(DocumentError::Format { found });
    }
    Ok(serde_json::from_slice(bytes)?)
}

/// Reads a file of at most so many bytes. What is no file does not hold the reader.
///
/// # Errors
/// It cannot be read, is no file, or is larger.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file of a size that it could have"));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What [`write_reserved`] takes of the disk, twice: for the document that is there, and for the one that finds no room.
pub(crate) const RESERVED: usize = 16 << 10;

/// Writes a file as [`write`] does, and, where the disk is full, into room that was taken for it when it was first
/// written. Only a document that is larger than [`RESERVED`] can find none.
///
/// ```text
///   temporary written ──┬─▶ renamed                                   (and a reserve made, if there is none)
///                       └─▶ no room ──▶ reserve overwritten ──▶ renamed ──▶ a new one made of what the former had
/// ```
pub(crate) fn write_reserved(dir: &Path, name: &str, document: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(document)?;
    // White space behind a document is nothing to its readers.
    bytes.resize(bytes.len().max(RESERVED), b'\n');
    let place = dir.join(name);
    let (temporary, reserve) = (dir.join(format!(".{name}")), dir.join(format!(".{name}.reserve")));
    let first = !place.exists();
    if let Err(error) = overwrite(&temporary, &bytes).and_then(|()| fs::rename(&temporary, &place)) {
        _ = fs::remove_file(&temporary);
        if !is_full(&error) || !reserve.exists() {
            return Err(error);
        }
        overwrite(&reserve, &bytes)?;
        fs::rename(&reserve, &place)?;
    }
    if reserve.exists() {
        return Ok(());
    }
    match overwrite(&reserve, &[b'\n'; RESERVED]) {
        Err(error) if first => Err(error),
        // The document is there, and the next time may have more room.
        Err(_) => {
            _ = fs::remove_file(&reserve);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes over what a file has, whose room it keeps.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

/// Writes a file whole: readers see the former one or this one. For the holder of the directory's lock alone.
///
/// # Errors
/// It cannot be written; the former one is still there.
pub fn write(dir: &Path, name: &str, document: &impl Serialize) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}"));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(document)?)?;
    fs::rename(&temporary, dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_document_is_written_again_and_again_beside_its_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let large = vec![7; RESERVED];
        for document in [&[1][..], &[2], &large, &[3]] {
            write_reserved(dir.path(), "it.json", &document).unwrap();
            let bytes = read(&dir.path().join("it.json"), 1 << 20).unwrap();
            assert_eq!(serde_json::from_slice::<Vec<i32>>(&bytes).unwrap(), document);
            assert!(bytes.len() >= RESERVED);
            let reserve = fs::metadata(dir.path().join(".it.json.reserve")).unwrap();
            assert_eq!(reserve.len(), RESERVED as u64);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn where_no_other_file_can_be_written_the_reserve_is() {
        let dir = tempfile::tempdir().unwrap();
        write_reserved(dir.path(), "it.json", &[1]).unwrap();
        // What every write to it says; a link, so that it is there and takes nothing.
        let temporary = dir.path().join(".it.json");
        std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
        write_reserved(dir.path(), "it.json", &[2]).unwrap();
        let bytes = read(&dir.path().join("it.json"), 1 << 20).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<i32>>(&bytes).unwrap(), [2]);
        assert!(!temporary.exists(), "what found no room is gone");
        assert!(dir.path().join(".it.json.reserve").exists(), "and there is another reserve");
    }
}
