//! Owns the look through directories that are to be watched.

use std::os::fd::{AsFd, AsRawFd};

use cellule_protocol::v1::watch_event::Kind;
use rustix::fs::inotify::{WatchFlags, add_watch};
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::tree::Wd;
use super::{DOING, Watcher, event};
use crate::files::failure::{At, Failure};
use crate::files::meta::Meta;
use crate::files::path::DIRECTORY;
use crate::files::walk::{Walk, is_pseudo};
use crate::files::workers::Stop;

/// Directories that one watch may have, below the kernel's own limit for all.
const MAX_WATCHES: usize = 65_536;
/// What is found and told of directories that appeared, before it is no more than an overflow.
const MAX_TOLD: usize = 16_384;

const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

impl Watcher {
    /// Watches what was asked for. A link there is followed; none beneath it is.
    pub(super) fn scan_root(&mut self, stop: &Stop) -> Result<(), Failure> {
        let root = openat(CWD, self.path.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .at(DOING, self.path.as_bytes())?;
        if !Meta::of(&root).at(DOING, self.path.as_bytes())?.is_directory() {
            self.add(&root, None, b"")?;
            return Ok(());
        }
        let top = openat(CWD, self.path.as_c_str(), DIRECTORY, Mode::empty());
        let walk = top.and_then(|top| Walk::begin(top, false)).at(DOING, self.path.as_bytes())?;
        self.scan(walk, None, b"", false, stop)
    }

    /// Watches a directory that appeared, and tells of what is in it already.
    pub(super) fn scan_new(&mut self, parent: Wd, name: &[u8]) -> Result<(), Failure> {
        let Some(path) = self.path_of(parent, name) else { return Ok(()) };
        let top = openat(CWD, path.as_slice(), DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        match top.and_then(|top| Walk::begin(top, false)) {
            Ok(walk) => self.scan(walk, Some(parent), name, true, &Stop::default()),
            Err(errno) if vanished(errno) => Ok(()),
            // Too deep for a path: it can't be watched, so whoever keeps a copy must look.
            Err(Errno::NAMETOOLONG) => {
                self.out.push(event(Kind::Overflow, Vec::new(), false));
                Ok(())
            }
            Err(errno) => Err(errno).at(DOING, &path),
        }
    }

    fn scan(
        &mut self,
        mut walk: Walk,
        parent: Option<Wd>,
        name: &[u8],
        tell: bool,
        stop: &Stop,
    ) -> Result<(), Failure> {
        let path = self.path.as_bytes().to_vec();
        let failed = |errno| Failure::kernel(DOING, &path, errno);
        let mut tell = tell;
        let mut above = vec![self.add(walk.here().map_err(failed)?, parent, name)?];
        let mut device = Meta::of(walk.here().map_err(failed)?).map_err(failed)?.device();
        if !self.recursive && !tell {
            return Ok(());
        }
        while let Some(wd) = above.last().copied() {
            stop.check()?;
            let Some(entry) = walk.next() else {
                above.pop();
                match walk.leave() {
                    Ok(_) => continue,
                    // It was moved while it was looked through, which the kernel tells, too.
                    Err(errno) if vanished(errno) => return Ok(()),
                    Err(errno) => return Err(failed(errno)),
                }
            };
            let entry = match entry {
                Ok(entry) => entry,
                // The directory has been removed.
                Err(errno) if vanished(errno) => continue,
                Err(errno) => return Err(failed(errno)),
            };
            let name = entry.file_name();
            let directory = match entry.file_type() {
                FileType::Unknown => {
                    walk.here().and_then(|here| Meta::at(here, name)).is_ok_and(|meta| meta.is_directory())
                }
                kind => kind == FileType::Directory,
            };
            if tell && self.out.len() >= MAX_TOLD {
                self.out.push(event(Kind::Overflow, Vec::new(), false));
                tell = false;
            }
            if tell {
                self.told.insert((wd, name.to_bytes().to_vec()));
                self.tell(Kind::Created, wd, name.to_bytes(), directory);
            }
            if !directory || !self.recursive {
                continue;
            }
            match walk.enter(name) {
                Ok(()) => {}
                Err(errno) if vanished(errno) => continue,
                Err(errno) => return Err(failed(errno)),
            }
            let here = walk.here().map_err(failed)?;
            let entered = Meta::of(here).map_err(failed)?.device();
            if entered != device && is_pseudo(here).map_err(failed)? {
                walk.leave().map_err(failed)?;
                continue;
            }
            device = entered;
            above.push(self.add(here, Some(wd), name.to_bytes())?);
        }
        Ok(())
    }

    /// Watches what is open.
    fn add(&mut self, fd: impl AsFd, parent: Option<Wd>, name: &[u8]) -> Result<Wd, Failure> {
        let exhausted = |why: &str| Err(Failure::because(DOING, self.path.as_bytes(), Errno::NOSPC, why));
        if self.tree.len() >= MAX_WATCHES {
            return exhausted("it has more directories than can be watched");
        }
        // By its descriptor: no name can have changed its meaning meanwhile.
        let open = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        match add_watch(&self.inotify, open.as_str(), CHANGES) {
            Ok(wd) => {
                self.tree.place(wd, parent, name);
                Ok(wd)
            }
            Err(Errno::NOSPC) => exhausted(
                "it has more directories than the kernel lets be watched (fs.inotify.max_user_watches)",
            ),
            Err(errno) => Err(errno).at(DOING, self.path.as_bytes()),
        }
    }
}

/// What was there a moment ago is not, or is something else.
fn vanished(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE)
}
