//! The guest's console: its last part in memory, and all of it, bounded, in a file.
//!
//! A thread of its own reads it: a guest that floods its console, or a disk that stalls, holds up nothing else.
//! The thread ends when the engine's process does, since that closes the other end.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::fs::{Mode, OFlags, openat, renameat};
use tokio::sync::oneshot;

use crate::ConsoleLog;

/// How much of the console's end is kept.
const TAIL: usize = 64 << 10;

/// What is kept of a console; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Console(Arc<Mutex<Tail>>);

impl Console {
    /// Starts to read. The receiver is told when all has been read.
    pub(crate) fn read(
        from: UnixStream,
        log: Option<ConsoleLog>,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let log = log.map(Log::open).transpose()?;
        let console = Self::default();
        let (finished, end) = oneshot::channel();
        let into = console.clone();
        thread::Builder::new().name("console".to_owned()).spawn(move || {
            into.copy(from, log);
            // Nobody may be waiting for it.
            let _ = finished.send(());
        })?;
        Ok((console, end))
    }

    fn copy(&self, mut from: UnixStream, mut log: Option<Log>) {
        let mut buffer = [0; 4096];
        loop {
            let got = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => &buffer[..n],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(got);
            if let Some(file) = &mut log
                && let Err(error) = file.write(got)
            {
                tracing::warn!(path = %file.at.path.display(), %error, "the console's log is given up");
                log = None;
            }
        }
    }

    /// A copy of what is kept.
    pub(crate) fn tail(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.iter().copied().collect()
    }
}

/// The last bytes of something, at most [`TAIL`] of them.
#[derive(Debug, Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
        let surplus = (self.0.len() + bytes.len()).saturating_sub(TAIL);
        self.0.drain(..surplus);
        self.0.extend(bytes);
    }
}

/// An open [`ConsoleLog`].
struct Log {
    at: ConsoleLog,
    /// Its directory, which may be renamed meanwhile.
    dir: OwnedFd,
    name: OsString,
    file: File,
    size: u64,
}

impl Log {
    fn open(at: ConsoleLog) -> io::Result<Self> {
        let dir = at.path.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(dir, flags, Mode::empty())?;
        let name = at.path.file_name().unwrap_or_default().to_os_string();
        let file = open_in(&dir, &name)?;
        let size = file.metadata()?.len();
        Ok(Self { at, dir, name, file, size })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.at.limit {
            let mut former = self.name.clone();
            former.push(".1");
            renameat(&self.dir, &self.name, &self.dir, &former)?;
            self.file = open_in(&self.dir, &self.name)?;
            self.size = 0;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

fn open_in(dir: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_part_is_kept() {
        let mut tail = Tail::default();
        tail.push(&vec![1; TAIL - 1]);
        tail.push(&[2, 3]);
        assert_eq!(tail.0.len(), TAIL);
        assert_eq!((tail.0.front(), tail.0.back()), (Some(&1), Some(&3)));
        tail.push(&vec![4; TAIL + 5]);
        assert_eq!(tail.0.len(), TAIL);
        assert!(tail.0.iter().all(|b| *b == 4));
    }

    #[test]
    fn a_full_log_becomes_the_former_one() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("console.log");
        let mut log = Log::open(ConsoleLog { path: path.clone(), limit: 8 })?;
        for part in [b"one.", b"two.", b"thr."] {
            log.write(part)?;
        }
        assert_eq!(std::fs::read(&path)?, b"thr.");
        assert_eq!(std::fs::read(dir.path().join("console.log.1"))?, b"one.two.");
        // Wherever its directory is by now.
        let moved = dir.path().with_extension("moved");
        std::fs::rename(dir.path(), &moved)?;
        log.write(b"four")?;
        log.write(b"five")?;
        let (now, before) =
            (std::fs::read(moved.join("console.log")), std::fs::read(moved.join("console.log.1")));
        std::fs::remove_dir_all(&moved)?;
        assert_eq!((now?, before?), (b"five".to_vec(), b"thr.four".to_vec()));
        Ok(())
    }

    #[test]
    fn a_console_is_read_to_its_end() -> Result<(), Box<dyn std::error::Error>> {
        let (mut guest, host) = UnixStream::pair()?;
        let (console, end) = Console::read(host, None)?;
        guest.write_all(b"hello")?;
        drop(guest);
        end.blocking_recv()?;
        assert_eq!(console.tail(), b"hello");
        Ok(())
    }
}
