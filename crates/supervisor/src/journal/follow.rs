//! Follows the journal as it grows, across its rotation.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Event, LINE, parse};

/// How often to look. Cheap, and sooner than anyone who watches would notice.
const LOOK: Duration = Duration::from_millis(100);
/// What is read at a time.
const CHUNK: u64 = 64 << 10;

/// Follows the journal. Made by [`Journal::follow`](super::Journal::follow).
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    /// `None` until there is a journal.
    file: Option<File>,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
    events: VecDeque<Event>,
}

impl Follower {
    pub(super) fn begin(path: PathBuf) -> io::Result<Self> {
        let mut file = open(&path)?;
        if let Some(file) = &mut file {
            file.seek(SeekFrom::End(0))?;
        }
        Ok(Self { path, file, rest: Vec::new(), events: VecDeque::new() })
    }

    /// Waits for the next event. Cancelling it loses nothing.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if !self.advance()? {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Reads what has come; `false` if nothing has.
    fn advance(&mut self) -> io::Result<bool> {
        if let Some(file) = &mut self.file {
            let mut bytes = Vec::new();
            file.take(CHUNK).read_to_end(&mut bytes)?;
            if !bytes.is_empty() {
                self.take(&bytes);
                return Ok(true);
            }
            if !is_former(file, &self.path) {
                return Ok(false);
            }
        }
        // The one that was followed has come to its end, or there was none.
        self.file = open(&self.path)?;
        self.rest.clear();
        Ok(false)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.events.extend(parse(&line));
        }
        if self.rest.len() > LINE {
            self.rest.clear();
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether another file is in the place of this one.
fn is_former(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(now)) => ours.ino() != now.ino(),
        _ => false,
    }
}
