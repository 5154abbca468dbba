//! Owns copies within the guest: of a file, or of a tree, with all that an inode has but extended attributes.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, futimens, linkat, mkdirat, mknodat, openat,
    readlinkat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::failure::{At, Failure};
use super::meta::{Id, Meta};
use super::path::{DIRECTORY, GuestPath, HARMLESS};
use super::walk::{Walk, is_pseudo};
use super::workers::Stop;
use super::write::{Temporary, give, set_node_mode};

const DOING: &str = "copy";
/// What is copied before the next look whether anybody still waits.
const PIECE: u64 = 8 * 1024 * 1024;
/// Files with several names whose first copy is remembered; those beyond become files of their own.
const MAX_LINKED: usize = 65_536;

/// Copies what is at `from` to exactly `to`.
pub(super) fn copy(from: &GuestPath, to: &GuestPath, recursive: bool, stop: &Stop) -> Result<(), Failure> {
    let source = from.place(DOING)?;
    let meta = Meta::at(&source.directory, &source.name).at(DOING, from.as_bytes())?;
    let target = to.place(DOING)?;
    let (here, there) = (source.directory.as_fd(), target.directory.as_fd());
    if Meta::at(there, &target.name).is_ok_and(|there| there.id() == meta.id()) {
        return Err(Failure::invalid(DOING, from.as_bytes(), "is the same file as what it is copied to"));
    }
    if !meta.is_directory() {
        let one = (here, source.name.as_c_str());
        return copy_one(one, (there, &target.name), &meta, stop).map_err(|cause| cause.at(to.as_bytes()));
    }
    if !recursive {
        return Err(Failure::because(DOING, from.as_bytes(), Errno::ISDIR, "is a directory"));
    }
    let open = |at, name: &CStr| openat(at, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    let top = open(here, &source.name).at(DOING, from.as_bytes())?;
    make_directory(there, &target.name, &meta).at(DOING, to.as_bytes())?;
    let bottom = open(there, &target.name).at(DOING, to.as_bytes())?;
    let tree = Tree {
        from: Walk::begin(top, false).at(DOING, from.as_bytes())?,
        root: bottom.try_clone().at(DOING, to.as_bytes())?,
        root_id: Meta::of(&bottom).at(DOING, to.as_bytes())?.id(),
        to: Walk::begin(bottom, false).at(DOING, to.as_bytes())?,
        above: vec![meta],
        linked: HashMap::new(),
    };
    tree.copy(from.as_bytes(), to.as_bytes(), stop)
}

/// Why one thing was not copied.
enum Cause {
    Errno(Errno),
    GivenUp(Failure),
}

impl Cause {
    fn at(self, path: &[u8]) -> Failure {
        match self {
            Self::GivenUp(failure) => failure,
            Self::Errno(errno) => Failure::kernel(DOING, path, errno),
        }
    }
}

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

type Named<'a> = (BorrowedFd<'a>, &'a CStr);

/// Two trees, walked side by side.
struct Tree {
    from: Walk,
    to: Walk,
    root: OwnedFd,
    /// So that a tree that is copied into itself is noticed.
    root_id: Id,
    /// Of the directories that the walk is in.
    above: Vec<Meta>,
    /// The first copy of each file that has other names, beneath the root.
    linked: HashMap<Id, CString>,
}

impl Tree {
    fn copy(mut self, from: &[u8], to: &[u8], stop: &Stop) -> Result<(), Failure> {
        loop {
            stop.check()?;
            let Some(entry) = self.from.next() else {
                if !self.leave().map_err(|cause| cause.at(&[to, &self.to.names()].concat()))? {
                    return Ok(());
                }
                continue;
            };
            let source = |walk: &Walk, name: &CStr| [from, &walk.names(), b"/", name.to_bytes()].concat();
            let entry = entry.at(DOING, &source(&self.from, c""))?;
            let name = entry.file_name();
            let copied = self.entry(name, stop);
            // What has vanished meanwhile is none of the tree any more.
            if let Err(cause) = copied
                && !matches!(cause, Cause::Errno(Errno::NOENT))
            {
                return Err(cause.at(&source(&self.from, name)));
            }
        }
    }

    fn entry(&mut self, name: &CStr, stop: &Stop) -> Result<(), Cause> {
        let (here, there) = (self.from.here()?, self.to.here()?);
        let meta = Meta::at(here, name)?;
        if meta.is_directory() {
            if meta.id() == self.root_id {
                // A directory that is copied into itself would never end.
                return Err(Errno::INVAL.into());
            }
            make_directory(there, name, &meta)?;
            self.from.enter(name)?;
            self.to.enter(name)?;
            let parent = self.above.last().map(Meta::device);
            let pseudo = parent != Some(meta.device()) && is_pseudo(self.from.here()?)?;
            self.above.push(meta);
            if pseudo {
                self.leave()?;
            }
            return Ok(());
        }
        if meta.links() > 1 {
            if let Some(first) = self.linked.get(&meta.id()) {
                replace(there, name, |temporary| {
                    linkat(&self.root, first, there, temporary, AtFlags::empty())
                })?;
                return Ok(());
            }
            if self.linked.len() < MAX_LINKED {
                let mut path = self.to.names();
                path.extend([b"/", name.to_bytes()].concat());
                // Relative to the root: without its first slash.
                if let Ok(path) = CString::new(&path[1..]) {
                    self.linked.insert(meta.id(), path);
                }
            }
        }
        copy_one((here, name), (there, name), &meta, stop)
    }

    /// Leaves both directories; false if they were the first.
    fn leave(&mut self) -> Result<bool, Cause> {
        if let Some(meta) = self.above.pop() {
            futimens(self.to.here()?, &meta.times())?;
        }
        self.to.leave()?;
        Ok(self.from.leave()?.is_some())
    }
}

/// Makes a directory like another, or takes one that is there.
fn make_directory(there: BorrowedFd<'_>, name: &CStr, meta: &Meta) -> Result<(), Errno> {
    match mkdirat(there, name, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) if Meta::at(there, name)?.is_directory() => {}
        Err(errno) => return Err(errno),
    }
    let directory = openat(there, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    give(&directory, Some(meta.owner()))?;
    fchmod(&directory, Mode::from_raw_mode(meta.mode()))
}

fn copy_one((here, name): Named<'_>, (there, new): Named<'_>, meta: &Meta, stop: &Stop) -> Result<(), Cause> {
    match meta.kind() {
        FileType::RegularFile => return copy_file((here, name), (there, new), stop),
        FileType::Symlink => {
            let target = readlinkat(here, name, Vec::new())?;
            replace(there, new, |new| symlinkat(&target, there, new))?;
        }
        kind => {
            replace(there, new, |new| mknodat(there, new, kind, Mode::empty(), meta.node_number()))?;
        }
    }
    let (uid, gid) = meta.owner();
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(there, new, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), no_follow)?;
    if meta.kind() != FileType::Symlink {
        set_node_mode(there, new, Mode::from_raw_mode(meta.mode()))?;
    }
    utimensat(there, new, &meta.times(), no_follow)?;
    Ok(())
}

fn copy_file((here, name): Named<'_>, (there, new): Named<'_>, stop: &Stop) -> Result<(), Cause> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | HARMLESS;
    let source = openat(here, name, flags, Mode::empty())?;
    // As it is now that it is held.
    let meta = Meta::of(&source)?;
    if !meta.is_file() {
        return Err(Errno::STALE.into());
    }
    let directory = openat(there, c".", super::path::PLACE, Mode::empty())?;
    let (temporary, target) = Temporary::new(directory)?;
    let (mut source, mut target) = (File::from(source), File::from(target));
    // The kernel copies by itself where it can.
    loop {
        stop.check().map_err(Cause::GivenUp)?;
        if io::copy(&mut (&mut source).take(PIECE), &mut target).map_err(|error| errno(&error))? == 0 {
            break;
        }
    }
    give(&target, Some(meta.owner()))?;
    fchmod(&target, Mode::from_raw_mode(meta.mode()))?;
    futimens(&target, &meta.times())?;
    temporary.become_file(&new.to_owned(), false)?;
    Ok(())
}

/// Makes something in the place of what is there, unless that is a directory.
fn replace(
    there: BorrowedFd<'_>,
    name: &CStr,
    make: impl Fn(&CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    match make(name) {
        Err(Errno::EXIST) => {
            unlinkat(there, name, AtFlags::empty())?;
            make(name)
        }
        other => other,
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
