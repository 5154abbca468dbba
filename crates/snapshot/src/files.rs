//! One saved machine in a directory of its own. Owns the format of `manifest.json` and of `pages`.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cellule_engine::{DEVICES_MAX, MemorySize, Origin, PageRange, Pages, SavedMachine};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Damage, Error};
use crate::key::TemplateKey;

/// The format this version writes; any other is refused. It is a part of every template's id.
pub const FORMAT: u32 = 3;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const MEMORY: &str = "memory";
pub(crate) const BASE: &str = "base";
pub(crate) const PAGES: &str = "pages";
pub(crate) const DEVICES: &str = "devices";
pub(crate) const DISK: &str = "disk";
/// Far above any real manifest: a larger one is damage.
pub(crate) const MANIFEST_MAX: u64 = 16 << 20;
/// Bytes of a range in `pages`: its first page and their count, each four bytes, the lowest first.
const RANGE: usize = 8;

/// What a saved machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of this document, [`FORMAT`].
    pub format: u32,
    /// What the machine was.
    pub subject: Subject,
    /// When it was saved: wall clock, nanoseconds since 1970.
    pub saved_ns: i64,
    /// Who can go on with it.
    pub origin: Origin,
    /// How the file with its memory looked when it was done.
    pub memory: FileRecord,
    /// What that memory is to be laid over; without it, it is all of the machine's.
    pub base: Option<BaseRecord>,
    /// How the file with its scratch disk looked, if it had one.
    pub disk: Option<FileRecord>,
    /// The SHA-256 of its devices' state, in lower-case hexadecimal.
    pub devices_sha256: String,
}

/// What a machine was when it was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Subject {
    /// Nobody's yet.
    Template(TemplateSubject),
    /// A sandbox's.
    Sandbox(SandboxSubject),
}

/// What a template was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSubject {
    /// All that made its memory.
    pub key: TemplateKey,
    /// What people call that.
    pub label: String,
}

/// Whose machine it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSubject {
    /// Its name, or its id; for people only.
    pub name: String,
    /// What its user wrote on it.
    pub labels: std::collections::BTreeMap<String, String>,
    /// What it was made of and how far it was, in the words of whoever owns sandboxes.
    pub sandbox: serde_json::Value,
}

/// How a file with a memory, or a disk, looked when it was done.
///
/// It is not hashed at each start, which would cost more than the start: what wrote to it since shows in its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last written to: nanoseconds since 1970.
    pub written_ns: i64,
}

/// A memory that others share, and which pages differ from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseRecord {
    /// How its file looked.
    pub memory: FileRecord,
    /// The SHA-256 of the list of pages that differ.
    pub pages_sha256: String,
    /// How many bytes those have.
    pub changed_bytes: u64,
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

    /// What it was made of, if it is a template.
    pub fn template(&self) -> Option<&TemplateSubject> {
        match &self.subject {
            Subject::Template(template) => Some(template),
            Subject::Sandbox(_) => None,
        }
    }

    /// Whose it was, if it is a sandbox's.
    pub fn sandbox(&self) -> Option<&SandboxSubject> {
        match &self.subject {
            Subject::Sandbox(sandbox) => Some(sandbox),
            Subject::Template(_) => None,
        }
    }
}

impl SavedFiles {
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

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Opens it, for a machine to go on from.
    ///
    /// # Errors
    /// A file is not what was saved.
    pub fn load(&self) -> Result<SavedMachine, Error> {
        self.try_load().map_err(|damage| Error::Damaged { path: self.dir.clone(), damage })
    }

    fn try_load(&self) -> Result<SavedMachine, Damage> {
        let memory = self.open_whole(MEMORY, self.manifest.memory)?;
        let devices = self.read(DEVICES, DEVICES_MAX as u64, &self.manifest.devices_sha256)?;
        let origin = self.manifest.origin.clone();
        let Some(record) = &self.manifest.base else {
            let unreadable = |source| Damage::Unreadable { file: MEMORY, source };
            return SavedMachine::whole(memory, devices, origin).map_err(unreadable);
        };
        let base = self.open_whole(BASE, record.memory)?;
        let size = u32::try_from(record.memory.bytes >> 20).unwrap_or(u32::MAX);
        let size = MemorySize::from_mib(size).map_err(|_| Damage::Pages)?;
        // There are no more ranges than pages.
        let list =
            self.read(PAGES, size.bytes() / cellule_engine::PAGE * RANGE as u64, &record.pages_sha256)?;
        let changes = Pages::new(memory, parse_ranges(&list)?, size).map_err(|_| Damage::Pages)?;
        Ok(SavedMachine { base, changes, devices, origin })
    }

    /// Opens its scratch disk, if it had one: to be copied, and never written to.
    ///
    /// # Errors
    /// It is not what was saved.
    pub fn disk(&self) -> Result<Option<File>, Error> {
        let Some(record) = self.manifest.disk else { return Ok(None) };
        let damaged = |damage| Error::Damaged { path: self.dir.clone(), damage };
        self.open_whole(DISK, record).map(Some).map_err(damaged)
    }

    /// Removes the scratch disk of what is saved in `dir`, which nobody goes on from any more.
    ///
    /// # Errors
    /// It cannot be removed, or there is none.
    pub fn remove_disk(dir: &Path) -> io::Result<()> {
        fs::remove_file(dir.join(DISK))
    }

    fn open_whole(&self, name: &'static str, wanted: FileRecord) -> Result<File, Damage> {
        let unreadable = |source| Damage::Unreadable { file: name, source };
        let file = File::open(self.dir.join(name)).map_err(unreadable)?;
        let found = record_of(&file).map_err(unreadable)?;
        if found.bytes != wanted.bytes {
            return Err(Damage::Size { file: name, expected: wanted.bytes, found: found.bytes });
        }
        if found != wanted {
            return Err(Damage::Touched { file: name });
        }
        Ok(file)
    }

    fn read(&self, name: &'static str, limit: u64, wanted_sha256: &str) -> Result<Vec<u8>, Damage> {
        let mut bytes = Vec::new();
        File::open(self.dir.join(name))
            .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
            .map_err(|source| Damage::Unreadable { file: name, source })?;
        if bytes.len() as u64 > limit || sha256(&bytes) != wanted_sha256 {
            return Err(Damage::Altered { file: name });
        }
        Ok(bytes)
    }

    /// Makes `dir`, which does not exist, another place of the same files: neither needs the other, and they are on disk once.
    ///
    /// # Errors
    /// The directory cannot be made, or is on another file system.
    pub fn link_to(&self, dir: &Path) -> Result<Self, Error> {
        fs::DirBuilder::new().mode(0o700).create(dir).map_err(Error::io("make", dir))?;
        for name in self.files() {
            let (from, path) = (self.dir.join(name), dir.join(name));
            match fs::hard_link(&from, &path) {
                Err(source) if source.kind() == io::ErrorKind::NotFound && !from.exists() => {
                    let damage = Damage::Unreadable { file: name, source };
                    return Err(Error::Damaged { path: self.dir.clone(), damage });
                }
                linked => linked.map_err(Error::io("link", &path))?,
            }
        }
        Ok(Self { dir: dir.to_path_buf(), manifest: self.manifest.clone() })
    }

    /// The names of its files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &'static str> {
        let over = self.manifest.base.is_some().then_some([BASE, PAGES]);
        let disk = self.manifest.disk.map(|_| DISK);
        [MANIFEST, DEVICES, MEMORY].into_iter().chain(over.into_iter().flatten()).chain(disk)
    }

    /// Bytes that it takes on disk, what it shares with others left out.
    pub fn disk_bytes(&self) -> u64 {
        let own = |name: &&str| fs::symlink_metadata(self.dir.join(name)).ok();
        let files = self.files().filter_map(|name| own(&name).map(|found| (name, found)));
        files
            .filter(|(name, found)| *name != BASE || found.nlink() == 1)
            .map(|(_, found)| found.blocks() * 512)
            .sum()
    }
}

pub(crate) fn record_of(file: &File) -> io::Result<FileRecord> {
    let found = file.metadata()?;
    let written_ns = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    Ok(FileRecord { bytes: found.len(), written_ns })
}

/// The contents of `pages`.
pub(crate) fn list_ranges(ranges: &[PageRange]) -> Vec<u8> {
    ranges.iter().flat_map(|range| [range.first.to_le_bytes(), range.count.to_le_bytes()].concat()).collect()
}

fn parse_ranges(list: &[u8]) -> Result<Vec<PageRange>, Damage> {
    let (ranges, []) = list.as_chunks::<RANGE>() else { return Err(Damage::Pages) };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
    let range = |range: &[u8; RANGE]| PageRange { first: number(&range[..4]), count: number(&range[4..]) };
    Ok(ranges.iter().map(range).collect())
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_back_from_their_list() {
        let ranges = vec![
            PageRange { first: 0, count: 1 },
            PageRange { first: 0x0102_0304, count: 0xa0b0_c0d0 },
            PageRange { first: u32::MAX, count: u32::MAX },
        ];
        let list = list_ranges(&ranges);
        assert_eq!(list[8..12], [4, 3, 2, 1]);
        assert_eq!(parse_ranges(&list).unwrap(), ranges);
        assert!(matches!(parse_ranges(&list[..9]), Err(Damage::Pages)));
    }
}
