//! The agent's port: a socket that QEMU listens on, and the rule that one stream is open at a time.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

use crate::stream::Lease;
use crate::{AgentStream, ConnectError, LaunchError};

const NAME: &str = "agent.sock";

/// The host's side of the port. Dropping it removes the socket.
#[derive(Debug)]
pub(super) struct Port {
    /// The directory, held open: through it the socket is reached however long the directory's path is. A socket's
    /// own path can have 107 bytes.
    dir: OwnedFd,
    /// For messages, and to remove it.
    path: PathBuf,
    taken: Arc<AtomicBool>,
}

impl Port {
    /// Makes the socket, in place of one that an owner who died left behind.
    pub(super) fn listen(dir: &Path) -> Result<(Self, UnixListener), LaunchError> {
        let path = dir.join(NAME);
        let listen = || -> io::Result<_> {
            let dir =
                rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let listener = UnixListener::bind(through(&dir))?;
            // From here on the drop of `Self` removes it.
            let port = Self { dir, path: path.clone(), taken: Arc::new(AtomicBool::new(false)) };
            rustix::fs::chmodat(&port.dir, NAME, Mode::RUSR | Mode::WUSR, rustix::fs::AtFlags::empty())?;
            Ok((port, listener))
        };
        listen().map_err(|source| LaunchError::Directory { path: path.clone(), source })
    }

    pub(super) async fn connect(&self) -> Result<AgentStream, ConnectError> {
        let lease = Lease::take(&self.taken).ok_or(ConnectError::Busy)?;
        let stream = UnixStream::connect(through(&self.dir))
            .await
            .map_err(|source| ConnectError::Socket { path: self.path.clone(), source })?;
        Ok(AgentStream::new(stream, lease))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // The whole directory may be gone by now, which is as good.
        let _ = rustix::fs::unlinkat(&self.dir, NAME, rustix::fs::AtFlags::empty());
    }
}

fn through(dir: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_socket_is_made_where_no_socket_path_would_fit_and_removed() {
        let top = tempfile::tempdir().expect("a temporary directory");
        let dir = top.path().join("d".repeat(200));
        std::fs::create_dir(&dir).expect("room for a directory");
        std::fs::write(dir.join(NAME), b"left behind").expect("room for a file");
        let (port, listener) = Port::listen(&dir).expect("a listening socket");
        let mode = dir.join(NAME).metadata().expect("the socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::os::unix::net::UnixStream::connect(through(&port.dir)).expect("a connection");
        listener.accept().expect("a connection");
        drop(port);
        assert!(!dir.join(NAME).exists());
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        match Port::listen(Path::new("/nonexistent")) {
            Err(LaunchError::Directory { path, .. }) => {
                assert_eq!(path, Path::new("/nonexistent/agent.sock"));
            }
            other => panic!("{other:?}"),
        }
    }
}
