//! Directories that are complete or not there: made aside, flushed, renamed into place under the hash of their
//! manifest.
//!
//! ```text
//!   <store>/.tmp-XXXX/   being made                   swept by the next setup if its maker died
//!        │ files and manifest.json flushed, directory flushed
//!        v rename
//!   <store>/<id>/        id = SHA-256 of manifest.json, which has size and SHA-256 of each file
//!        │
//!        v
//!   <store>/current      the id in use; replaced by rename
//! ```
//! Only the holder of the setup lock writes here; reading needs no lock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::error::read_file;
use crate::{Error, Result};

const MANIFEST: &str = "manifest.json";
const CURRENT: &str = "current";
const TEMPORARY: &str = ".tmp-";
/// The most that a manifest may weigh; they are a few kilobytes.
const MANIFEST_LIMIT: u64 = 1 << 20;

/// What is wrong with a directory that was complete once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The pointer to the directory in use names none.
    #[error("its file `current` names nothing")]
    Pointer,
    /// A file is gone or cannot be read.
    #[error("its file {file} cannot be read")]
    Unreadable {
        /// The file's name.
        file: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file has another size than it was made with.
    #[error("its file {file} has {found} bytes instead of {expected}")]
    Size {
        /// The file's name.
        file: String,
        /// The size in the manifest.
        expected: u64,
        /// The size on disk.
        found: u64,
    },
    /// A file has other bytes than it was made with.
    #[error("its file {file} has other contents than it was made with")]
    Contents {
        /// The file's name.
        file: String,
    },
    /// The manifest has another hash than the directory's name says.
    #[error("its manifest has been changed")]
    ManifestHash,
    /// The manifest is not one.
    #[error("its manifest cannot be read")]
    ManifestSyntax(#[source] serde_json::Error),
    /// The directory was made by another version.
    #[error("it has format {found}, where {expected} is wanted")]
    Format {
        /// The format in the manifest.
        found: u32,
        /// The format of this version.
        expected: u32,
    },
}

/// A file as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// In bytes.
    pub size: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

/// What a directory says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest<T> {
    /// Which version of its kind this is.
    pub format: u32,
    /// All files but the manifest, by name.
    pub files: BTreeMap<String, FileRecord>,
    /// What else is to say about them.
    pub contents: T,
}

/// A directory of directories of one kind.
#[derive(Debug)]
pub(crate) struct Store<T> {
    dir: PathBuf,
    format: u32,
    contents: PhantomData<T>,
}

/// A complete directory in a store.
#[derive(Clone, Debug)]
pub(crate) struct Stored<T> {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) manifest: Manifest<T>,
}

/// A directory that is being made; gone when dropped.
#[derive(Debug)]
pub(crate) struct Draft {
    dir: TempDir,
    files: BTreeMap<String, FileRecord>,
}

impl<T: Serialize + DeserializeOwned> Store<T> {
    /// The store in `dir`, which need not exist yet.
    pub(crate) fn new(dir: PathBuf, format: u32) -> Self {
        Self { dir, format, contents: PhantomData }
    }

    /// The directory in use, checked as far as it costs nothing: the manifest is what it was, and each file has
    /// its size. `None` if there never was one.
    pub(crate) fn current(&self) -> Result<Option<Stored<T>>> {
        let pointer = self.dir.join(CURRENT);
        let id = match fs::read_to_string(&pointer) {
            Ok(id) => id,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(Error::read(&pointer)(error)),
        };
        let id = id.trim_end();
        if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(self.damaged(&self.dir, Damage::Pointer));
        }
        self.open(id).map(Some)
    }

    fn open(&self, id: &str) -> Result<Stored<T>> {
        let dir = self.dir.join(id);
        let manifest = self.read_manifest(id, &dir).map_err(|damage| self.damaged(&dir, damage))?;
        let stored = Stored { id: id.to_owned(), dir, manifest };
        stored.check_sizes().map_err(|damage| self.damaged(&stored.dir, damage))?;
        Ok(stored)
    }

    fn read_manifest(&self, id: &str, dir: &Path) -> Result<Manifest<T>, Damage> {
        let unreadable = |source| Damage::Unreadable { file: MANIFEST.into(), source };
        let file = File::open(dir.join(MANIFEST)).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(MANIFEST_LIMIT).read_to_end(&mut bytes).map_err(unreadable)?;
        if hex::encode(Sha256::digest(&bytes)) != id {
            return Err(Damage::ManifestHash);
        }
        // The format comes first: another version's manifest may have another shape.
        let Format { format } = serde_json::from_slice(&bytes).map_err(Damage::ManifestSyntax)?;
        if format != self.format {
            return Err(Damage::Format { found: format, expected: self.format });
        }
        serde_json::from_slice(&bytes).map_err(Damage::ManifestSyntax)
    }

    /// Begins a directory. Only under the setup lock.
    pub(crate) fn draft(&self) -> Result<Draft> {
        Ok(Draft { dir: self.scratch()?, files: BTreeMap::new() })
    }

    /// A directory for whatever must not last; swept if its maker dies.
    pub(crate) fn scratch(&self) -> Result<TempDir> {
        fs::create_dir_all(&self.dir).map_err(Error::write(&self.dir))?;
        tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&self.dir).map_err(Error::write(&self.dir))
    }

    /// Makes a draft the directory in use.
    pub(crate) fn publish(&self, draft: Draft, contents: T) -> Result<Stored<T>> {
        let Draft { dir, files } = draft;
        let manifest = Manifest { format: self.format, files, contents };
        let mut text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::write(dir.path().join(MANIFEST))(error.into()))?;
        text.push(b'\n');
        write_flushed(&dir.path().join(MANIFEST), |file| file.write_all(&text))?;
        flush_dir(dir.path())?;

        let id = hex::encode(Sha256::digest(&text));
        let stored = Stored { dir: self.dir.join(&id), id, manifest };
        if stored.dir.exists() && self.open(&stored.id).and_then(|stored| stored.verify()).is_err() {
            // Its place is needed. Whoever has its files open keeps them.
            let aside = self.scratch()?;
            fs::rename(&stored.dir, aside.path().join("damaged")).map_err(Error::write(&stored.dir))?;
        }
        if !stored.dir.exists() {
            fs::rename(dir.path(), &stored.dir).map_err(Error::write(&stored.dir))?;
            // What had the temporary name has another now: nothing is left to remove.
            let _ = dir.keep();
        }
        flush_dir(&self.dir)?;
        self.point_to(&stored.id)?;
        Ok(stored)
    }

    fn point_to(&self, id: &str) -> Result<()> {
        let pointer = self.dir.join(CURRENT);
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.dir)
            .map_err(Error::write(&self.dir))?;
        writeln!(file, "{id}").and_then(|()| file.as_file().sync_all()).map_err(Error::write(&pointer))?;
        file.persist(&pointer).map_err(|error| Error::write(&pointer)(error.error))?;
        flush_dir(&self.dir)
    }

    /// Removes what setups that died left behind. Only under the setup lock: no one else makes such entries.
    pub(crate) fn sweep(&self) -> Result<()> {
        self.remove_where(|name| name.starts_with(TEMPORARY))
    }

    /// Removes all directories but one. For caches that nothing but a setup reads.
    pub(crate) fn keep_only(&self, id: &str) -> Result<()> {
        self.remove_where(|name| name.len() == 64 && name != id)
    }

    fn remove_where(&self, doomed: impl Fn(&str) -> bool) -> Result<()> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Error::read(&self.dir))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::read(&self.dir))?;
            if entry.file_name().to_str().is_some_and(&doomed) {
                let path = entry.path();
                let is_dir = entry.file_type().map_err(Error::read(&path))?.is_dir();
                match if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) } {
                    // apt outlives a killed setup for a moment, and may still write there: the next sweep gets it.
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => (),
                    removed => removed.map_err(Error::write(path))?,
                }
            }
        }
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "reads as what it is: this store's verdict")]
    fn damaged(&self, path: &Path, source: Damage) -> Error {
        Error::Damaged { path: path.into(), source }
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl<T> Stored<T> {
    /// Where a file of the directory lies.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// A file of the directory, whole.
    pub(crate) fn read(&self, file: &str) -> Result<Vec<u8>> {
        let limit = self.manifest.files.get(file).map_or(0, |record| record.size);
        read_file(&self.path(file), limit)
    }

    fn check_sizes(&self) -> Result<(), Damage> {
        for (file, record) in &self.manifest.files {
            let unreadable = |source| Damage::Unreadable { file: file.clone(), source };
            let found = fs::symlink_metadata(self.path(file)).map_err(unreadable)?.len();
            if found != record.size {
                return Err(Damage::Size { file: file.clone(), expected: record.size, found });
            }
        }
        Ok(())
    }

    /// Hashes every file.
    pub(crate) fn verify(&self) -> Result<()> {
        self.check_sizes()
            .and_then(|()| self.check_contents())
            .map_err(|source| Error::Damaged { path: self.dir.clone(), source })
    }

    fn check_contents(&self) -> Result<(), Damage> {
        for (name, record) in &self.manifest.files {
            let unreadable = |source| Damage::Unreadable { file: name.clone(), source };
            let mut file = File::open(self.path(name)).map_err(unreadable)?;
            let mut hash = HashWriter { out: io::sink(), hash: Sha256::new(), size: 0 };
            io::copy(&mut file, &mut hash).map_err(unreadable)?;
            if hash.record() != *record {
                return Err(Damage::Contents { file: name.clone() });
            }
        }
        Ok(())
    }
}

impl Draft {
    /// The directory, for what is not to be part of the result but removed before.
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_with(name, |out| out.write_all(bytes))
    }

    /// Makes a file from what `fill` writes.
    pub(crate) fn write_with(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let mut record = None;
        write_flushed(&self.dir.path().join(name), |file| {
            let mut out = HashWriter { out: BufWriter::new(file), hash: Sha256::new(), size: 0 };
            fill(&mut out)?;
            out.flush()?;
            record = Some(out.record());
            Ok(())
        })?;
        self.files.extend(record.map(|record| (name.to_owned(), record)));
        Ok(())
    }

    /// Copies a file of another directory. A copy, not a link: damage to one must not be damage to both.
    pub(crate) fn copy<T>(&mut self, name: &str, from: &Stored<T>) -> Result<()> {
        let source = from.path(name);
        let mut file = File::open(&source).map_err(Error::read(source))?;
        self.write_with(name, |out| io::copy(&mut file, out).map(drop))
    }
}

struct HashWriter<W> {
    out: W,
    hash: Sha256,
    size: u64,
}

impl<W> HashWriter<W> {
    fn record(self) -> FileRecord {
        FileRecord { size: self.size, sha256: hex::encode(self.hash.finalize()) }
    }
}

impl<W: Write> Write for HashWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn write_flushed(path: &Path, contents: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let write = || {
        let mut file = File::create_new(path)?;
        contents(&mut file)?;
        file.sync_all()
    };
    write().map_err(Error::write(path))
}

fn flush_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::write(dir))
}

#[cfg(test)]
mod tests;
