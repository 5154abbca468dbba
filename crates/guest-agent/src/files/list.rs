//! Owns the listing of one directory, a batch at a time.

use cellule_protocol::v1::ListResponse;
use cellule_protocol::v1::list_response::Entry;
use rustix::fs::{CWD, Dir, FileType, Mode, openat, readlinkat};
use rustix::io::Errno;

use super::failure::{At, Failure};
use super::meta::Meta;
use super::path::{DIRECTORY, GuestPath};

/// What a batch holds at most, on the wire.
const BATCH: usize = 64 * 1024;
/// What an entry takes beside its name and where it leads.
const ENTRY: usize = 96;
/// The longest name and the longest target.
const LARGEST_ENTRY: usize = ENTRY + 255 + 4096;

/// A directory that is being listed.
#[derive(Debug)]
pub(super) struct Listing {
    directory: Dir,
    path: GuestPath,
}

impl Listing {
    pub(super) fn open(path: GuestPath) -> Result<Self, Failure> {
        let directory = openat(CWD, path.as_c_str(), DIRECTORY, Mode::empty())
            .and_then(Dir::new)
            .at("list", path.as_bytes())?;
        Ok(Self { directory, path })
    }

    /// The next entries; none at the end. What vanishes meanwhile is left out.
    pub(super) fn batch(&mut self) -> Result<Option<ListResponse>, Failure> {
        let mut entries = Vec::new();
        let mut size = 0;
        while size + LARGEST_ENTRY <= BATCH {
            let Some(entry) = self.directory.read() else { break };
            let entry = entry.at("list", self.path.as_bytes())?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let directory = self.directory.fd().at("list", self.path.as_bytes())?;
            let meta = match Meta::at(directory, name) {
                Ok(meta) => meta,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno).at("list", self.path.as_bytes()),
            };
            let target = if meta.kind() == FileType::Symlink {
                // Gone, or something else by now: then where it led is not known.
                readlinkat(directory, name, Vec::new()).unwrap_or_default().into_bytes()
            } else {
                Vec::new()
            };
            size += ENTRY + name.to_bytes().len() + target.len();
            entries.push(Entry { name: name.to_bytes().to_vec(), info: Some(meta.info(target)) });
        }
        Ok((!entries.is_empty()).then_some(ListResponse { entries }))
    }
}
