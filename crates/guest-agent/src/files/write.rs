//! Owns the writing of one file: beside the old one and then in its place, or at its end.
//!
//! ```text
//!   begin ──▶ temporary in the target's directory ──▶ bytes ──▶ mode, owner, (disk) ──▶ renamed ──▶ (disk)
//!                          │                            │               │
//!                          └────────────────────────────┴───────────────┴── failed, or cut: removed
//! ```
//! What reads the target meanwhile sees the old content or the new, never a mixture. A machine that dies in the midst may
//! leave the temporary file, under a name that says whose it is.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use cellule_protocol::v1::WriteRequest;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Uid, chmodat, fchmod, fchown, fsync, linkat,
    openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::failure::{At, Failure};
use super::meta::Meta;
use super::path::{DIRECTORY, GuestPath, HARMLESS, Place};
use super::pump::Sink;
use super::read::refuse_other_kinds;

const DOING: &str = "write";
/// What a new file gets if nothing is asked for.
const NEW_MODE: u32 = 0o644;
/// How often another name is tried; the first is all but certain to be free.
const NAMES: usize = 16;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Writing {
    file: OwnedFd,
    path: GuestPath,
    /// What replaces the target at the end; none where the target itself is written to.
    fresh: Option<(Temporary, CString)>,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    create_new: bool,
    sync: bool,
    bytes: u64,
}

/// A file under a name of its own, which goes when this does.
#[derive(Debug)]
pub(super) struct Temporary {
    directory: OwnedFd,
    /// None once it has become something else.
    name: Option<CString>,
}

impl Writing {
    pub(super) fn begin(path: GuestPath, request: &WriteRequest) -> Result<Self, Failure> {
        if request.mode.is_some_and(|mode| mode > 0o7777) {
            return Err(Failure::invalid(DOING, path.as_bytes(), "has no permissions such as these"));
        }
        let (place, there) = if request.create_new {
            let place = path.place(DOING)?;
            match Meta::at(&place.directory, &place.name) {
                Ok(_) => return Err(Errno::EXIST).at(DOING, path.as_bytes()),
                Err(Errno::NOENT) => (place, None),
                Err(errno) => return Err(errno).at(DOING, path.as_bytes()),
            }
        } else {
            path.destination(DOING)?
        };
        if let Some(there) = &there {
            refuse_other_kinds(DOING, &path, there)?;
        }
        let owner = request.owner.map(|owner| (owner.uid, owner.gid));
        let mut writing = if request.append {
            let file = open_to_append(&place, there.is_none()).at(DOING, path.as_bytes())?;
            let meta = Meta::of(&file).at(DOING, path.as_bytes())?;
            refuse_other_kinds(DOING, &path, &meta)?;
            let mode = request.mode.or(there.is_none().then_some(NEW_MODE));
            Self { file, path, fresh: None, mode, owner, create_new: false, sync: false, bytes: 0 }
        } else {
            let Place { directory, name } = place;
            let (temporary, file) = Temporary::new(directory).at(DOING, path.as_bytes())?;
            let mode = request.mode.or(there.map(|there| there.mode())).or(Some(NEW_MODE));
            let owner = owner.or(there.map(|there| there.owner()));
            let fresh = Some((temporary, name));
            Self { file, path, fresh, mode, owner, create_new: request.create_new, sync: false, bytes: 0 }
        };
        writing.sync = request.sync;
        Ok(writing)
    }

    /// Puts what came in its place. Returns how many bytes that were.
    pub(super) fn finish(self) -> Result<u64, Failure> {
        let Self { file, path, fresh, mode, owner, create_new, sync, bytes } = self;
        let path = path.as_bytes();
        give(&file, owner).at("set the owner of", path)?;
        if let Some(mode) = mode {
            fchmod(&file, Mode::from_raw_mode(mode)).at("set the mode of", path)?;
        }
        if sync {
            fsync(&file).at(DOING, path)?;
        }
        if let Some((temporary, name)) = fresh {
            let directory = temporary.become_file(&name, create_new).at(DOING, path)?;
            if sync {
                openat(&directory, c".", DIRECTORY, Mode::empty()).and_then(fsync).at(DOING, path)?;
            }
        }
        Ok(bytes)
    }
}

impl Sink for Writing {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        write_all(&self.file, bytes).at(DOING, self.path.as_bytes())?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Temporary {
    pub(super) fn new(directory: OwnedFd) -> Result<(Self, OwnedFd), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | HARMLESS;
        let mut tried = 0;
        loop {
            let name = random_name()?;
            match openat(&directory, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok((Self { directory, name: Some(name) }, file)),
                Err(Errno::EXIST) if tried < NAMES => tried += 1,
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Gives it its name, in one step, and gives its directory back.
    pub(super) fn become_file(mut self, name: &CString, create_new: bool) -> Result<OwnedFd, Errno> {
        let Some(temporary) = &self.name else { return Err(Errno::NOENT) };
        let directory = self.directory.as_fd();
        if create_new {
            match renameat_with(directory, temporary, directory, name, RenameFlags::NOREPLACE) {
                Ok(()) => self.name = None,
                // A file system that can't; but a link never replaces anything either. The other name goes with this.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    linkat(directory, temporary, directory, name, AtFlags::empty())?;
                }
                Err(errno) => return Err(errno),
            }
        } else {
            renameat(directory, temporary, directory, name)?;
            self.name = None;
        }
        self.directory.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Whatever keeps it from going keeps it from harm, too.
            let _gone = unlinkat(&self.directory, name, AtFlags::empty());
        }
    }
}

/// Writes all of it.
pub(super) fn write_all(file: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Gives an open file to its owner.
pub(super) fn give(file: impl AsFd, owner: Option<(u32, u32)>) -> Result<(), Errno> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Sets the mode of what is no link, no directory and no regular file, without opening it or following what comes in its
/// place.
pub(super) fn set_node_mode(directory: impl AsFd, name: &CStr, mode: Mode) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = openat(directory, name, flags, Mode::empty())?;
    if Meta::of(&node)?.kind() == FileType::Symlink {
        return Err(Errno::STALE);
    }
    chmodat(CWD, format!("/proc/self/fd/{}", node.as_raw_fd()), mode, AtFlags::empty())
}

fn open_to_append(place: &Place, create: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | HARMLESS;
    if create {
        flags |= OFlags::CREATE | OFlags::EXCL;
    }
    openat(&place.directory, &place.name, flags, Mode::RUSR | Mode::WUSR)
}

fn random_name() -> Result<CString, Errno> {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    CString::new(format!(".cellule-{:016x}", u64::from_ne_bytes(bytes))).map_err(|_| Errno::INVAL)
}
