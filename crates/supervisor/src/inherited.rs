//! What a supervisor's process is started with: the connection to its owner as standard input, the lock of the
//! sandbox's directory as standard output. Two descriptors that need no name on disk and no unsafe code to pass on.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketType, getpeername, sockopt};
use tokio::net::UnixStream;

/// Takes over what the process was started with. In its place comes `/dev/null`, so that nothing holds them but what is
/// returned.
///
/// # Errors
/// They are not there, as when the program was started by hand.
pub fn inherited() -> io::Result<(UnixStream, File)> {
    let owner = io::stdin().as_fd().try_clone_to_owned()?;
    let lock = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    if !is_connection(&owner) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "standard input is no connection to an owner",
        ));
    }
    if !lock.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "standard output is no lock"));
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    let owner = std::os::unix::net::UnixStream::from(owner);
    owner.set_nonblocking(true)?;
    Ok((UnixStream::from_std(owner)?, lock))
}

fn is_connection(fd: &OwnedFd) -> bool {
    sockopt::socket_domain(fd).is_ok_and(|domain| domain == AddressFamily::UNIX)
        && sockopt::socket_type(fd).is_ok_and(|kind| kind == SocketType::STREAM)
        && getpeername(fd).is_ok()
}

/// Writes a line to the supervisor's log, which is its standard error.
pub(crate) fn complain(what: &str) {
    // There is nobody to tell that this fails.
    _ = io::stderr().write_all(format!("{what}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connected_stream_of_this_host_is_an_owner() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(is_connection(&ours.into()));
        let (ours, _theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        assert!(!is_connection(&ours.into()));
        assert!(!is_connection(&File::open("/dev/null").unwrap().into()));
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(!is_connection(&listener.into()));
    }
}
