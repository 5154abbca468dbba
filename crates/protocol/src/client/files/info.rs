//! Owns what the host believes of a guest's files: checked, or an error.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::FileError;
use crate::v1;
use crate::v1::file_info::Kind;

/// The longest name in a directory, and the longest target of a link.
const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4096;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

/// What the guest tells of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// What it is.
    pub kind: FileKind,
    /// In bytes.
    pub size: u64,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When its contents were changed, by the guest's clock.
    pub modified: SystemTime,
    /// Its number in its file system.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
    /// Where a symbolic link leads.
    pub target: Option<Vec<u8>>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name: not empty, without slashes, neither `.` nor `..`.
    pub name: Vec<u8>,
    /// What it is; of a link itself.
    pub info: FileInfo,
}

impl FileInfo {
    pub(super) fn checked(info: Option<v1::FileInfo>) -> Result<Self, FileError> {
        let info = info.ok_or_else(|| FileError::protocol("a file of which it tells nothing"))?;
        let kind = match info.kind() {
            Kind::Regular => FileKind::Regular,
            Kind::Directory => FileKind::Directory,
            Kind::Symlink => FileKind::Symlink,
            Kind::Fifo => FileKind::Fifo,
            Kind::Socket => FileKind::Socket,
            Kind::CharacterDevice => FileKind::CharacterDevice,
            Kind::BlockDevice => FileKind::BlockDevice,
            Kind::Unspecified => return Err(FileError::protocol("a file of no known kind")),
        };
        if info.mode > 0o7777 {
            return Err(FileError::protocol("permissions that do not exist"));
        }
        if info.target.len() > MAX_TARGET || info.target.contains(&0) {
            return Err(FileError::protocol("a link that leads to no path"));
        }
        let since = Duration::from_nanos(info.modified_ns.unsigned_abs());
        let modified =
            if info.modified_ns < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) };
        Ok(Self {
            kind,
            size: info.size,
            mode: info.mode,
            uid: info.uid,
            gid: info.gid,
            modified: modified.ok_or_else(|| FileError::protocol("a time that does not exist"))?,
            inode: info.inode,
            links: info.links,
            target: (kind == FileKind::Symlink).then_some(info.target),
        })
    }
}

impl DirEntry {
    pub(super) fn checked(entry: v1::list_response::Entry) -> Result<Self, FileError> {
        let name = entry.name;
        let is_name = (1..=MAX_NAME).contains(&name.len())
            && !name.iter().any(|byte| matches!(byte, b'/' | 0))
            && name != b"."
            && name != b"..";
        if !is_name {
            return Err(FileError::protocol("an entry of a directory whose name is none"));
        }
        Ok(Self { name, info: FileInfo::checked(entry.info)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> v1::FileInfo {
        v1::FileInfo { kind: Kind::Regular.into(), mode: 0o644, ..v1::FileInfo::default() }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let entry = |name: &[u8]| v1::list_response::Entry { name: name.to_vec(), info: Some(plain()) };
        for bad in [&b""[..], b".", b"..", b"/", b"a/b", b"../a", b"a\0", &[b'a'; 256]] {
            DirEntry::checked(entry(bad)).unwrap_err();
        }
        for good in [&b"..."[..], b"\xFF", b".a", &[b'a'; 255]] {
            assert_eq!(DirEntry::checked(entry(good)).unwrap().name, good);
        }
    }

    #[test]
    fn what_no_file_has_is_refused() {
        FileInfo::checked(None).unwrap_err();
        for bad in [
            v1::FileInfo { kind: 99, ..plain() },
            v1::FileInfo { kind: 0, ..plain() },
            v1::FileInfo { mode: 0o10000, ..plain() },
            v1::FileInfo { target: vec![b'a'; MAX_TARGET + 1], ..plain() },
        ] {
            FileInfo::checked(Some(bad)).unwrap_err();
        }
    }

    #[test]
    fn every_time_that_the_wire_can_say_is_taken() {
        for ns in [i64::MIN, -1, 0, 1, i64::MAX] {
            let info = FileInfo::checked(Some(v1::FileInfo { modified_ns: ns, ..plain() })).unwrap();
            assert_eq!(info.modified < UNIX_EPOCH, ns < 0);
        }
    }
}
