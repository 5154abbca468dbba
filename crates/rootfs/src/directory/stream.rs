//! Reads a directory's tar while a thread writes it, a few pieces ahead.

use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::tar_from_directory;
use crate::error::Error;
use crate::source::LayerSource;

const PIECE: usize = 64 << 10;
const PIECES_AHEAD: usize = 4;

/// A directory of the host as a layer: reading it gives what [`tar_from_directory`] writes.
#[derive(Debug, Clone)]
pub struct DirectoryLayer {
    path: PathBuf,
}

impl DirectoryLayer {
    /// The contents of the directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl LayerSource for DirectoryLayer {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let (sender, pieces) = sync_channel(PIECES_AHEAD);
        let path = self.path.clone();
        let thread = std::thread::Builder::new()
            .name("rootfs-tar".into())
            .spawn(move || tar_from_directory(&path, BufWriter::with_capacity(PIECE, Pieces(sender))))?;
        Ok(Box::new(TarReader { pieces, piece: io::Cursor::default(), thread: Some(thread) }))
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

/// The writing end. A pipe would do, but could raise SIGPIPE in a program that doesn't ignore it.
struct Pieces(SyncSender<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reading end. Dropped early, it ends the thread at its next write.
struct TarReader {
    pieces: Receiver<Vec<u8>>,
    piece: io::Cursor<Vec<u8>>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Read for TarReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.pieces.recv() {
                Ok(piece) => self.piece = io::Cursor::new(piece),
                // The thread is done, or it failed and that must not look like the end.
                Err(_) => return self.thread.take().map_or(Ok(0), |thread| outcome(thread).map(|()| 0)),
            }
        }
    }
}

fn outcome(thread: JoinHandle<Result<(), Error>>) -> io::Result<()> {
    match thread.join() {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("the thread that reads the directory panicked")),
    }
}
