//! Owns the byte stream to the host: finding the port, and noticing when a host comes and goes.
//!
//! A virtio-serial port that no host has open reads as ended, is never writable, and polls as hung up, again and again.
//! So the wait for a host goes through an epoll of its own, edge-triggered: it reports each change once.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::fs::{Mode, OFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::fault::{Context, Fault};

const PORT_NAME: &str = "cellule.agent";
const CLASS: &str = "/sys/class/virtio-ports";
/// How long the port may take to appear. Its driver is probed before the agent starts, or with the last module.
const APPEARS_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// Where hosts come from.
#[expect(async_fn_in_trait, reason = "all on one thread")]
pub trait Port {
    /// The byte stream to one host.
    type Io: AsyncRead + AsyncWrite + Unpin;

    /// Waits for the next host; `None` if there will be none.
    async fn next(&mut self) -> io::Result<Option<Self::Io>>;
}

/// The virtio-serial port, open for as long as the agent lives.
#[derive(Debug)]
pub struct VirtioPort {
    fd: Arc<OwnedFd>,
}

impl VirtioPort {
    /// Waits for the port to appear and opens it. Needs sysfs and devtmpfs at their places.
    ///
    /// # Errors
    /// When it does not appear in time, or can't be opened.
    pub fn open() -> Result<Self, Fault> {
        let deadline = Instant::now() + APPEARS_WITHIN;
        loop {
            if let Some(device) = find(Path::new(CLASS)) {
                let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
                match rustix::fs::open(&device, flags, Mode::empty()) {
                    Ok(fd) => return Ok(Self { fd: Arc::new(fd) }),
                    // The name is there a moment before the node.
                    Err(rustix::io::Errno::NOENT) => {}
                    Err(error) => return Err(error).context(format_args!("open {}", device.display())),
                }
            }
            if Instant::now() > deadline {
                return Err(Fault::new(format!("no virtio-serial port named {PORT_NAME} has appeared")));
            }
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
    }
}

fn find(class: &Path) -> Option<PathBuf> {
    let ports = fs::read_dir(class).ok()?;
    ports.flatten().find_map(|port| {
        let name = fs::read_to_string(port.path().join("name")).ok()?;
        (name.trim_end() == PORT_NAME).then(|| Path::new("/dev").join(port.file_name()))
    })
}

impl Port for VirtioPort {
    type Io = Connection;

    async fn next(&mut self) -> io::Result<Option<Connection>> {
        let changes = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&changes, &self.fd, epoll::EventData::new_u64(0), interest)?;
        let changes = register(changes, Interest::READABLE)?;
        loop {
            let mut ready = changes.readable().await?;
            let mut events =
                [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 1];
            let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            let count = epoll::wait(changes.get_ref(), &mut events, Some(&now))?;
            if count == 0 {
                ready.clear_ready();
                continue;
            }
            let [event] = events;
            // The flags are packed: compare a copy.
            let flags = event.flags;
            if !flags.contains(epoll::EventFlags::HUP) {
                return Ok(Some(Connection {
                    fd: register(Shared(Arc::clone(&self.fd)), Interest::READABLE | Interest::WRITABLE)?,
                }));
            }
        }
    }
}

/// Makes the event loop watch a descriptor.
pub(crate) fn register<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: every type that this crate passes owns its descriptor, or a share in it, for as long as it lives, and
    // always returns that one.
    unsafe { AsyncFd::register_with_interest(owner, interest) }.map_err(|error| error.into_parts().1)
}

/// The port from a host's coming until its going.
#[derive(Debug)]
pub struct Connection {
    fd: AsyncFd<Shared>,
}

/// The one descriptor of the port: closing it would tell the host that the agent is gone.
#[derive(Debug)]
struct Shared(Arc<OwnedFd>);

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.fd.poll_read_ready(cx))?;
            let read = |fd: &AsyncFd<Shared>| {
                Ok(rustix::io::read(fd.get_ref().0.as_fd(), buf.initialize_unfilled())?)
            };
            if let Ok(read) = ready.try_io(read) {
                buf.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.fd.poll_write_ready(cx))?;
            let write = |fd: &AsyncFd<Shared>| Ok(rustix::io::write(fd.get_ref().0.as_fd(), buf)?);
            if let Ok(written) = ready.try_io(write) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
