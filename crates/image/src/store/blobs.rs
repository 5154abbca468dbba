//! Blobs: files whose name is their digest.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use cellule_rootfs::Hasher;

use super::{Operation, Partial, Store, atomic, lock::Mode};
use crate::{Digest, Error, Result, manifest::Descriptor};

const BUFFER: usize = 256 << 10;

/// Whether the store has a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Yes,
    No,
}

/// Writes a blob to a file and takes its digest on the way.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    partial: Partial,
    hasher: Hasher,
    written: u64,
}

impl BlobWriter {
    /// Goes on where a dead owner of the file stopped: what is there counts as written, if it can be part of `size`.
    pub(crate) fn resume(mut partial: Partial, size: u64) -> Result<Self> {
        let path = partial.target().to_owned();
        let mut hasher = Hasher::new();
        let mut written = 0;
        let length = partial.file.metadata().map_err(Error::io("inspect", &path))?.len();
        if length > size {
            partial.file.set_len(0).map_err(Error::io("truncate", &path))?;
        } else {
            let mut buffer = vec![0; BUFFER];
            loop {
                match partial.file.read(&mut buffer).map_err(Error::io("read", &path))? {
                    0 => break,
                    n => {
                        hasher.update(&buffer[..n]);
                        written += n as u64;
                    }
                }
            }
        }
        Ok(Self { partial, hasher, written })
    }

    /// How many bytes there are.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.partial.file.write_all(bytes).map_err(Error::io("write", self.partial.target()))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what was written.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let file = &mut self.partial.file;
        let emptied = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
        emptied.map_err(Error::io("truncate", self.partial.target()))?;
        self.hasher = Hasher::new();
        self.written = 0;
        Ok(())
    }

    /// The digest of what was written.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Gives the blob its final name, which the caller has found to be its digest.
    pub(crate) fn commit(self) -> Result<()> {
        self.partial.commit()
    }
}

impl Store {
    /// Looks for a blob of that digest and size. One of another size is damaged, and removed.
    pub(crate) fn find_blob(&self, digest: &Digest, size: u64) -> Result<Found> {
        let path = self.blob_path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.len() == size => Ok(Found::Yes),
            Ok(_) => {
                let _lock = self.lock(Mode::Exclusive)?;
                super::ignore_missing(fs::remove_file(&path)).map_err(Error::io("remove", &path))?;
                Ok(Found::No)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::No),
            Err(error) => Err(Error::io("inspect", &path)(error)),
        }
    }

    /// Reads a small blob and verifies it.
    pub(crate) fn read_document(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let bytes = read_bounded(&path, limit)?;
        verify(&bytes, digest, || path.display().to_string())?;
        Ok(bytes)
    }

    /// Stores a small blob, which must be pinned.
    pub(crate) fn write_document(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        // It is as quick to compare as to trust, and cures a damaged one.
        if fs::read(&path).ok().as_deref() != Some(bytes) {
            atomic::write(&self.tmp_dir(), &path, bytes)?;
        }
        Ok(digest)
    }

    /// Makes an ingested file a blob.
    pub(crate) fn adopt(&self, operation: &Operation, ingested: &Ingested) -> Result<()> {
        operation.pin_blobs(self, [&ingested.digest])?;
        match self.find_blob(&ingested.digest, ingested.size)? {
            Found::Yes => Ok(()),
            Found::No => atomic::commit(&ingested.file, &ingested.path, &self.blob_path(&ingested.digest)),
        }
    }
}

impl Operation {
    /// Begins a blob whose digest is not known yet, of at most `limit` bytes.
    pub(crate) fn new_blob(&self, limit: u64, what: &str) -> Result<NewBlob> {
        let path = self.path("blob");
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        Ok(NewBlob { file, path, hasher: Hasher::new(), size: 0, limit, what: what.into(), failed: None })
    }

    /// Stores what `reader` gives, at most `limit` bytes.
    pub(crate) fn ingest(&self, reader: &mut dyn Read, limit: u64, what: &str) -> Result<Ingested> {
        let mut blob = self.new_blob(limit, what)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return blob.finish_after(Ok(())),
                Ok(n) => blob.add(&buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", what)(error)),
            }
        }
    }
}

/// A blob that is being written, before its digest is known.
#[derive(Debug)]
pub(crate) struct NewBlob {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size: u64,
    limit: u64,
    what: String,
    /// Why a write through [`Write`], whose errors say less, failed.
    failed: Option<Error>,
}

impl NewBlob {
    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        let actual = self.size + bytes.len() as u64;
        if actual > self.limit {
            return Err(Error::Limit {
                what: self.what.clone(),
                field: "bytes or more",
                actual,
                allowed: self.limit,
            });
        }
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.size = actual;
        Ok(())
    }

    /// Ends the blob after what wrote it; of two errors the blob's own is returned.
    pub(crate) fn finish_after(self, written: Result<()>) -> Result<Ingested> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        written?;
        Ok(Ingested { file: self.file, path: self.path, digest: self.hasher.finish(), size: self.size })
    }
}

impl Write for NewBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.add(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("the blob cannot be written"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file in an operation's directory, with what it was found to hold.
#[derive(Debug)]
pub(crate) struct Ingested {
    file: File,
    path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Ingested {
    /// Where it is until it is adopted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses content that is not what the descriptor promises.
    pub(crate) fn verify(&self, promised: &Descriptor, what: &str) -> Result<()> {
        let (expected, actual) = (promised.size, self.size);
        if actual != expected {
            return Err(Error::SizeMismatch { what: what.into(), expected, actual, at_least: false });
        }
        if self.digest != promised.digest {
            let (expected, actual) = (promised.digest, self.digest);
            return Err(Error::DigestMismatch { what: what.into(), expected, actual });
        }
        Ok(())
    }
}

/// Refuses bytes that are not those of the digest.
pub(crate) fn verify(bytes: &[u8], expected: &Digest, what: impl FnOnce() -> String) -> Result<()> {
    let actual = Digest::of(bytes);
    if actual == *expected {
        return Ok(());
    }
    Err(Error::DigestMismatch { what: what(), expected: *expected, actual })
}

/// Reads a file that must not be larger than `limit`.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    let actual = bytes.len() as u64;
    if actual > limit {
        return Err(Error::Limit {
            what: path.display().to_string(),
            field: "bytes",
            actual,
            allowed: limit,
        });
    }
    Ok(bytes)
}
