//! Writes a log, bounded in size, and goes on whatever the disk does.
//!
//! ```text
//!   writing ──▶ a write fails ──▶ losing: what comes is counted, each write tries the disk again
//!      ▲                            │
//!      └── a note of how much ◀─────┘ the disk takes it
//! ```

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::format::{self, PIECE};

/// How large a log may become before it is put aside.
const FULL: u64 = 16 << 20;
/// What is gathered before it is written.
const GATHER: usize = 256 << 10;

/// Writes a log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    full: u64,
    /// `None` while it cannot be opened.
    file: Option<File>,
    size: u64,
    /// What came of a line whose end has not, of standard output and error.
    unfinished: [Vec<u8>; 2],
    gathered: Vec<u8>,
    /// Bytes of lines that were put aside twice, and so are gone.
    rotated_away: u64,
    /// Bytes of lines that the disk did not take, since the last that it took.
    lost: u64,
}

impl LogWriter {
    /// Goes on with the log of this path.
    pub(crate) fn new(path: &Path) -> Self {
        Self::with_limit(path, FULL)
    }

    pub(crate) fn with_limit(path: &Path, full: u64) -> Self {
        Self {
            path: path.to_path_buf(),
            full,
            file: None,
            size: 0,
            unfinished: [Vec::new(), Vec::new()],
            gathered: Vec::new(),
            rotated_away: 0,
            lost: 0,
        }
    }

    /// Adds what came at this time. The beginning of a line waits for its end.
    pub(crate) fn append(&mut self, stderr: bool, bytes: &[u8], at: SystemTime) {
        let time = format::time(at);
        let mut unfinished = std::mem::take(&mut self.unfinished[usize::from(stderr)]);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            // A whole line is copied once, to where it is written from.
            while unfinished.len() + text.len() > PIECE {
                let (now, later) = text.split_at(PIECE - unfinished.len());
                if unfinished.is_empty() {
                    format::write(&mut self.gathered, &time, stderr, true, now);
                } else {
                    unfinished.extend_from_slice(now);
                    format::write(&mut self.gathered, &time, stderr, true, &unfinished);
                    unfinished.clear();
                }
                text = later;
            }
            if !ended {
                unfinished.extend_from_slice(text);
            } else if unfinished.is_empty() {
                format::write(&mut self.gathered, &time, stderr, false, text);
            } else {
                unfinished.extend_from_slice(text);
                format::write(&mut self.gathered, &time, stderr, false, &unfinished);
                unfinished.clear();
            }
            if self.gathered.len() >= GATHER {
                self.flush();
            }
        }
        self.unfinished[usize::from(stderr)] = unfinished;
        self.flush();
    }

    /// Writes what came of lines that will never end.
    pub(crate) fn finish(&mut self, at: SystemTime) {
        let time = format::time(at);
        for (stderr, text) in [false, true].into_iter().zip(std::mem::take(&mut self.unfinished)) {
            if !text.is_empty() {
                format::write(&mut self.gathered, &time, stderr, true, &text);
            }
        }
        self.flush();
    }

    /// How many bytes of the log are gone, since it was put aside twice.
    pub(crate) fn rotated_away(&self) -> u64 {
        self.rotated_away
    }

    fn flush(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let gathered = std::mem::take(&mut self.gathered);
        let was_losing = self.lost > 0;
        if was_losing
            && self.note(&format!("[cellule: the disk did not take {} bytes of this log]", self.lost)).is_ok()
        {
            self.lost = 0;
        }
        if self.lost > 0 || self.write(&gathered).is_err() {
            self.lost += gathered.len() as u64;
            if !was_losing {
                // There is often room for so little.
                _ = self.note("[cellule: the disk does not take this log any more: what follows is lost]");
            }
        }
        self.gathered = gathered;
        self.gathered.clear();
        self.gathered.shrink_to(GATHER);
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        let mut line = Vec::new();
        format::write(&mut line, &format::time(SystemTime::now()), true, false, text.as_bytes());
        self.write(&line)
    }

    /// Writes whole lines, or nothing.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.file.is_some() && self.size > 0 && self.size + lines.len() as u64 > self.full {
            self.put_aside()?;
        }
        if self.file.is_none() {
            let file = File::options().append(true).create(true).mode(0o600).open(&self.path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        match file.write_all(lines) {
            Ok(()) => {
                self.size += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A part of it may be there, and its last line then has no end.
                _ = file.set_len(self.size);
                Err(error)
            }
        }
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let mut former = self.path.clone().into_os_string();
        former.push(".1");
        let former = PathBuf::from(former);
        self.rotated_away += fs::metadata(&former).map_or(0, |found| found.len());
        fs::rename(&self.path, &former)?;
        self.file = None;
        Ok(())
    }
}
