//! A directory of the host as the one layer of an image: a deterministic tar of what is in it.
//!
//! Directories are opened relative to their parents and never through a symbolic link, so a tree that changes
//! meanwhile can't lead out of itself. Owners are taken as they are on disk. Sockets are left out, as they
//! mean nothing without their process. Of extended attributes the user's own, POSIX ACLs and file
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
    let mut tar = tar::Builder::new(out);
    Walk { root: directory, links: HashMap::new() }.run(&mut tar)?;
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
    /// The first path of each inode that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Walk<'_> {
    fn run<W: Write>(mut self, tar: &mut tar::Builder<W>) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(self.root, flags, Mode::empty()).map_err(|e| self.failed(Path::new(""), e))?;
        let stat = rustix::fs::fstat(&root).map_err(|e| self.failed(Path::new(""), e))?;
        let xattrs = xattrs(&root, b".").map_err(|e| self.failed(Path::new(""), e))?;
        append(tar, &Described { path: b"./", stat: &stat, xattrs }, Body::Directory).map_err(output)?;
        let mut levels = vec![self.level(root, PathBuf::new())?];
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
        if is_reserved(name) {
            return Err(Error::ReservedName { path: self.root.join(path) });
        }
        let stat =
            statat(&level.directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.failed(&path, e))?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type == FileType::Socket {
            return Ok(None);
        }
        if let Some(first) = self.first_link(&stat, file_type, &path) {
            let described = Described { path: path.as_os_str().as_bytes(), stat: &stat, xattrs: Vec::new() };
            append(tar, &described, Body::HardLink(first.as_os_str().as_bytes())).map_err(output)?;
            return Ok(None);
        }
        let xattrs = xattrs(&level.directory, name).map_err(|e| self.failed(&path, e))?;
        let mut described = Described { path: path.as_os_str().as_bytes(), stat: &stat, xattrs };
        let written = match file_type {
            FileType::Directory => {
                let below = self.open(level, name, &path, OFlags::DIRECTORY)?;
                let slashed = [described.path, b"/"].concat();
                described.path = &slashed;
                append(tar, &described, Body::Directory).map_err(output)?;
                return self.level(below, path).map(Some);
            }
            FileType::RegularFile => return self.append_file(level, name, &path, &mut described, tar),
            FileType::Symlink => {
                let target =
                    readlinkat(&level.directory, name, Vec::new()).map_err(|e| self.failed(&path, e))?;
                append(tar, &described, Body::Symlink(target.as_bytes()))
            }
            FileType::CharacterDevice => append(tar, &described, Body::CharDevice),
            FileType::BlockDevice => append(tar, &described, Body::BlockDevice),
            FileType::Fifo => append(tar, &described, Body::Fifo),
            FileType::Socket | FileType::Unknown => Ok(()),
        };
        written.map_err(output).map(|()| None)
    }

    fn append_file<W: Write>(
        &self,
        level: &Level,
        name: &[u8],
        path: &Path,
        described: &mut Described<'_>,
        tar: &mut tar::Builder<W>,
    ) -> Result<Option<Level>, Error> {
        // Not blocking, in case a FIFO has taken the file's place.
        let file = self.open(level, name, path, OFlags::NONBLOCK)?;
        let stat = rustix::fs::fstat(&file).map_err(|e| self.failed(path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.failed(path, changed()));
        }
        let described =
            Described { path: described.path, stat: &stat, xattrs: std::mem::take(&mut described.xattrs) };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut contents = Contents { file: File::from(file).take(size), error: None };
        let written = append(tar, &described, Body::File(&mut contents, size));
        match contents.error {
            Some(error) => Err(self.failed(path, error)),
            None if contents.file.limit() > 0 && written.is_ok() => Err(self.failed(path, changed())),
            None => written.map_err(output).map(|()| None),
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
        let walk = Walk { root: root.path(), links: HashMap::new() };
        let directory = File::open(root.path()).unwrap().into();
        let level = Level { directory, path: PathBuf::new(), names: Vec::new() };
        for (name, flags) in [("directory", OFlags::DIRECTORY), ("file", OFlags::NONBLOCK)] {
            let opened = walk.open(&level, name.as_bytes(), Path::new(name), flags);
            assert!(matches!(opened, Err(Error::Directory { path, .. }) if path == root.path().join(name)));
        }
    }
}
