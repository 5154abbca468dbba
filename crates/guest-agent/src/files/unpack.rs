//! Owns the unpacking of a tar into a directory, outside of which nothing of it may land.
//!
//! Each name is looked up anew from the directory down, by the kernel, which refuses whatever leads out of it: links of the
//! archive, links that were there before, and links that somebody puts there meanwhile. Links that lead elsewhere within
//! are followed on the way to a name, and never at its end.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chownat, fchmod,
    ftruncate, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, pwrite};
use tonic::Code;

use super::archive::{Archive, ArchiveEntry, ArchiveError, ArchiveKind, Receiver};
use super::failure::{At, Failure, quote};
use super::meta::Meta;
use super::path::{GuestPath, HARMLESS, PLACE};
use super::pump::Sink;
use super::remove::remove_tree;
use super::workers::Stop;
use super::write::{give, set_node_mode};

const DOING: &str = "unpack";
/// How often a look-up is repeated that somebody's renaming disturbed.
const TRIES: usize = 64;
/// What one name in a directory, and a whole path, may take.
const MAX_PATH: usize = 4095;

/// A tar that is being unpacked.
#[derive(Debug)]
pub(super) struct Unpacking {
    archive: Archive,
    target: Target,
}

#[derive(Debug)]
struct Target {
    root: OwnedFd,
    resolve: ResolveFlags,
    owner: Option<(u32, u32)>,
    keep_kinds: bool,
    file: Option<Open>,
    /// Directories that entries still go into; their times are set behind them.
    directories: Vec<(Vec<u8>, Timestamps)>,
    entries: u64,
    bytes: u64,
}

/// The file whose contents come.
#[derive(Debug)]
struct Open {
    directory: OwnedFd,
    name: CString,
    file: OwnedFd,
    size: u64,
    entry: Attributes,
    /// For messages.
    called: Vec<u8>,
    complete: bool,
}

#[derive(Debug)]
struct Attributes {
    mode: Mode,
    owner: (u32, u32),
    times: Timestamps,
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.complete {
            // Half a file is none. Whatever keeps it from going keeps it from harm.
            let _gone = unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

impl Unpacking {
    pub(super) fn open(
        path: &GuestPath,
        owner: Option<(u32, u32)>,
        keep_kinds: bool,
    ) -> Result<Self, Failure> {
        let root = openat(CWD, path.as_c_str(), PLACE, Mode::empty()).at(DOING, path.as_bytes())?;
        let is_root = Meta::of(&root)
            .and_then(|meta| Ok(meta.id() == Meta::of_path(c"/", true)?.id()))
            .at(DOING, path.as_bytes())?;
        // An absolute link leads out of any directory but the root.
        let within = if is_root { ResolveFlags::IN_ROOT } else { ResolveFlags::BENEATH };
        let target = Target {
            root,
            resolve: within | ResolveFlags::NO_MAGICLINKS,
            owner,
            keep_kinds,
            file: None,
            directories: Vec::new(),
            entries: 0,
            bytes: 0,
        };
        Ok(Self { archive: Archive::default(), target })
    }

    /// Ends it. Returns how many entries and bytes of files there were.
    pub(super) fn finish(mut self) -> Result<(u64, u64), Failure> {
        self.archive.finish()?;
        self.target.leave_directories(b"");
        Ok((self.target.entries, self.target.bytes))
    }
}

impl Sink for Unpacking {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.archive.feed(bytes, &mut self.target)
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        Self::new(Code::InvalidArgument, format!("unpack the archive: {error}"))
    }
}

impl Receiver for Target {
    type Error = Failure;

    fn begin(&mut self, entry: ArchiveEntry) -> Result<(), Failure> {
        let names = names(&entry.name).map_err(|why| outside(&entry.name, why))?;
        self.entries += 1;
        self.leave_directories(&names.concat_path());
        let (seconds, nanoseconds) = entry.modified;
        let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
        let attributes = Attributes {
            mode: Mode::from_raw_mode(entry.mode),
            owner: self.owner.unwrap_or(entry.owner),
            times: Timestamps { last_access: time, last_modification: time },
        };
        let Some((name, parents)) = names.0.split_last() else {
            // The directory itself, which is there; its attributes are whose it is.
            return match entry.kind {
                ArchiveKind::Directory => Ok(()),
                _ => Err(outside(&entry.name, "is no name in the directory")),
            };
        };
        let name = CString::new(*name).map_err(|_| outside(&entry.name, "has a NUL byte"))?;
        let directory = self.directory(parents).at(DOING, &entry.name).map_err(|failure| {
            failure.hint(DOING, &entry.name, Errno::XDEV, "a link on its way leads outside of the directory")
        })?;
        match entry.kind {
            ArchiveKind::Directory => {
                self.make_directory(&directory, &name, &attributes, &entry.name)?;
                self.directories.push((names.concat_path(), attributes.times));
                Ok(())
            }
            ArchiveKind::HardLink(target) => self.hard_link(&directory, &name, &target, &entry.name),
            ArchiveKind::File(size) => {
                self.clear(&directory, &name, &entry.name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | HARMLESS;
                let file =
                    openat(&directory, &name, flags, Mode::RUSR | Mode::WUSR).at(DOING, &entry.name)?;
                let called = entry.name;
                self.file =
                    Some(Open { directory, name, file, size, entry: attributes, called, complete: false });
                Ok(())
            }
            kind => {
                self.clear(&directory, &name, &entry.name)?;
                make_node(directory.as_fd(), &name, &kind, &attributes).at(DOING, &entry.name)
            }
        }
    }

    fn contents(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let Some(open) = &self.file else { return Ok(()) };
        let (mut offset, mut left) = (offset, bytes);
        while !left.is_empty() {
            match pwrite(&open.file, left, offset) {
                Ok(0) => return Err(Errno::IO).at(DOING, &open.called),
                Ok(count) => {
                    left = &left[count..];
                    offset += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).at(DOING, &open.called),
            }
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        let Some(mut open) = self.file.take() else { return Ok(()) };
        // Holes at its end have come as nothing at all.
        ftruncate(&open.file, open.size).at(DOING, &open.called)?;
        give(&open.file, Some(open.entry.owner)).at("set the owner of", &open.called)?;
        fchmod(&open.file, open.entry.mode).at("set the mode of", &open.called)?;
        futimens(&open.file, &open.entry.times).at("set the times of", &open.called)?;
        open.complete = true;
        Ok(())
    }
}

impl Target {
    /// Looks a directory up that entries go into, and makes it where it is missing.
    fn directory(&self, names: &[&[u8]]) -> Result<OwnedFd, Errno> {
        let path = if names.is_empty() { b".".to_vec() } else { names.join(&b'/') };
        match self.resolve(&path, PLACE) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut made = Vec::new();
        let mut directory = self.resolve(b".", PLACE)?;
        for name in names {
            made.extend_from_slice(name);
            directory = match self.resolve(&made, PLACE) {
                Err(Errno::NOENT) => {
                    match mkdirat(&directory, *name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    self.resolve(&made, PLACE)?
                }
                other => other?,
            };
            made.push(b'/');
        }
        Ok(directory)
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut tries = 0;
        loop {
            match openat2(&self.root, path, flags, Mode::empty(), self.resolve) {
                Err(Errno::AGAIN) if tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }

    fn make_directory(
        &self,
        directory: &OwnedFd,
        name: &CStr,
        attributes: &Attributes,
        called: &[u8],
    ) -> Result<(), Failure> {
        let there = match Meta::at(directory, name) {
            Ok(meta) => Some(meta),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno).at(DOING, called),
        };
        match there {
            Some(meta) if meta.is_directory() => {}
            // A link to a directory within stands for it, as where `/lib` leads to `/usr/lib`.
            Some(meta) if meta.kind() == FileType::Symlink && self.leads_to_directory(called) => {
                return Ok(());
            }
            Some(_) if self.keep_kinds => {
                let why = "is there, and is no directory";
                return Err(Failure::because(DOING, called, Errno::EXIST, why));
            }
            Some(_) => unlinkat(directory, name, AtFlags::empty()).at(DOING, called)?,
            None => {}
        }
        match mkdirat(directory, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).at(DOING, called),
        }
        let made = openat(directory, name, super::path::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .at(DOING, called)?;
        give(&made, Some(attributes.owner)).at("set the owner of", called)?;
        fchmod(&made, attributes.mode).at("set the mode of", called)
    }

    fn leads_to_directory(&self, called: &[u8]) -> bool {
        names(called).is_ok_and(|names| self.resolve(&names.concat_path(), PLACE).is_ok())
    }

    /// Takes away what is in the place of something that is no directory.
    fn clear(&self, directory: &OwnedFd, name: &CStr, called: &[u8]) -> Result<(), Failure> {
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // Linux says the one, POSIX the other.
            Err(Errno::ISDIR | Errno::PERM)
                if Meta::at(directory, name).is_ok_and(|meta| meta.is_directory()) =>
            {
                if self.keep_kinds {
                    let why = "is there, and is a directory";
                    return Err(Failure::because(DOING, called, Errno::ISDIR, why));
                }
                remove_tree(directory.as_fd(), name, called, &Stop::default())
            }
            Err(errno) => Err(errno).at(DOING, called),
        }
    }

    fn hard_link(
        &self,
        directory: &OwnedFd,
        name: &CStr,
        target: &[u8],
        called: &[u8],
    ) -> Result<(), Failure> {
        let targets = names(target).map_err(|why| outside(target, why))?;
        let Some((first, parents)) = targets.0.split_last() else {
            return Err(outside(called, "is a hard link to a directory"));
        };
        let first = CString::new(*first).map_err(|_| outside(target, "has a NUL byte"))?;
        let parent = parents.join(&b'/');
        let parent = if parent.is_empty() { b".".to_vec() } else { parent };
        let from = self.resolve(&parent, PLACE).at(DOING, target)?;
        let meta = Meta::at(&from, &first).at(DOING, target)?;
        if meta.is_directory() {
            return Err(outside(called, "is a hard link to a directory"));
        }
        // They may be one already, and to clear the way would take both away.
        if Meta::at(directory, name).is_ok_and(|there| there.id() == meta.id()) {
            return Ok(());
        }
        self.clear(directory, name, called)?;
        linkat(&from, &first, directory, name, AtFlags::empty()).at(DOING, called)
    }

    /// Sets the times of the directories that `entered` is not in.
    fn leave_directories(&mut self, entered: &[u8]) {
        while let Some((path, times)) = self.directories.last() {
            let within = entered.strip_prefix(path.as_slice()).is_some_and(|rest| rest.starts_with(b"/"));
            if within {
                break;
            }
            // Somebody may have removed it meanwhile.
            if let Ok(directory) = self.resolve(path, super::path::DIRECTORY) {
                let _times = futimens(&directory, times);
            }
            self.directories.pop();
        }
    }
}

/// The names of a path in an archive, from the directory that it is unpacked into.
struct Names<'a>(Vec<&'a [u8]>);

impl Names<'_> {
    fn concat_path(&self) -> Vec<u8> {
        self.0.join(&b'/')
    }
}

fn names(path: &[u8]) -> Result<Names<'_>, &'static str> {
    if path.len() > MAX_PATH {
        return Err("is too long for a path");
    }
    if path.contains(&0) {
        return Err("has a NUL byte");
    }
    let names: Vec<_> =
        path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    if names.contains(&&b".."[..]) {
        return Err("leads outside of the directory");
    }
    Ok(Names(names))
}

fn outside(name: &[u8], why: &str) -> Failure {
    Failure::new(Code::InvalidArgument, format!("unpack {}: {why}", quote(name)))
}

fn make_node(
    directory: BorrowedFd<'_>,
    name: &CStr,
    kind: &ArchiveKind,
    attributes: &Attributes,
) -> Result<(), Errno> {
    match kind {
        ArchiveKind::Symlink(target) => symlinkat(target.as_slice(), directory, name)?,
        ArchiveKind::CharacterDevice(major, minor) => {
            let node = makedev(*major, *minor);
            mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), node)?;
        }
        ArchiveKind::BlockDevice(major, minor) => {
            mknodat(directory, name, FileType::BlockDevice, Mode::empty(), makedev(*major, *minor))?;
        }
        _ => mknodat(directory, name, FileType::Fifo, Mode::empty(), 0)?,
    }
    let (uid, gid) = attributes.owner;
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(directory, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), no_follow)?;
    if !matches!(kind, ArchiveKind::Symlink(_)) {
        set_node_mode(directory, name, attributes.mode)?;
    }
    utimensat(directory, name, &attributes.times, no_follow)
}
