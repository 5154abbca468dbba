//! Owns a network's directory: a socket for each member, named by its id.
//!
//! It is reached through an open descriptor, however long its path is: a socket's own path can have 107 bytes.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, chmodat, open, statat, unlinkat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::net::UnixStream;

use super::address::MOST;
use super::header::is_id;

/// A network's directory.
#[derive(Debug)]
pub(super) struct Directory(OwnedFd);

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    fn stat(&self, id: &str) -> Option<Stat> {
        statat(&self.0, id, AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    /// Whether there is a socket of that member. It may be left over from one that is gone.
    pub(super) fn has(&self, id: &str) -> bool {
        self.stat(id).is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
    }

    /// The members, as far as they can be known at a time.
    pub(super) fn members(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path()) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| is_id(name)).take(MOST).collect()
    }

    /// Connects to a member, without waiting: a socket of this kind is connected at once or never, but for one whose queue is full
    /// ([`io::ErrorKind::WouldBlock`]).
    pub(super) fn connect(&self, id: &str) -> io::Result<UnixStream> {
        UnixStream::from_std(self.reach(id)?.into())
    }

    /// The same for who has no use for the connection.
    pub(super) fn reach(&self, id: &str) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(self.path().join(id))?)?;
        Ok(socket)
    }
}

/// Where neighbours knock. Its socket is there for as long as this is.
#[derive(Debug)]
pub(crate) struct Door {
    directory: Arc<Directory>,
    id: String,
    /// Which file the socket is.
    file: Option<(u64, u64)>,
    pub(super) listener: UnixListener,
}

impl Door {
    /// Opens a door, in place of one that was left behind.
    pub(super) fn open(directory: Arc<Directory>, id: &str) -> io::Result<Self> {
        _ = unlinkat(&directory.0, id, AtFlags::empty());
        let listener = UnixListener::bind(directory.path().join(id))?;
        let file = directory.stat(id).map(|stat| (stat.st_dev, stat.st_ino));
        let door = Self { directory, id: id.to_owned(), file, listener };
        chmodat(&door.directory.0, id, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        door.listener.set_nonblocking(true)?;
        Ok(door)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let file = self.directory.stat(&self.id).map(|stat| (stat.st_dev, stat.st_ino));
        // Not that of a sandbox that was started again while this one ended.
        if file.is_some() && file == self.file {
            _ = unlinkat(&self.directory.0, &self.id, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_door_is_private_replaces_one_left_behind_and_takes_only_itself_away() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("d".repeat(200));
        fs::create_dir(&path).unwrap();
        let directory = Arc::new(Directory::open(&path).unwrap());
        let first = Door::open(Arc::clone(&directory), "a").unwrap();
        assert_eq!(fs::metadata(path.join("a")).unwrap().permissions().mode() & 0o777, 0o600);
        let second = Door::open(Arc::clone(&directory), "a").unwrap();
        drop(first);
        assert!(directory.has("a"));
        assert_eq!(directory.members(), ["a"]);
        drop(second);
        assert!(!directory.has("a"));
    }

    #[test]
    fn what_is_no_socket_is_no_member_to_reach() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let directory = Arc::new(Directory::open(dir.path()).unwrap());
        assert!(!directory.has("a"));
        assert!(Door::open(directory, "a").is_err());
        assert!(Directory::open(&dir.path().join("absent")).is_err());
    }
}
