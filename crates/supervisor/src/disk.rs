//! The scratch disk of a sandbox: a sparse file in its directory. Owns how it comes into being, and from when on it is kept.
//!
//! ```text
//!                formatted, or copied from the machine that is gone on with
//!   (nothing) ──────────────────────────▶ disk.new ──the guest is told whose it is──▶ disk ──each later start──▶ boots with it
//!                                           │ the start fails or breaks off
//!                                           └──▶ the next start makes it anew
//! ```
//! Whoever has it open holds a lock on it, and the engine's process has it with the descriptor that it is given: so no two
//! machines ever have one disk, also where one of them is not gone yet whose supervisor was killed.
//!
//! A guest's memory knows its disk: the one that a machine was saved with goes with that memory, and a disk that was used
//! since goes with none. So a sandbox that has a disk of its own is booted.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cellule_snapshot::{SavedFiles, copy_sparse};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::Instant;

use crate::directory::SAVED;
use crate::failure::{Failure, FailureKind};
use crate::machine::apart;

/// In the sandbox's directory.
const DISK: &str = "disk";
/// One that is nobody's yet.
const NEW: &str = "disk.new";
/// Of e2fsprogs.
const FORMATTER: &str = "mkfs.ext4";
/// Where such programs are, whether or not a user's PATH says so.
const SYSTEM_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// How long a machine that is as good as gone may keep its disk.
const FREE_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How long a copy may take. A disk that is slower than a megabyte in a second is none.
const COPIED_WITHIN: Duration = Duration::from_secs(600);
/// How long formatting may take: milliseconds, unless the host's disk stalls.
const FORMATTED_WITHIN: Duration = Duration::from_secs(60);
/// All that a scratch file system has, whatever the host's configuration says.
const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,\
                        dir_nlink,extra_isize,uninit_bg";
/// A disk that is smaller has the smallest journal.
const SMALL_MIB: u64 = 512;

/// The size of a scratch disk, in whole MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct DiskSize(u64);

/// A size that no scratch disk can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a disk of {asked} MiB is asked for; it can have {} MiB to {} GiB", DiskSize::MIN.0, DiskSize::MAX.0 >> 10)]
pub struct InvalidDiskSize {
    asked: u64,
}

impl DiskSize {
    /// The smallest: room for the file system's own tables, and for something to do with it.
    pub const MIN: Self = Self(32);
    /// The largest: its tables take 12 MB of the host's disk before anything is written.
    pub const MAX: Self = Self(1 << 20);

    /// Checks a size, in MiB.
    ///
    /// # Errors
    /// It is too small or too large.
    pub fn from_mib(mib: u64) -> Result<Self, InvalidDiskSize> {
        let size = Self(mib);
        if (Self::MIN..=Self::MAX).contains(&size) { Ok(size) } else { Err(InvalidDiskSize { asked: mib }) }
    }

    /// The size in MiB.
    pub fn mib(self) -> u64 {
        self.0
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0 << 20
    }
}

impl TryFrom<u64> for DiskSize {
    type Error = InvalidDiskSize;

    fn try_from(mib: u64) -> Result<Self, InvalidDiskSize> {
        Self::from_mib(mib)
    }
}

impl From<DiskSize> for u64 {
    fn from(size: DiskSize) -> Self {
        size.0
    }
}

/// The program that formats scratch disks, where it is installed.
pub fn formatter() -> Option<PathBuf> {
    find(&std::env::var_os("PATH").unwrap_or_default(), &SYSTEM_DIRS)
}

/// Whether the sandbox of `dir` has a disk that it used before.
pub(crate) fn is_used(dir: &Path) -> bool {
    // One that cannot be looked at is there, and is not to be replaced.
    dir.join(DISK).try_exists().unwrap_or(true)
}

/// Opens the disk that the sandbox of `dir` used before.
pub(crate) async fn open(dir: &Path) -> Result<File, Failure> {
    let path = dir.join(DISK);
    let place = path.clone();
    let file = apart(move || {
        let opened = File::options().read(true).write(true).open(&place);
        opened.map_err(|error| failed("open", &place, &error))
    });
    let file = file.await?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < FREE_WITHIN => {
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
            Err(Errno::WOULDBLOCK) => {
                let held = "the machine of an earlier start still has it; end its process, or wait for it";
                return Err(failed("open", &path, &io::Error::other(held)));
            }
            Err(error) => return Err(failed("lock", &path, &error.into())),
        }
    }
}

/// Makes a disk with an empty file system.
pub(crate) async fn format(dir: &Path, size: DiskSize) -> Result<File, Failure> {
    let path = dir.join(NEW);
    let place = path.clone();
    let empty = apart(move || {
        let make = || {
            let file = new_file(&place)?;
            file.set_len(size.bytes())?;
            Ok(file)
        };
        make().map_err(|error| failed("make", &place, &error))
    });
    let file = empty.await?;
    let program = formatter().ok_or_else(|| {
        let missing = format!("{FORMATTER} is not installed: it is in the package e2fsprogs");
        Failure::new(FailureKind::Launch, "cannot format the scratch disk", Some(&io::Error::other(missing)))
    })?;
    // What it leaves out are tables of zeros, which the holes of a new file are.
    let journal = if size.mib() < SMALL_MIB { "size=4" } else { "size=16" };
    let output = Command::new(&program)
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-J", journal])
        .args(["-O", FEATURES, "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"])
        // By what is open, whatever has its name by then.
        .arg("/proc/self/fd/0")
        .env_clear()
        .stdin(Stdio::from(file.try_clone().map_err(|error| failed("format", &path, &error))?))
        .kill_on_drop(true)
        .output();
    let late = || io::Error::other(format!("{FORMATTER} takes longer than {} s", FORMATTED_WITHIN.as_secs()));
    let output = tokio::time::timeout(FORMATTED_WITHIN, output).await.unwrap_or_else(|_| Err(late()));
    let output = output.map_err(|error| failed("format", &path, &error))?;
    if output.status.success() {
        return Ok(file);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().filter(|c| !c.is_control()).take(512).collect();
    Err(failed("format", &path, &io::Error::other(format!("{FORMATTER}: {said} ({})", output.status))))
}

/// Makes a disk that is a copy of one that a machine was saved with.
pub(crate) async fn copy(dir: &Path, from: File) -> Result<File, Failure> {
    let path = dir.join(NEW);
    let place = path.clone();
    let copied = apart(move || {
        let make = || {
            let file = new_file(&place)?;
            copy_sparse(&from, &file)?;
            Ok(file)
        };
        make().map_err(|error| failed("write", &place, &error))
    });
    let late = || io::Error::other(format!("it took longer than {} s", COPIED_WITHIN.as_secs()));
    let copied = tokio::time::timeout(COPIED_WITHIN, copied).await;
    copied.unwrap_or_else(|_| Err(failed("write", &path, &late())))
}

/// Keeps the disk that was made for the sandbox of `dir`: from here on it is what the sandbox begins with.
pub(crate) async fn keep(dir: &Path) -> Result<(), Failure> {
    let dir = dir.to_path_buf();
    let kept = dir.clone();
    let renamed = apart(move || {
        let (new, disk) = (dir.join(NEW), dir.join(DISK));
        match renameat_with(CWD, &new, CWD, &disk, RenameFlags::NOREPLACE) {
            // It was kept at an earlier start.
            Err(Errno::NOENT) => Ok(()),
            renamed => renamed.map_err(|error| failed("keep", &disk, &error.into())),
        }
    });
    renamed.await?;
    // Nobody waits for the host's disk. What a machine was saved with is not needed any more once its copy is there for good.
    tokio::task::spawn_blocking(move || {
        let synced = File::open(kept.join(DISK)).and_then(|disk| disk.sync_data());
        if synced.and_then(|()| File::open(&kept)?.sync_all()).is_ok() {
            _ = SavedFiles::remove_disk(&kept.join(SAVED));
        }
    });
    Ok(())
}

/// Removes what a start left that failed.
pub(crate) fn clear(dir: &Path) {
    _ = fs::remove_file(dir.join(NEW));
}

/// An empty file that is locked for as long as it is open.
fn new_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn find(path: &OsStr, more: &[&str]) -> Option<PathBuf> {
    let dirs = std::env::split_paths(path).chain(more.iter().map(PathBuf::from));
    dirs.filter(|dir| dir.is_absolute()).map(|dir| dir.join(FORMATTER)).find(|program| program.is_file())
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot {what} the scratch disk {}", path.display());
    Failure::new(FailureKind::Launch, message, Some(error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn a_size_that_no_disk_has_is_refused_wherever_it_comes_from() {
        for bad in [0, 31, (1 << 20) + 1, u64::MAX] {
            assert!(DiskSize::from_mib(bad).is_err(), "{bad}");
            assert!(serde_json::from_value::<DiskSize>(bad.into()).is_err(), "{bad}");
        }
        assert_eq!(DiskSize::from_mib(32), Ok(DiskSize::MIN));
        assert_eq!(serde_json::to_value(DiskSize::MAX).unwrap(), 1 << 20);
        let text = InvalidDiskSize { asked: 1 }.to_string();
        assert_eq!(text, "a disk of 1 MiB is asked for; it can have 32 MiB to 1024 GiB");
    }

    #[tokio::test]
    async fn a_formatted_disk_has_a_file_system_and_takes_next_to_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for mib in [32, 64, 10 << 10] {
            let size = DiskSize::from_mib(mib).unwrap();
            let file = format(dir.path(), size).await.unwrap();
            let found = file.metadata().unwrap();
            assert_eq!(found.len(), size.bytes());
            assert!(found.blocks() * 512 < 2 << 20, "{} bytes", found.blocks() * 512);
            // Where ext4 has its magic number.
            let mut magic = [0; 2];
            file.read_exact_at(&mut magic, 1080).unwrap();
            assert_eq!(magic, [0x53, 0xef]);
        }
        assert!(!is_used(dir.path()));
        keep(dir.path()).await.unwrap();
        assert!(is_used(dir.path()));
        // A start that kept it before keeps it again.
        keep(dir.path()).await.unwrap();
        assert_eq!(open(dir.path()).await.unwrap().metadata().unwrap().len(), 10 << 30);
    }

    #[tokio::test]
    async fn a_disk_is_opened_by_one_at_a_time_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let first = format(dir.path(), DiskSize::MIN).await.unwrap();
        keep(dir.path()).await.unwrap();
        tokio::time::pause();
        let refused = open(dir.path()).await.unwrap_err().line();
        assert!(refused.contains("an earlier start still has it"), "{refused}");
        // As the engine's process has it.
        let engines = first.try_clone().unwrap();
        drop(first);
        open(dir.path()).await.unwrap_err();
        drop(engines);
        drop(open(dir.path()).await.unwrap());

        tokio::time::resume();
        let other = format(dir.path(), DiskSize::MIN).await.unwrap();
        keep(dir.path()).await.unwrap_err();
        drop(other);
        clear(dir.path());
        keep(dir.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_copy_replaces_what_a_start_left_that_broke_off() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NEW), "half").unwrap();
        let from = tempfile::tempfile().unwrap();
        from.set_len(8192).unwrap();
        from.write_all_at(b"x", 4096).unwrap();
        let copied = copy(dir.path(), from).await.unwrap();
        let mut bytes = vec![9; 8192];
        copied.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!((bytes[0], bytes[4096]), (0, b'x'));
    }

    #[test]
    fn the_formatter_is_found_where_a_path_does_not_lead() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_str().unwrap();
        assert_eq!(find(OsStr::new("/nowhere:relative"), &[place]), None);
        fs::write(dir.path().join(FORMATTER), "").unwrap();
        assert_eq!(find(OsStr::new("/nowhere"), &[place]), Some(dir.path().join(FORMATTER)));
        assert_eq!(find(dir.path().as_os_str(), &[]), Some(dir.path().join(FORMATTER)));
    }
}
