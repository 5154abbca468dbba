//! Owns the comparison of the root filesystem with its image: a walk of the overlay's upper side against the side below.
//!
//! What programs made of the upper side is hostile: the walk follows no link, waits for no file, and goes no deeper than a
//! path that can be named. It reads each directory by a descriptor of its parent, so that a rename in its midst leads nowhere.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use cellule_protocol::v1::difference::Kind;
use cellule_protocol::v1::{DiffResponse, Difference};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

/// Bytes of paths in one message.
const BATCH: usize = 48 * 1024;
/// Beyond this no path can be named.
const MAX_PATH: usize = 4096;
/// Entries of one directory, all of which are held at a time.
const MAX_ENTRIES: usize = 262_144;
/// Directories that the boot makes where the image has none. What is in them counts.
const MADE: [&[u8]; 3] = [b"/etc", b"/run", b"/tmp"];
/// The mark of a directory that hides the one below, as overlayfs reads it.
const OPAQUE: &str = "trusted.overlay.opaque";

/// Both sides of the overlay, which have no names in the guest.
#[derive(Debug)]
pub(crate) struct Sides {
    pub(crate) upper: OwnedFd,
    pub(crate) lower: OwnedFd,
}

/// Where differences go; it says whether anybody still wants them.
trait Sink {
    fn take(&mut self, difference: Difference) -> Result<(), Unwanted>;
}

/// Nobody wants to know any more.
#[derive(Debug)]
struct Unwanted;

#[derive(Debug, thiserror::Error)]
enum WalkError {
    #[error("nobody asks any more")]
    Unwanted,
    #[error("read what was written: {0}")]
    Io(#[from] io::Error),
}

/// Gathers differences into messages for a call.
#[derive(Debug)]
struct Batches {
    batch: DiffResponse,
    bytes: usize,
    call: mpsc::Sender<Result<DiffResponse, Status>>,
}

impl Batches {
    /// Sends what is left. Blocks while the host does not read.
    fn finish(mut self, walked: Result<(), WalkError>) {
        if let Err(Unwanted) = self.send() {
            return;
        }
        if let Err(WalkError::Io(error)) = walked {
            let _gone = self.call.blocking_send(Err(Status::aborted(error.to_string())));
        }
    }

    fn send(&mut self) -> Result<(), Unwanted> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.differences.is_empty() {
            return Ok(());
        }
        self.call.blocking_send(Ok(batch)).map_err(|_| Unwanted)
    }
}

impl Sink for Batches {
    fn take(&mut self, difference: Difference) -> Result<(), Unwanted> {
        self.bytes += difference.path.len() + 16;
        self.batch.differences.push(difference);
        if self.bytes >= BATCH { self.send() } else { Ok(()) }
    }
}

/// Walks on a thread of its own, since a file system may keep it waiting; no faster than the call is read.
pub(crate) fn in_the_background(
    place: OwnedSemaphorePermit,
    sides: Arc<Sides>,
    skip: Vec<Vec<u8>>,
) -> Result<mpsc::Receiver<Result<DiffResponse, Status>>, Status> {
    let (call, answers) = mpsc::channel(1);
    super::on_a_thread(place, "diff", move || {
        let mut batches = Batches { batch: DiffResponse::default(), bytes: 0, call };
        let walked = walk(&sides, &skip, OPAQUE, &mut batches);
        batches.finish(walked);
    })?;
    Ok(answers)
}

/// A directory on the way: its sides, what is left of it, and whether it was told of.
struct Level {
    /// The length of its path.
    path: usize,
    upper: OwnedFd,
    lower: Option<OwnedFd>,
    entries: Vec<CString>,
    kind: Kind,
    told: bool,
    /// Nothing below it shows, although it is there.
    hides: bool,
}

/// Tells `sink` of every difference but what `skip` names, directories before what is in them.
fn walk(sides: &Sides, skip: &[Vec<u8>], opaque: &str, sink: &mut impl Sink) -> Result<(), WalkError> {
    let upper = open(&sides.upper, c".")?.ok_or_else(|| io::Error::from(Errno::NOENT))?;
    let lower = open(&sides.lower, c".")?;
    let mut path = Vec::new();
    let entries = names(&upper)?;
    // The root itself is nobody's difference.
    let root = Level { path: 0, upper, lower, entries, kind: Kind::Changed, told: true, hides: false };
    let mut levels = vec![root];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path);
        let Some(name) = level.entries.pop() else {
            levels.pop();
            continue;
        };
        path.push(b'/');
        path.extend_from_slice(name.as_bytes());
        if path.len() >= MAX_PATH || skip.contains(&path) {
            continue;
        }
        // It may be gone by now.
        let Some(found) = stat(&level.upper, &name)? else { continue };
        let below = match &level.lower {
            Some(lower) => stat(lower, &name)?,
            None => None,
        };
        let kind = if is_whiteout(&found) {
            // One over nothing is left of what was made and removed above something that was removed, too.
            below.map(|_| Kind::Deleted)
        } else {
            Some(if below.is_some() { Kind::Changed } else { Kind::Added })
        };
        let Some(kind) = kind else { continue };
        let is_directory = FileType::from_raw_mode(found.st_mode).is_dir();
        let below_is_directory = below.filter(|below| FileType::from_raw_mode(below.st_mode).is_dir());
        // A directory is in the upper side as soon as anything in it is: it differs if it says so itself, or if what is in it
        // does.
        let same = is_directory
            && below_is_directory
                .map_or(below.is_none() && MADE.contains(&&*path), |below| looks_as(&found, &below));
        if !same {
            tell(&mut levels, &path, kind, sink)?;
        }
        if is_directory {
            let mark = Mark { kind, told: !same, below: below_is_directory.is_some(), opaque };
            descend(&mut levels, &name, &path, &mark, sink)?;
        }
    }
    Ok(())
}

/// What is known of a directory before it is entered.
struct Mark<'a> {
    kind: Kind,
    told: bool,
    below: bool,
    opaque: &'a str,
}

/// Goes into a directory; where it hides the one below, tells what that had and this one has not.
fn descend(
    levels: &mut Vec<Level>,
    name: &CString,
    path: &[u8],
    mark: &Mark<'_>,
    sink: &mut impl Sink,
) -> Result<(), WalkError> {
    let Some(level) = levels.last() else { return Ok(()) };
    let Some(upper) = open(&level.upper, name)? else { return Ok(()) };
    let lower = match &level.lower {
        Some(lower) if mark.below => open(lower, name)?,
        _ => None,
    };
    let hides = level.hides || is_opaque(&upper, mark.opaque);
    let entries = names(&upper)?;
    let mut hidden = Vec::new();
    if let Some(lower) = lower.as_ref().filter(|_| hides) {
        let known: HashSet<_> = entries.iter().collect();
        hidden = names(lower)?;
        hidden.retain(|name| !known.contains(name));
    }
    let Mark { kind, told, .. } = *mark;
    levels.push(Level { path: path.len(), upper, lower, entries, kind, told, hides });
    for name in hidden.iter().rev() {
        let gone = [path, b"/", name.as_bytes()].concat();
        if gone.len() < MAX_PATH {
            tell(levels, &gone, Kind::Deleted, sink)?;
        }
    }
    Ok(())
}

/// Tells of `path`, and before that of the directories on the way to it that were not told of.
fn tell(levels: &mut [Level], path: &[u8], kind: Kind, sink: &mut impl Sink) -> Result<(), WalkError> {
    let unwanted = |Unwanted| WalkError::Unwanted;
    for level in levels.iter_mut().filter(|level| !level.told) {
        level.told = true;
        let path = path.get(..level.path).unwrap_or(path).to_vec();
        sink.take(Difference { kind: level.kind.into(), path }).map_err(unwanted)?;
    }
    sink.take(Difference { kind: kind.into(), path: path.to_vec() }).map_err(unwanted)
}

/// Whether a copied-up directory is in itself what it was.
fn looks_as(one: &Stat, other: &Stat) -> bool {
    (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
}

fn is_whiteout(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode).is_char_device() && found.st_rdev == 0
}

fn is_opaque(directory: &OwnedFd, name: &str) -> bool {
    let mut value = [0_u8; 1];
    matches!(rustix::fs::fgetxattr(directory, name, &mut value), Ok(1)) && value == *b"y"
}

/// None if it is gone, or no directory.
fn open(at: impl AsFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(at, name, flags, Mode::empty()) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn stat(at: impl AsFd, name: &CString) -> io::Result<Option<Stat>> {
    match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The entries of a directory, to be taken from the end.
fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
        if names.len() > MAX_ENTRIES {
            return Err(io::Error::other(format!("a directory has more than {MAX_ENTRIES} entries")));
        }
    }
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names)
}

#[cfg(test)]
mod tests;
