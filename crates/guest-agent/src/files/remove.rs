//! Owns the removal of files and trees.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::failure::{At, Failure};
use super::meta::Meta;
use super::path::{DIRECTORY, GuestPath};
use super::walk::Walk;
use super::workers::Stop;

const DOING: &str = "remove";

/// Removes what is at a path: a link rather than where it leads; a directory if it is empty, or with all in it.
pub(super) fn remove(path: &GuestPath, recursive: bool, stop: &Stop) -> Result<(), Failure> {
    let place = path.place(DOING)?;
    let meta = Meta::at(&place.directory, &place.name).at(DOING, path.as_bytes())?;
    if !meta.is_directory() {
        return unlinkat(&place.directory, &place.name, AtFlags::empty()).at(DOING, path.as_bytes());
    }
    if Meta::of_path(c"/", true).is_ok_and(|root| root.id() == meta.id()) {
        return Err(Failure::invalid(DOING, path.as_bytes(), "is the root directory"));
    }
    if recursive {
        remove_tree(place.directory.as_fd(), &place.name, path.as_bytes(), stop)
    } else {
        unlinkat(&place.directory, &place.name, AtFlags::REMOVEDIR).at(DOING, path.as_bytes())
    }
}

/// Removes a directory with all in it. `path` is for messages.
pub(super) fn remove_tree(
    directory: BorrowedFd<'_>,
    name: &CStr,
    path: &[u8],
    stop: &Stop,
) -> Result<(), Failure> {
    let top = openat(directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).at(DOING, path)?;
    let mut walk = Walk::begin(top, true).at(DOING, path)?;
    loop {
        stop.check()?;
        let full = |walk: &Walk| [path, &walk.names()].concat();
        let Some(entry) = walk.next() else {
            let Some(left) = walk.leave().at(DOING, &full(&walk))? else { break };
            let removed = walk.here().and_then(|here| unlinkat(here, &left, AtFlags::REMOVEDIR));
            gone(removed).at(DOING, &[&full(&walk), &b"/"[..], left.as_bytes()].concat())?;
            continue;
        };
        let entry = entry.at(DOING, &full(&walk))?;
        let name = entry.file_name();
        let removed = if entry.file_type() == FileType::Directory {
            walk.enter(name)
        } else {
            match walk.here().and_then(|here| unlinkat(here, name, AtFlags::empty())) {
                // A file system that does not tell kinds, or a directory that has just taken a file's place.
                Err(Errno::ISDIR | Errno::PERM) if entry.file_type() == FileType::Unknown => walk.enter(name),
                other => other,
            }
        };
        gone(removed).at(DOING, &[&full(&walk), &b"/"[..], name.to_bytes()].concat())?;
    }
    gone(unlinkat(directory, name, AtFlags::REMOVEDIR)).at(DOING, path)
}

/// Somebody else was faster.
fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    if removed == Err(Errno::NOENT) { Ok(()) } else { removed }
}
