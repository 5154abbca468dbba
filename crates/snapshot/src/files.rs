//! One saved machine in a directory of its own. Owns the format of `manifest.json`.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cellule_engine::{DEVICES_MAX, Origin, SavedMachine};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Damage, Error};
use crate::key::TemplateKey;

/// The format this version writes; any other is refused. It is a part of every template's id.
pub const FORMAT: u32 = 1;

pub(crate) const MANIFEST: &str = "manifest.json";
const MEMORY: &str = "memory";
const DEVICES: &str = "devices";
/// Far above any real manifest: a larger one is damage.
const MANIFEST_MAX: u64 = 16 << 20;

/// What a saved machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of this document, [`FORMAT`].
    pub format: u32,
    /// What it was made of.
    pub key: TemplateKey,
    /// What people call that.
    pub label: String,
    /// When it was saved: wall clock, nanoseconds since 1970.
    pub saved_ns: i64,
    /// Who can go on with it.
    pub origin: Origin,
    /// How its memory looked when it was done.
    pub memory: MemoryRecord,
    /// The SHA-256 of its devices' state, in lower-case hexadecimal.
    pub devices_sha256: String,
}

/// How a file with a memory looked when it was done.
///
/// It is not hashed at each start, which would cost more than the start: what wrote to it since shows in its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryRecord {
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last written to: nanoseconds since 1970.
    pub written_ns: i64,
}

/// A directory with a saved machine.
#[derive(Debug, Clone)]
pub struct SavedFiles {
    dir: PathBuf,
    manifest: Manifest,
}

impl Manifest {
    /// Reads the contents of a `manifest.json`, which may be anybody's.
    ///
    /// # Errors
    /// It is not a document of this version's.
    pub fn parse(text: &[u8]) -> Result<Self, Damage> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        if text.len() as u64 > MANIFEST_MAX {
            return Err(Damage::Manifest(None));
        }
        // Another version's may have other fields: its format is what to say of it.
        let Format { format } =
            serde_json::from_slice(text).map_err(|error| Damage::Manifest(Some(error)))?;
        if format != FORMAT {
            return Err(Damage::Format { found: format, expected: FORMAT });
        }
        serde_json::from_slice(text).map_err(|error| Damage::Manifest(Some(error)))
    }
}

impl SavedFiles {
    /// Opens a file for the memory that is to be saved in `dir`.
    pub(crate) fn memory_file(dir: &Path) -> Result<File, Error> {
        let path = dir.join(MEMORY);
        let open = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        open.map_err(Error::io("make", &path))
    }

    /// Completes `dir`, whose memory is whole already, and tells what it then says of itself.
    pub(crate) fn write(
        dir: &Path,
        key: &TemplateKey,
        label: &str,
        saved: &SavedMachine,
    ) -> Result<Manifest, Error> {
        let memory = saved.changes.file();
        let path = dir.join(MEMORY);
        memory.sync_all().map_err(Error::io("write", &path))?;
        let manifest = Manifest {
            format: FORMAT,
            key: key.clone(),
            label: label.to_owned(),
            saved_ns: now_ns(),
            origin: saved.origin.clone(),
            memory: record_of(memory).map_err(Error::io("look at", &path))?,
            devices_sha256: sha256(&saved.devices),
        };
        write_file(dir, DEVICES, &saved.devices)?;
        let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other);
        write_file(dir, MANIFEST, &text.map_err(Error::io("write", &dir.join(MANIFEST)))?)?;
        sync_dir(dir)?;
        Ok(manifest)
    }

    /// Looks at what is in `dir`.
    ///
    /// # Errors
    /// There is nothing, or what is there is no saved machine of this version's.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(MANIFEST);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let damaged = |damage| Error::Damaged { path: dir.to_path_buf(), damage };
        let mut text = Vec::new();
        file.take(MANIFEST_MAX + 1)
            .read_to_end(&mut text)
            .map_err(|source| damaged(Damage::Unreadable { file: MANIFEST, source }))?;
        let manifest = Manifest::parse(&text).map_err(damaged)?;
        Ok(Self { dir: dir.to_path_buf(), manifest })
    }

    /// What was just completed, wherever it is now.
    pub(crate) fn at(dir: PathBuf, manifest: Manifest) -> Self {
        Self { dir, manifest }
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Opens it, for a machine to go on from.
    ///
    /// # Errors
    /// A file is not what was saved.
    pub fn load(&self) -> Result<SavedMachine, Error> {
        self.try_load().map_err(|damage| Error::Damaged { path: self.dir.clone(), damage })
    }

    fn try_load(&self) -> Result<SavedMachine, Damage> {
        let unreadable = |file| move |source| Damage::Unreadable { file, source };
        let memory = File::open(self.dir.join(MEMORY)).map_err(unreadable(MEMORY))?;
        let wanted = self.manifest.memory;
        let found = record_of(&memory).map_err(unreadable(MEMORY))?;
        if found.bytes != wanted.bytes {
            return Err(Damage::Size { expected: wanted.bytes, found: found.bytes });
        }
        if found != wanted {
            return Err(Damage::Touched);
        }
        let mut devices = Vec::new();
        File::open(self.dir.join(DEVICES))
            .and_then(|file| file.take(DEVICES_MAX as u64 + 1).read_to_end(&mut devices))
            .map_err(unreadable(DEVICES))?;
        if sha256(&devices) != self.manifest.devices_sha256 {
            return Err(Damage::Devices);
        }
        SavedMachine::whole(memory, devices, self.manifest.origin.clone()).map_err(unreadable(MEMORY))
    }
}

fn record_of(memory: &File) -> io::Result<MemoryRecord> {
    let found = memory.metadata()?;
    let written_ns = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    Ok(MemoryRecord { bytes: found.len(), written_ns })
}

fn write_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = dir.join(name);
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(Error::io("write", &path))
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("write", dir))
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
