//! The supervisor's socket: who may connect, and how many.
//!
//! It is reached through an open descriptor of its directory, however long that directory's path is: a socket's own path
//! can have 107 bytes.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The socket within a sandbox's directory.
const SOCKET: &str = "socket";
/// Connections at a time.
pub(crate) const CONNECTIONS: usize = 256;
/// How long to wait when no connection can be taken: descriptors have run out.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    room: Arc<Semaphore>,
}

/// A connection that was let in, and the place that it takes.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: UnixStream,
    pub(crate) place: OwnedSemaphorePermit,
}

impl Listener {
    /// Listens in a sandbox's directory, in place of a socket that was left behind there.
    pub(crate) fn bind(dir: &Path) -> io::Result<Self> {
        remove(dir);
        let handle = handle(dir)?;
        let listener = UnixListener::bind(through(&handle))?;
        rustix::fs::chmodat(&handle, SOCKET, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        Ok(Self { listener, room: Arc::new(Semaphore::new(CONNECTIONS)) })
    }

    /// The next connection of somebody who may connect. Others are dropped without a word.
    pub(crate) async fn accept(&self) -> Accepted {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            };
            if !is_ours(&stream) {
                continue;
            }
            if let Ok(place) = Arc::clone(&self.room).try_acquire_owned() {
                return Accepted { stream, place };
            }
        }
    }
}

/// Whether the other side belongs to our user, or to root, who can do all of this anyway.
fn is_ours(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| may_connect(peer.uid(), rustix::process::geteuid().as_raw()))
}

fn may_connect(peer: u32, us: u32) -> bool {
    peer == us || peer == 0
}

/// Connects to the supervisor of a sandbox.
pub(crate) async fn connect(dir: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(through(&handle(dir)?)).await
}

/// Removes the socket.
pub(crate) fn remove(dir: &Path) {
    _ = fs::remove_file(dir.join(SOCKET));
}

fn handle(dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn through(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const HANG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_socket_is_private_and_replaces_one_left_behind_wherever_it_is() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("d".repeat(200));
        fs::create_dir(&dir).unwrap();
        drop(Listener::bind(&dir).unwrap());
        let listener = Listener::bind(&dir).unwrap();
        let mode = fs::metadata(dir.join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (mut ours, theirs) = tokio::join!(connect(&dir), listener.accept());
        ours.as_mut().unwrap().write_all(b"x").await.unwrap();
        let mut theirs = theirs.stream;
        assert_eq!(tokio::time::timeout(HANG, theirs.read_u8()).await.unwrap().unwrap(), b'x');
    }

    #[tokio::test]
    async fn one_connection_too_many_is_dropped_until_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let listener = Listener { room: Arc::new(Semaphore::new(1)), ..Listener::bind(dir.path()).unwrap() };
        let _first = connect(dir.path()).await.unwrap();
        let accepted = listener.accept().await;
        let mut second = connect(dir.path()).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(waiting.is_err(), "there is no room");
        assert_eq!(
            tokio::time::timeout(HANG, second.read(&mut [0])).await.unwrap().unwrap(),
            0,
            "it was dropped"
        );
        drop(accepted);
        let _third = connect(dir.path()).await.unwrap();
        tokio::time::timeout(HANG, listener.accept()).await.unwrap();
    }

    #[test]
    fn only_our_user_and_root_may_connect() {
        assert!(may_connect(1000, 1000) && may_connect(0, 1000) && may_connect(0, 0));
        assert!(!may_connect(1001, 1000) && !may_connect(1000, 0));
    }
}
