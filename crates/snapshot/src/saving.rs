//! A machine that is just being saved into a directory.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cellule_engine::SavedMachine;
use rustix::fs::{AtFlags, CWD, linkat};

use crate::error::Error;
use crate::files::{
    BASE, BaseRecord, DEVICES, DISK, FORMAT, FileRecord, MANIFEST, MEMORY, Manifest, PAGES, Subject,
    list_ranges, record_of, sha256,
};
use crate::sparse;

/// What of a machine's memory is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What differs from the memory that it began with, which is linked. All of it where that cannot be.
    Changes,
    /// All of it, so that those that go on from it share it.
    Whole,
}

/// Whether what was saved must outlive a crash of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It must.
    Durable,
    /// It is used at once, or not at all.
    Ephemeral,
}

/// A directory that gets a saved machine.
#[derive(Debug)]
pub struct Saving {
    dir: PathBuf,
    memory: File,
    /// Whether the memory is to be laid over what was linked.
    over_base: bool,
    disk: Option<File>,
}

impl Saving {
    /// Begins to save in `dir`, an empty directory, a machine whose memory was at first what is in `base`, or nothing but
    /// zeros. All that takes time and can be done before the machine stands still is done here.
    ///
    /// # Errors
    /// The files cannot be made.
    pub fn begin(dir: &Path, base: Option<&File>, extent: Extent) -> Result<Self, Error> {
        let path = dir.join(MEMORY);
        let memory = new_file(&path)?;
        let mut over_base = false;
        if let Some(base) = base {
            over_base = extent == Extent::Changes && link(base, &dir.join(BASE)).is_ok();
            if !over_base {
                sparse::copy(base, &memory).map_err(Error::io("write", &path))?;
            }
        }
        Ok(Self { dir: dir.to_path_buf(), memory, over_base, disk: None })
    }

    /// The file that the engine saves the memory in.
    ///
    /// # Errors
    /// Its descriptor cannot be copied.
    pub fn memory(&self) -> Result<File, Error> {
        self.memory.try_clone().map_err(Error::io("open", &self.dir.join(MEMORY)))
    }

    /// Keeps the machine's scratch disk too, as it is now: the machine stands still meanwhile.
    ///
    /// # Errors
    /// It cannot be read, or there is no room for it.
    pub fn copy_disk(&mut self, disk: &File) -> Result<(), Error> {
        let to = self.make_disk()?;
        sparse::copy(disk, &to).map_err(Error::io("write", &self.dir.join(DISK)))
    }

    /// An empty file for the machine's scratch disk.
    pub(crate) fn make_disk(&mut self) -> Result<File, Error> {
        let path = self.dir.join(DISK);
        let disk = new_file(&path)?;
        self.disk = Some(disk.try_clone().map_err(Error::io("open", &path))?);
        Ok(disk)
    }

    /// Completes the directory: `saved` has its pages in the file that [`memory`](Self::memory) gave. Returns what the
    /// saved machine then says of itself.
    ///
    /// # Errors
    /// Something cannot be written.
    pub fn finish(
        self,
        subject: Subject,
        saved: &SavedMachine,
        durability: Durability,
    ) -> Result<Manifest, Error> {
        let (memory, disk) = self.settle(durability)?;
        let base = if self.over_base {
            let list = list_ranges(saved.changes.ranges());
            write_file(&self.dir.join(PAGES), &list, durability)?;
            let memory = record_of(&saved.base).map_err(Error::io("look at", &self.dir.join(BASE)))?;
            let changed_bytes = saved.changes.bytes();
            Some(BaseRecord { memory, pages_sha256: sha256(&list), changed_bytes })
        } else {
            None
        };
        let manifest = Manifest {
            format: FORMAT,
            subject,
            saved_ns: now_ns(),
            origin: saved.origin.clone(),
            memory,
            base,
            disk,
            devices_sha256: sha256(&saved.devices),
        };
        self.complete(&manifest, &saved.devices, durability)?;
        Ok(manifest)
    }

    /// Says how the memory and the disk look, which are all there and are not written to from here on.
    pub(crate) fn settle(&self, durability: Durability) -> Result<(FileRecord, Option<FileRecord>), Error> {
        let settle = |file: &File, name: &str| {
            let path = self.dir.join(name);
            if durability == Durability::Durable {
                file.sync_all().map_err(Error::io("write", &path))?;
            }
            record_of(file).map_err(Error::io("look at", &path))
        };
        let disk = self.disk.as_ref().map(|disk| settle(disk, DISK)).transpose()?;
        Ok((settle(&self.memory, MEMORY)?, disk))
    }

    /// Writes what belongs to the memory. The manifest is last: only with it is there anything to be found.
    pub(crate) fn complete(
        &self,
        manifest: &Manifest,
        devices: &[u8],
        durability: Durability,
    ) -> Result<(), Error> {
        write_file(&self.dir.join(DEVICES), devices, durability)?;
        let path = self.dir.join(MANIFEST);
        let text = serde_json::to_vec_pretty(manifest).map_err(io::Error::other);
        write_file(&path, &text.map_err(Error::io("write", &path))?, durability)?;
        if durability == Durability::Durable { sync_dir(&self.dir) } else { Ok(()) }
    }
}

fn new_file(path: &Path) -> Result<File, Error> {
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
    file.map_err(Error::io("make", path))
}

/// Gives an open file another name. It must have one already, which nobody need know.
fn link(file: &File, path: &Path) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let of = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, of, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

fn write_file(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), Error> {
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        if durability == Durability::Durable { file.sync_all() } else { Ok(()) }
    };
    write().map_err(Error::io("write", path))
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("write", dir))
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
