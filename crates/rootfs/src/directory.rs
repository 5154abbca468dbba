//! A directory of the host as the one layer of an image, or as what is copied: a deterministic tar of what is in it.
//!
//! Directories are opened relative to their parents and never through a symbolic link, so a tree that changes
//! meanwhile can't lead out of itself. For a layer, owners are taken as they are on disk. Sockets are left out, as
//! they mean nothing without their process. Of extended attributes the user's own, POSIX ACLs and file
//! capabilities are taken; the others, such as security labels, belong to the host.

mod entry;
mod stream;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::error::Error;
use crate::path::is_reserved;
use entry::{Body, Described, append, xattrs};
pub use stream::DirectoryLayer;

/// Writes the contents of `directory` as an uncompressed tar, sorted by path, the root's own entry first.
///
/// # Errors
/// [`Error::Directory`] names what can't be read, or changed its size meanwhile; [`Error::ReservedName`] what
/// a layer can't hold; [`Error::Output`] is the writer's own.
pub fn tar_from_directory(directory: &Path, out: impl Write) -> Result<(), Error> {
    let manner = Manner { follow: true, xattrs: true, ..Manner::default() };
    tar_of(directory, manner, out)
}

/// What is taken of a tree, and what it is called.
#[derive(Debug, Default)]
pub(crate) struct Manner {
    /// The name of the root in the tar. Empty: the root is a directory, called `.`.
    pub(crate) name: Vec<u8>,
    /// Whom all belongs to; none keeps the owners.
    pub(crate) owner: Option<(u32, u32)>,
    /// Goes through the root itself if it is a symbolic link.
    pub(crate) follow: bool,
    /// Takes extended attributes along.
    pub(crate) xattrs: bool,
    /// Names that a layer would read as orders to delete are names like others.
    pub(crate) reserved_names: bool,
}

/// Writes a tree as an uncompressed tar.
pub(crate) fn tar_of(root: &Path, manner: Manner, out: impl Write) -> Result<(), Error> {
    let mut tar = tar::Builder::new(out);
    Walk { root, manner, links: HashMap::new() }.run(&mut tar)?;
    let mut out = tar.into_inner().map_err(output)?;
    out.flush().map_err(output)
}

fn output(source: io::Error) -> Error {
    Error::Output { source }
}

/// The names of one directory that are still to come, last first.
struct Level {
    directory: OwnedFd,
    path: PathBuf,
    names: Vec<Vec<u8>>,
}

struct Walk<'a> {
    root: &'a Path,
    manner: Manner,
    /// The first path of each inode that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Walk<'_> {
    fn run<W: Write>(mut self, tar: &mut tar::Builder<W>) -> Result<(), Error> {
        let mut levels: Vec<Level> = self.visit_root(tar)?.into_iter().collect();
        // One level is one open directory, so depth is bounded by the process's limit on descriptors.
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            if let Some(below) = self.visit(level, &name, tar)? {
                levels.push(below);
            }
        }
        Ok(())
    }

    /// Writes the root's own entry; if it is a directory, its level is returned.
    fn visit_root<W: Write>(&mut self, tar: &mut tar::Builder<W>) -> Result<Option<Level>, Error> {
        let top = Path::new("");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let follow = if self.manner.follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let root = match rustix::fs::open(self.root, flags | follow, Mode::empty()) {
            Ok(root) => root,
            // A link that is not followed is said to be either.
            Err(Errno::NOTDIR | Errno::LOOP) if !self.manner.name.is_empty() => {
                return self.visit_lone(tar).map(|()| None);
            }
            Err(error) => return Err(self.failed(top, error)),
        };
        let stat = rustix::fs::fstat(&root).map_err(|e| self.failed(top, e))?;
        let xattrs = self.xattrs(&root, b".").map_err(|e| self.failed(top, e))?;
        let path = if self.manner.name.is_empty() { b"./".to_vec() } else { self.slashed(top) };
        append(tar, &self.described(&path, &stat, xattrs), Body::Directory).map_err(output)?;
        self.level(root, PathBuf::new()).map(Some)
    }

    /// Writes a root that is no directory.
    fn visit_lone<W: Write>(&mut self, tar: &mut tar::Builder<W>) -> Result<(), Error> {
        let failed = |error: io::Error| Error::Directory { path: self.root.to_owned(), source: error };
        // Followed to its end, a path ends with no link.
        let real =
            if self.manner.follow { self.root.canonicalize().map_err(failed)? } else { self.root.to_owned() };
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        let level = Level { directory, path: PathBuf::new(), names: Vec::new() };
        let below = self.visit_as(&level, name.as_bytes(), PathBuf::new(), tar)?;
        if below.is_some() { Err(self.failed(Path::new(""), changed())) } else { Ok(()) }
    }

    /// What a path below the root is called in the tar.
    fn named(&self, path: &Path) -> Vec<u8> {
        let (name, path) = (self.manner.name.as_slice(), path.as_os_str().as_bytes());
        match (name, path) {
            (name, b"") => name.to_vec(),
            (b"", path) => path.to_vec(),
            (name, path) => [name, b"/", path].concat(),
        }
    }

    fn slashed(&self, path: &Path) -> Vec<u8> {
        let mut named = self.named(path);
        named.push(b'/');
        named
    }

    fn described<'a>(&self, path: &'a [u8], stat: &'a Stat, xattrs: Vec<(String, Vec<u8>)>) -> Described<'a> {
        let owner = self.manner.owner.unwrap_or((stat.st_uid, stat.st_gid));
        Described { path, stat, owner, xattrs }
    }

    fn xattrs(&self, directory: &OwnedFd, name: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        if self.manner.xattrs { xattrs(directory, name) } else { Ok(Vec::new()) }
    }

    fn level(&self, directory: OwnedFd, path: PathBuf) -> Result<Level, Error> {
        let names = || -> rustix::io::Result<Vec<Vec<u8>>> {
            let mut names = Vec::new();
            for entry in Dir::read_from(&directory)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.push(name);
                }
            }
            names.sort_unstable_by(|a, b| b.cmp(a));
            Ok(names)
        };
        let names = names().map_err(|e| self.failed(&path, e))?;
        Ok(Level { directory, path, names })
    }

    /// Writes one entry; a directory's level is returned, to be gone through next.
    fn visit<W: Write>(
        &mut self,
        level: &Level,
        name: &[u8],
        tar: &mut tar::Builder<W>,
    ) -> Result<Option<Level>, Error> {
        let path = level.path.join(std::ffi::OsStr::from_bytes(name));
        if is_reserved(name) && !self.manner.reserved_names {
            return Err(Error::ReservedName { path: self.root.join(path) });
        }
        self.visit_as(level, name, path, tar)
    }

    /// Writes what a directory has under a name, as `path` below the root.
    fn visit_as<W: Write>(
        &mut self,
        level: &Level,
        name: &[u8],
        path: PathBuf,
        tar: &mut tar::Builder<W>,
    ) -> Result<Option<Level>, Error> {
        let stat =
            statat(&level.directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.failed(&path, e))?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type == FileType::Socket {
            return Ok(None);
        }
        let named = self.named(&path);
        if let Some(first) = self.first_link(&stat, file_type, &path) {
            let first = self.named(&first);
            append(tar, &self.described(&named, &stat, Vec::new()), Body::HardLink(&first))
                .map_err(output)?;
            return Ok(None);
        }
        let xattrs = self.xattrs(&level.directory, name).map_err(|e| self.failed(&path, e))?;
        if file_type == FileType::RegularFile {
            return self.append_file(level, name, &path, xattrs, tar).map(|()| None);
        }
        if file_type == FileType::Directory {
            let below = self.open(level, name, &path, OFlags::DIRECTORY)?;
            let slashed = self.slashed(&path);
            append(tar, &self.described(&slashed, &stat, xattrs), Body::Directory).map_err(output)?;
            return self.level(below, path).map(Some);
        }
        let described = self.described(&named, &stat, xattrs);
        let written = match file_type {
            FileType::Symlink => {
                let target =
                    readlinkat(&level.directory, name, Vec::new()).map_err(|e| self.failed(&path, e))?;
                append(tar, &described, Body::Symlink(target.as_bytes()))
            }
            FileType::CharacterDevice => append(tar, &described, Body::CharDevice),
            FileType::BlockDevice => append(tar, &described, Body::BlockDevice),
            FileType::Fifo => append(tar, &described, Body::Fifo),
            _ => Ok(()),
        };
        written.map_err(output).map(|()| None)
    }

    fn append_file<W: Write>(
        &self,
        level: &Level,
        name: &[u8],
        path: &Path,
        xattrs: Vec<(String, Vec<u8>)>,
        tar: &mut tar::Builder<W>,
    ) -> Result<(), Error> {
        // Not blocking, in case a FIFO has taken the file's place.
        let file = self.open(level, name, path, OFlags::NONBLOCK)?;
        let stat = rustix::fs::fstat(&file).map_err(|e| self.failed(path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.failed(path, changed()));
        }
        let named = self.named(path);
        let described = self.described(&named, &stat, xattrs);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut contents = Contents { file: File::from(file).take(size), error: None };
        let written = append(tar, &described, Body::File(&mut contents, size));
        match contents.error {
            Some(error) => Err(self.failed(path, error)),
            None if contents.file.limit() > 0 && written.is_ok() => Err(self.failed(path, changed())),
            None => written.map_err(output),
        }
    }

    fn open(&self, level: &Level, name: &[u8], path: &Path, flags: OFlags) -> Result<OwnedFd, Error> {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&level.directory, name, flags, Mode::empty()).map_err(|e| self.failed(path, e))
    }

    /// The path under which this inode was met before, if it was.
    fn first_link(&mut self, stat: &Stat, file_type: FileType, path: &Path) -> Option<PathBuf> {
        if stat.st_nlink < 2 || file_type == FileType::Directory {
            return None;
        }
        match self.links.entry((stat.st_dev, stat.st_ino)) {
            std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(path.to_owned());
                None
            }
        }
    }

    fn failed(&self, path: &Path, source: impl Into<io::Error>) -> Error {
        let path = if path.as_os_str().is_empty() { self.root.to_owned() } else { self.root.join(path) };
        Error::Directory { path, source: source.into() }
    }
}

fn changed() -> io::Error {
    io::Error::other("it changed while it was read")
}

/// A file's contents, remembering whether a failure was the file's or the writer's.
struct Contents {
    file: io::Take<File>,
    error: Option<io::Error>,
}

impl Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.error = Some(
                    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error),
                );
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_takes_the_place_of_a_file_or_directory_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", root.path().join("directory")).unwrap();
        std::os::unix::fs::symlink("/proc/self/maps", root.path().join("file")).unwrap();
        let walk = Walk { root: root.path(), manner: Manner::default(), links: HashMap::new() };
        let directory = File::open(root.path()).unwrap().into();
        let level = Level { directory, path: PathBuf::new(), names: Vec::new() };
        for (name, flags) in [("directory", OFlags::DIRECTORY), ("file", OFlags::NONBLOCK)] {
            let opened = walk.open(&level, name.as_bytes(), Path::new(name), flags);
            assert!(matches!(opened, Err(Error::Directory { path, .. }) if path == root.path().join(name)));
        }
    }
}
