//! Owns the way through a tree of directories, by their descriptors alone: a name that is exchanged for a link meanwhile
//! leads nowhere.
//!
//! However deep the tree, only the deepest directories are held open. Those further up are found again through `..`, and
//! known again by their numbers; in one that is not the same any more the walk ends.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, DirEntry, Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;

use super::meta::{Id, Meta};
use super::path::DIRECTORY;

/// Directories that one walk holds open.
const OPEN: usize = 24;

/// File systems that are no files: the kernel's own view of itself. `statfs(2)` has the numbers.
const PSEUDO: [i64; 10] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x1cd1,      // devpts
    0x6367_7270, // cgroup2
    0x0027_e0eb, // cgroup
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6265_6570, // configfs
    0xcafe_4a11, // bpf
];

/// A place in a tree.
#[derive(Debug)]
pub(super) struct Walk {
    levels: Vec<Level>,
    /// Whether a directory that was closed is read from its beginning again, as by who removes what it reads.
    again: bool,
}

#[derive(Debug)]
struct Level {
    directory: Option<Dir>,
    id: Id,
    /// In the level above; empty for the first.
    name: CString,
    /// Behind the last entry that was read.
    at: i64,
}

impl Walk {
    /// Begins in `directory`.
    pub(super) fn begin(directory: OwnedFd, again: bool) -> Result<Self, Errno> {
        let mut walk = Self { levels: Vec::new(), again };
        walk.push(directory, CString::default())?;
        Ok(walk)
    }

    fn push(&mut self, directory: OwnedFd, name: CString) -> Result<(), Errno> {
        let id = Meta::of(&directory)?.id();
        self.levels.push(Level { directory: Some(Dir::new(directory)?), id, name, at: 0 });
        if let Some(above) = self.levels.len().checked_sub(OPEN + 1) {
            self.levels[above].directory = None;
        }
        Ok(())
    }

    /// The next entry of the directory that the walk is in.
    pub(super) fn next(&mut self) -> Option<Result<DirEntry, Errno>> {
        let level = self.levels.last_mut()?;
        let directory = level.directory.as_mut()?;
        loop {
            let entry = directory.read()?;
            if let Ok(entry) = &entry {
                level.at = entry.offset();
                if entry.file_name() == c"." || entry.file_name() == c".." {
                    continue;
                }
            }
            return Some(entry);
        }
    }

    /// Goes into a directory of the one that the walk is in; never through a link.
    pub(super) fn enter(&mut self, name: &CStr) -> Result<(), Errno> {
        let directory = openat(self.here()?, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        self.push(directory, name.to_owned())
    }

    /// Goes back up, and tells the name of what it left; none at the beginning.
    pub(super) fn leave(&mut self) -> Result<Option<CString>, Errno> {
        if self.levels.len() < 2 {
            return Ok(None);
        }
        let Some(left) = self.levels.pop() else { return Ok(None) };
        let Some(level) = self.levels.last_mut() else { return Ok(None) };
        if level.directory.is_none() {
            let below = left.directory.as_ref().ok_or(Errno::STALE)?.fd()?;
            let directory = openat(below, c"..", DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            if Meta::of(&directory)?.id() != level.id {
                return Err(Errno::STALE);
            }
            let mut directory = Dir::new(directory)?;
            if !self.again {
                directory.seek(level.at)?;
            }
            level.directory = Some(directory);
        }
        Ok(Some(left.name))
    }

    /// The directory that the walk is in.
    pub(super) fn here(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.levels.last().and_then(|level| level.directory.as_ref()).ok_or(Errno::STALE)?.fd()
    }

    /// The names from the beginning on, for messages.
    pub(super) fn names(&self) -> Vec<u8> {
        let names = self.levels.iter().skip(1).flat_map(|level| [&b"/"[..], level.name.as_bytes()]);
        names.collect::<Vec<_>>().concat()
    }
}

/// Whether a directory belongs to a file system without files, which nobody wants copied.
pub(super) fn is_pseudo(directory: impl AsFd) -> Result<bool, Errno> {
    Ok(PSEUDO.contains(&fstatfs(directory)?.f_type))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::CWD;

    use super::*;

    fn walk(path: &std::path::Path) -> Walk {
        Walk::begin(openat(CWD, path, DIRECTORY, Mode::empty()).unwrap(), false).unwrap()
    }

    /// Goes through all of it, and tells the depth that it came to and how many entries there were.
    fn through(walk: &mut Walk) -> Result<(usize, usize), Errno> {
        let (mut deepest, mut entries) = (0, 0);
        loop {
            match walk.next() {
                Some(entry) => {
                    let entry = entry?;
                    entries += 1;
                    if Meta::at(walk.here()?, entry.file_name())?.is_directory() {
                        walk.enter(entry.file_name())?;
                        deepest = deepest.max(walk.levels.len());
                    }
                }
                None if walk.leave()?.is_none() => return Ok((deepest, entries)),
                None => {}
            }
        }
    }

    #[test]
    fn a_walk_deeper_than_what_it_holds_open_sees_everything_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().to_path_buf();
        for at in 0..3 * OPEN {
            for name in ["a", "b", "y", "z"] {
                fs::write(path.join(format!("{name}{at}")), "").unwrap();
            }
            path.push("m");
            fs::create_dir(&path).unwrap();
        }
        let mut walk = walk(dir.path());
        assert_eq!(through(&mut walk).unwrap(), (3 * OPEN + 1, 3 * OPEN * 5));
    }

    #[test]
    fn a_directory_that_was_moved_away_ends_the_walk() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("top").join(["m"; OPEN + 5].join("/"));
        fs::create_dir_all(&deep).unwrap();
        let mut walk = walk(&dir.path().join("top"));
        while let Some(entry) = walk.next() {
            walk.enter(entry.unwrap().file_name()).unwrap();
        }
        // Two levels that are not held open change places with what is elsewhere.
        fs::rename(dir.path().join("top/m/m/m"), dir.path().join("elsewhere")).unwrap();
        let ended = loop {
            match walk.leave() {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        assert_eq!(ended, Err(Errno::STALE));
    }

    #[test]
    fn a_link_is_never_entered() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        let entered = walk(dir.path()).enter(c"link");
        assert!(matches!(entered, Err(Errno::NOTDIR | Errno::LOOP)), "{entered:?}");
    }
}
