//! What happened to all sandboxes of a home, as lines of JSON. Owns the format of `events.jsonl`.
//!
//! Each event is one write at the end of the file, smaller than a page, so that lines of different processes never mix.
//! A full file becomes `events.jsonl.1`, in place of the one before. A journal that cannot be written hurts nobody.

mod follow;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

pub use self::follow::Follower;
use crate::name::{SandboxId, SandboxName};
use crate::record::now_ns;

const FILE: &str = "events.jsonl";
const FORMER: &str = "events.jsonl.1";
/// How large the file may become.
const FULL: u64 = 1 << 20;
/// How long a line may be.
pub(crate) const LINE: usize = 4095;
/// What of an attribute is kept.
const ATTRIBUTE: usize = 512;

/// Something that happened to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When: wall clock, nanoseconds since 1970.
    pub time_ns: i64,
    /// To which sandbox.
    pub id: SandboxId,
    /// The name that it had.
    pub name: Option<SandboxName>,
    /// The image that it was made from.
    pub image: String,
    /// What.
    pub action: Action,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// What can happen to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was made.
    Create,
    /// It runs: its main program, or its guest where it has none.
    Start,
    /// It ended.
    Die,
    /// It was asked to stop, and has ended.
    Stop,
    /// Its main program was sent a signal.
    Kill,
    /// Its guest stands still.
    Pause,
    /// Its guest goes on.
    Unpause,
    /// It was saved, as a snapshot or for forks of it.
    Save,
    /// It was removed.
    Destroy,
    /// It has another name.
    Rename,
    /// The kernel killed a process of its main program for want of memory.
    Oom,
}

impl Action {
    /// All there are.
    pub const ALL: [Self; 11] = [
        Self::Create,
        Self::Start,
        Self::Die,
        Self::Stop,
        Self::Kill,
        Self::Pause,
        Self::Unpause,
        Self::Save,
        Self::Destroy,
        Self::Rename,
        Self::Oom,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Die => "die",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Save => "save",
            Self::Destroy => "destroy",
            Self::Rename => "rename",
            Self::Oom => "oom",
        }
    }
}

/// The journal of a home.
#[derive(Debug, Clone)]
pub struct Journal {
    dir: PathBuf,
    full: u64,
}

impl Journal {
    pub(crate) fn at(home: &Path) -> Self {
        Self { dir: home.to_path_buf(), full: FULL }
    }

    pub(crate) fn append<'a>(
        &self,
        id: &SandboxId,
        name: Option<&SandboxName>,
        image: &str,
        action: Action,
        attributes: impl IntoIterator<Item = (&'a str, String)>,
    ) {
        let cut = |text: &str| text.chars().take(ATTRIBUTE).collect::<String>();
        let event = Event {
            time_ns: now_ns(),
            id: id.clone(),
            name: name.cloned(),
            image: cut(image),
            action,
            attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), cut(&value))).collect(),
        };
        // It is for those who watch; nothing depends on it.
        _ = self.write(event);
    }

    fn write(&self, mut event: Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(&event)?;
        if line.len() >= LINE {
            // Words that grow when they are escaped.
            event.attributes.clear();
            event.image.clear();
            line = serde_json::to_vec(&event)?;
        }
        line.push(b'\n');
        let path = self.dir.join(FILE);
        let file = File::options().append(true).create(true).mode(0o600).open(&path)?;
        self.rotate(&file)?;
        let mut file = File::options().append(true).create(true).mode(0o600).open(&path)?;
        // One write, so that it is whole or not there.
        _ = file.write(&line)?;
        Ok(())
    }

    /// Puts a full file aside, unless somebody else is just doing so.
    fn rotate(&self, file: &File) -> io::Result<()> {
        if file.metadata()?.len() < self.full
            || flock(file, FlockOperation::NonBlockingLockExclusive).is_err()
        {
            return Ok(());
        }
        let path = self.dir.join(FILE);
        if fs::metadata(&path)?.ino() == file.metadata()?.ino() {
            fs::rename(&path, self.dir.join(FORMER))?;
        }
        Ok(())
    }

    /// What is still known of what happened since then, the oldest first. Lines that are no events are left out.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn read_since(&self, time_ns: i64) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        for name in [FORMER, FILE] {
            match File::open(self.dir.join(name)) {
                Ok(file) => {
                    // Bounded, should somebody else write to it.
                    let mut lines = Lines::new(file.take(4 * self.full));
                    while let Some(line) = lines.next()? {
                        events.extend(parse(&line).filter(|event| event.time_ns >= time_ns));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        events.sort_by_key(|event| event.time_ns);
        Ok(events)
    }

    /// Follows what happens from now on.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn follow(&self) -> io::Result<Follower> {
        Follower::begin(self.dir.join(FILE))
    }
}

/// An event of a line, if it is one.
pub(crate) fn parse(line: &[u8]) -> Option<Event> {
    serde_json::from_slice(line).ok()
}

/// The lines of a reader, those that are too long left out.
struct Lines<R>(BufReader<R>);

impl<R: io::Read> Lines<R> {
    fn new(reader: R) -> Self {
        Self(BufReader::new(reader))
    }

    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let mut line = Vec::new();
            let got = (&mut self.0).take(LINE as u64 + 1).read_until(b'\n', &mut line)?;
            if got == 0 {
                return Ok(None);
            }
            if line.last() == Some(&b'\n') {
                return Ok(Some(line));
            }
            if got <= LINE {
                // The beginning of one that is being written, or was cut.
                return Ok(None);
            }
            self.0.skip_until(b'\n')?;
        }
    }
}

#[cfg(test)]
mod tests;
