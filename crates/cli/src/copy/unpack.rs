//! Unpacks an archive beneath a directory of the host. The archive comes from a guest, which may be hostile.
//!
//! What the archive cannot do, whatever it says:
//! - put anything outside of the directory, or beneath another name than the one asked for;
//! - go through a symbolic link, one of its own or one that was there;
//! - write into a file that was there: what is in the way is unlinked, and a directory never is;
//! - give another name to a file that it did not bring;
//! - make a device, or a program that runs as another user.

mod beneath;
mod error;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use cellule_rootfs::{ArchiveEntry, ArchiveEntryKind, ArchiveReader, Limits};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat, fchmod,
    fchown, futimens, linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use self::beneath::Beneath;
use self::error::MakeError;
pub(crate) use self::error::{EntryError, UnpackError};
use super::place::Place;

/// Files whose hard links are honoured. To know what this copy made, each costs some memory.
const MAX_REMEMBERED: usize = 2_000_000;

/// What may follow an archive's end: its writer's padding.
const MAX_PADDING: u64 = 1 << 20;

/// What is kept besides names, contents, permissions and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All is this process's user's own, and a directory that was there stays as it was.
    Own,
    /// `-a`: directories that were there get their permissions and times from the archive as well; and so do owners, with
    /// the setuid and setgid bits, where this process is root's.
    All,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Entries of the archive.
    pub(crate) entries: u64,
    /// Bytes of files, holes included.
    pub(crate) bytes: u64,
}

/// Unpacks what `stream` holds at its place, with memory that does not grow with its size. It blocks: on the stream, and
/// on the disk.
///
/// After an error, what was unpacked before it is there; a file that is not complete is not.
///
/// # Errors
/// The archive is damaged, hostile, or the host cannot take it.
pub(crate) fn unpack(stream: impl Read, place: &Place, keep: Keep) -> Result<Unpacked, UnpackError> {
    let directory = PathBuf::from(&place.directory);
    let root = Beneath::open(&directory).map_err(|error| UnpackError::Directory(directory.clone(), error))?;
    let limits = Limits { layer_bytes: i64::MAX.cast_unsigned(), ..Limits::default() };
    let mut reader = ArchiveReader::new(stream, &limits);
    let owners = keep == Keep::All && rustix::process::geteuid().is_root();
    let mut unpacker = Unpacker {
        root,
        name: place.name.clone(),
        directory,
        keep,
        owners,
        open: Vec::new(),
        made: HashSet::new(),
        done: Unpacked::default(),
    };
    let outcome = unpacker.run(&mut reader);
    // Directories get their permissions and times even if what should be in them did not come.
    let left = unpacker.leave_all();
    outcome.and(left)?;
    if place.name.is_some() && unpacker.done.entries == 0 {
        return Err(UnpackError::Empty);
    }
    reader.drain(MAX_PADDING)?;
    Ok(unpacker.done)
}

struct Unpacker {
    root: Beneath,
    /// The only name that the archive may use in the root; none: any.
    name: Option<OsString>,
    /// For messages.
    directory: PathBuf,
    keep: Keep,
    owners: bool,
    /// The directories that the archive is in, outermost first. They get their attributes when it leaves them: until then
    /// each must be writable, and changes with what is made in it.
    open: Vec<(Box<[u8]>, Attributes)>,
    /// Device and inode of whatever was made and can have another name.
    made: HashSet<(u64, u64)>,
    done: Unpacked,
}

#[derive(Debug)]
struct Attributes {
    mode: Mode,
    owner: Option<(Uid, Gid)>,
    times: Timestamps,
}

impl Unpacker {
    fn run<R: Read>(&mut self, reader: &mut ArchiveReader<R>) -> Result<(), UnpackError> {
        while let Some(entry) = reader.next_entry()? {
            self.leave(&entry.path)?;
            let path = entry.path.clone();
            match self.make(entry, reader) {
                Ok(()) => self.done.entries += 1,
                Err(MakeError::Archive(error)) => return Err(error.into()),
                Err(MakeError::Entry(error)) => return Err(self.at(&path, error)),
            }
        }
        Ok(())
    }

    fn at(&self, path: &[u8], error: EntryError) -> UnpackError {
        UnpackError::Entry(self.directory.join(OsStr::from_bytes(path)), error)
    }

    /// Makes one entry.
    fn make<R: Read>(&mut self, entry: ArchiveEntry, reader: &mut ArchiveReader<R>) -> Result<(), MakeError> {
        self.check(&entry.path)?;
        let attributes = self.attributes(&entry);
        let Some((parent, name)) = split(&entry.path) else {
            if entry.kind != ArchiveEntryKind::Directory {
                return Err(EntryError::Root.into());
            }
            self.enter(entry.path, attributes, false);
            return Ok(());
        };
        let parent = self.root.make_directory(parent)?;
        let parent = parent.as_fd();
        match entry.kind {
            ArchiveEntryKind::Directory => {
                let new = make_directory(parent, name)?;
                self.enter(entry.path, attributes, new);
                return Ok(());
            }
            ArchiveEntryKind::File { size } => {
                let file = create(parent, name)?;
                let filled = fill(&file, size, reader).and_then(|()| Ok(attributes.put_on(&file)?));
                // Half a file would look like a whole one.
                filled.inspect_err(|_| _ = unlinkat(parent, name, AtFlags::empty()))?;
                self.done.bytes = self.done.bytes.saturating_add(size);
            }
            ArchiveEntryKind::Symlink(target) => {
                clear(parent, name)?;
                symlinkat(&*target, parent, name)?;
                attributes.put_on_link(parent, name)?;
            }
            ArchiveEntryKind::HardLink(target) => {
                self.link(&target, &entry.path, parent, name)?;
                return Ok(());
            }
            ArchiveEntryKind::Fifo => {
                clear(parent, name)?;
                mknodat(parent, name, FileType::Fifo, Mode::RUSR, 0)?;
                attributes.put_on_link(parent, name)?;
                chmodat(parent, name, attributes.mode, AtFlags::empty())?;
            }
            ArchiveEntryKind::Device => return Err(EntryError::Device.into()),
        }
        self.remember(parent, name)?;
        Ok(())
    }

    /// Refuses a path that nobody asked for.
    fn check(&self, path: &[u8]) -> Result<(), EntryError> {
        let Some(name) = &self.name else { return Ok(()) };
        match path.strip_prefix(name.as_bytes()) {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") => Ok(()),
            _ => Err(EntryError::Elsewhere(name.clone())),
        }
    }

    fn attributes(&self, entry: &ArchiveEntry) -> Attributes {
        // Without the owner these bits would run the program as somebody whom the archive never meant.
        let kept = if self.owners { 0o7777 } else { 0o1777 };
        let (seconds, nanoseconds) = entry.mtime;
        let modified = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        let untouched = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        Attributes {
            mode: Mode::from_raw_mode(u32::from(entry.mode) & kept),
            owner: self.owners.then(|| (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))),
            times: Timestamps { last_access: untouched, last_modification: modified },
        }
    }

    fn enter(&mut self, path: Box<[u8]>, attributes: Attributes, new: bool) {
        if new || self.keep == Keep::All {
            self.open.push((path, attributes));
        }
    }

    /// Leaves the directories that `path` is not in.
    fn leave(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        while self.open.last().is_some_and(|(open, _)| !is_below(path, open)) {
            self.leave_last()?;
        }
        Ok(())
    }

    fn leave_all(&mut self) -> Result<(), UnpackError> {
        let mut left = Ok(());
        while !self.open.is_empty() {
            left = left.and(self.leave_last());
        }
        left
    }

    fn leave_last(&mut self) -> Result<(), UnpackError> {
        let Some((path, attributes)) = self.open.pop() else { return Ok(()) };
        let put = self.root.directory(&path).and_then(|directory| attributes.put_on(&directory));
        put.map_err(|error| self.at(&path, error.into()))
    }

    /// Gives another name to a file of the archive.
    fn link(
        &mut self,
        target: &[u8],
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), EntryError> {
        let stranger = || EntryError::HardLink(OsStr::from_bytes(target).to_owned());
        self.check(target).map_err(|_| stranger())?;
        let (target_parent, target_name) = split(target).filter(|_| target != path).ok_or_else(stranger)?;
        let target_parent = self.root.directory(target_parent)?;
        if !self.is_made(target_parent.as_fd(), target_name)? {
            let full = self.made.len() == MAX_REMEMBERED;
            return Err(if full { EntryError::TooManyFiles } else { stranger() });
        }
        clear(parent, name)?;
        linkat(&target_parent, target_name, parent, name, AtFlags::empty())?;
        Ok(())
    }

    fn is_made(&self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<bool> {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(self.made.contains(&(stat.st_dev, stat.st_ino))),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remember(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), EntryError> {
        if self.made.len() < MAX_REMEMBERED {
            let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            self.made.insert((stat.st_dev, stat.st_ino));
        }
        Ok(())
    }
}

impl Attributes {
    /// On something that is open. The owner first: another one takes the setuid bits away.
    fn put_on(&self, what: impl AsFd) -> rustix::io::Result<()> {
        if let Some((user, group)) = self.owner {
            fchown(&what, Some(user), Some(group))?;
        }
        fchmod(&what, self.mode)?;
        futimens(&what, &self.times)
    }

    /// Owner and time, on a symbolic link itself or on what cannot be opened.
    fn put_on_link(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), EntryError> {
        if let Some((user, group)) = self.owner {
            chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(utimensat(parent, name, &self.times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Makes a directory that its owner alone may use until it is left. False: it is there already.
fn make_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<bool, EntryError> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => {
            let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if directory { Ok(false) } else { Err(EntryError::OntoFile) }
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes a new file in place of whatever is there.
fn create(parent: BorrowedFd<'_>, name: &[u8]) -> Result<File, EntryError> {
    clear(parent, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Unlinks what is in the way, unless it is a directory.
fn clear(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), EntryError> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(EntryError::OntoDirectory),
        Err(error) => Err(error.into()),
    }
}

/// Writes a file's contents to their places.
fn fill<R: Read>(file: &File, size: u64, reader: &mut ArchiveReader<R>) -> Result<(), MakeError> {
    let mut end = 0;
    while let Some((offset, bytes)) = reader.next_data().map_err(MakeError::Archive)? {
        file.write_all_at(bytes, offset)?;
        end = offset + bytes.len() as u64;
    }
    if end < size {
        file.set_len(size)?;
    }
    Ok(())
}

/// Splits a path into its parent and its last name; the root has neither.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None if path.is_empty() => None,
        None => Some((&[], path)),
    }
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests;
