//! Owns what is known of a file: what the kernel tells, in the form that goes over the wire.

use std::ffi::CStr;
use std::os::fd::AsFd;

use cellule_protocol::v1::FileInfo;
use cellule_protocol::v1::file_info::Kind;
use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, Timespec, Timestamps, makedev, statx};
use rustix::io::Errno;

/// What the kernel tells of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta(Statx);

/// Which file it is, among all of the machine.
pub(super) type Id = (u32, u32, u64);

impl Meta {
    /// Of what is open.
    pub(super) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(Self)
    }

    /// Of a name in a directory; of a link itself.
    pub(super) fn at(directory: impl AsFd, name: &CStr) -> Result<Self, Errno> {
        statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).map(Self)
    }

    /// Of a path, with or without following a link at its end.
    pub(super) fn of_path(path: &CStr, follow: bool) -> Result<Self, Errno> {
        if follow {
            statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS).map(Self)
        } else {
            Self::at(CWD, path)
        }
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(u32::from(self.0.stx_mode))
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    pub(super) fn is_file(&self) -> bool {
        self.kind() == FileType::RegularFile
    }

    /// Permissions with setuid, setgid and sticky.
    pub(super) fn mode(&self) -> u32 {
        u32::from(self.0.stx_mode) & 0o7777
    }

    pub(super) fn owner(&self) -> (u32, u32) {
        (self.0.stx_uid, self.0.stx_gid)
    }

    pub(super) fn size(&self) -> u64 {
        self.0.stx_size
    }

    pub(super) fn links(&self) -> u32 {
        self.0.stx_nlink
    }

    pub(super) fn id(&self) -> Id {
        (self.0.stx_dev_major, self.0.stx_dev_minor, self.0.stx_ino)
    }

    /// The file system that it is on.
    pub(super) fn device(&self) -> (u32, u32) {
        (self.0.stx_dev_major, self.0.stx_dev_minor)
    }

    /// The device that it stands for.
    pub(super) fn node(&self) -> (u32, u32) {
        (self.0.stx_rdev_major, self.0.stx_rdev_minor)
    }

    /// [`node`](Self::node) as the kernel takes it.
    pub(super) fn node_number(&self) -> u64 {
        makedev(self.0.stx_rdev_major, self.0.stx_rdev_minor)
    }

    /// Whole seconds since 1970.
    pub(super) fn modified(&self) -> i64 {
        self.0.stx_mtime.tv_sec
    }

    /// Its times, to be given to another.
    pub(super) fn times(&self) -> Timestamps {
        let time = |time: rustix::fs::StatxTimestamp| Timespec {
            tv_sec: time.tv_sec,
            tv_nsec: i64::from(time.tv_nsec),
        };
        Timestamps { last_access: time(self.0.stx_atime), last_modification: time(self.0.stx_mtime) }
    }

    /// As it goes over the wire, with where it leads if it is a link.
    pub(super) fn info(&self, target: Vec<u8>) -> FileInfo {
        let kind = match self.kind() {
            FileType::RegularFile => Kind::Regular,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharacterDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Unknown => Kind::Unspecified,
        };
        let time = self.0.stx_mtime;
        FileInfo {
            kind: kind.into(),
            size: self.0.stx_size,
            mode: self.mode(),
            uid: self.0.stx_uid,
            gid: self.0.stx_gid,
            modified_ns: time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec)),
            inode: self.0.stx_ino,
            links: u64::from(self.0.stx_nlink),
            target,
        }
    }

    /// Why this can't be read or written as a file; `None` if it can.
    pub(super) fn no_file(&self) -> Option<&'static str> {
        match self.kind() {
            FileType::RegularFile => None,
            FileType::Directory => Some("is a directory"),
            FileType::Symlink => Some("is a symbolic link, not a regular file"),
            FileType::Fifo => Some("is a FIFO, not a regular file"),
            FileType::Socket => Some("is a socket, not a regular file"),
            FileType::CharacterDevice | FileType::BlockDevice => Some("is a device, not a regular file"),
            FileType::Unknown => Some("is not a regular file"),
        }
    }
}
