//! The small JSON documents of a sandbox's directory: read with a bound, written whole.

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
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
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

/// Writes a file whole: readers see the former one or this one. For the holder of the directory's lock alone.
pub(crate) fn write(dir: &Path, name: &str, document: &impl Serialize) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}"));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(document)?)?;
    fs::rename(&temporary, dir.join(name))
}
