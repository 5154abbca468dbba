//! Reads a log: from its beginning or its last lines on, across its rotation, and further as it grows.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::format::{self, LINE};

/// How often to look for more. Cheap, and sooner than anyone who watches would notice.
const LOOK: Duration = Duration::from_millis(50);
/// What is read at a time when a log is read from its end.
const BLOCK: u64 = 64 << 10;

/// Where to begin in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStart {
    /// At the oldest line that is kept.
    Oldest,
    /// So many lines before its end; a line that was cut into pieces counts once.
    Last(u64),
    /// At its end.
    End,
}

/// A line of a log, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// When it came: wall clock, nanoseconds since 1970.
    pub time_ns: i64,
    /// Whether it came on standard error.
    pub stderr: bool,
    /// Whether the line goes on with the next record of the same stream.
    pub partial: bool,
    /// What came, its end of line left out.
    pub bytes: Vec<u8>,
}

/// Reads a log.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    /// What is read now, and what after it. Empty until there is a log.
    files: Vec<BufReader<File>>,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// Whether the line is too long to be one, and is passed over.
    skipping: bool,
    /// Lines of an earlier time are passed over.
    since: Option<String>,
}

impl LogReader {
    /// Opens the log of this path; one that is not there yet is empty. Of its lines, those before `since_ns` are left out.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &Path, start: LogStart, since_ns: Option<i64>) -> io::Result<Self> {
        // This one first: should it be put aside meanwhile, it is found again as the former one, and known by its number.
        let current = open(path)?;
        let former = open(&former(path))?;
        let mut files: Vec<File> = match (former, current) {
            (Some(former), Some(current)) if inode(&former)? == inode(&current)? => vec![current],
            (former, current) => former.into_iter().chain(current).collect(),
        };
        match start {
            LogStart::Oldest => {}
            LogStart::End => seek_last(&mut files, 0)?,
            LogStart::Last(lines) => seek_last(&mut files, lines)?,
        }
        Ok(Self {
            path: path.to_path_buf(),
            files: files.into_iter().map(BufReader::new).collect(),
            line: Vec::new(),
            skipping: false,
            since: since_ns.map(format::time_of),
        })
    }

    /// The next record, or `None` if no more has been written by now: what comes later is read by later calls. What is
    /// no line of a log is passed over.
    ///
    /// # Errors
    /// It cannot be read.
    #[expect(clippy::should_implement_trait, reason = "its end is not one: more may come")]
    pub fn next(&mut self) -> io::Result<Option<LogRecord>> {
        while self.read_line()? {
            let mut line = std::mem::take(&mut self.line);
            line.pop();
            let Some(found) = format::read(&line) else { continue };
            if self.since.as_ref().is_some_and(|since| found.time < since.as_str()) {
                continue;
            }
            let Some(time_ns) = format::nanoseconds(found.time) else { continue };
            let (stderr, partial) = (found.stderr, found.partial);
            let bytes = found.bytes.to_vec();
            return Ok(Some(LogRecord { time_ns, stderr, partial, bytes }));
        }
        Ok(None)
    }

    /// Waits until there may be more. Between two calls, [`next`](Self::next) is to be called until it gives `None`.
    pub async fn wait(&self) {
        tokio::time::sleep(LOOK).await;
    }

    /// Reads a whole line into `line`; `false` if there is none yet.
    fn read_line(&mut self) -> io::Result<bool> {
        loop {
            let Some(file) = self.files.first_mut() else {
                match open(&self.path)? {
                    Some(file) => self.files.push(BufReader::new(file)),
                    None => return Ok(false),
                }
                continue;
            };
            let room = (LINE + 1).saturating_sub(self.line.len()) as u64;
            let got = file.take(room).read_until(b'\n', &mut self.line)?;
            if self.line.last() == Some(&b'\n') {
                if std::mem::take(&mut self.skipping) {
                    self.line.clear();
                    continue;
                }
                return Ok(true);
            }
            if self.line.len() > LINE {
                self.skipping = true;
                self.line.clear();
            } else if got == 0 && !self.go_on()? {
                return Ok(false);
            }
        }
    }

    /// Goes on with the next file, once this one has come to its end.
    fn go_on(&mut self) -> io::Result<bool> {
        if self.files.len() == 1 {
            let file = self.files[0].get_ref();
            let Ok(now) = fs::metadata(&self.path) else { return Ok(false) };
            if now.ino() == inode(file)? {
                return Ok(false);
            }
            // It was put aside, after all that came into it: nothing more will.
            if file.metadata()?.len() > self.files[0].stream_position()? {
                return Ok(true);
            }
            self.files.extend(open(&self.path)?.map(BufReader::new));
        }
        if self.files.len() > 1 {
            self.files.remove(0);
        }
        // What has no end here never gets one.
        self.line.clear();
        self.skipping = false;
        Ok(!self.files.is_empty())
    }
}

fn former(path: &Path) -> PathBuf {
    let mut former = path.to_path_buf().into_os_string();
    former.push(".1");
    PathBuf::from(former)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

/// Leaves the files, the oldest first, at the beginning of the last so many lines.
fn seek_last(files: &mut Vec<File>, lines: u64) -> io::Result<()> {
    let mut wanted = Wanted { lines, seen: 0 };
    let mut first = 0;
    for (at, file) in files.iter_mut().enumerate().rev() {
        let begin = wanted.begin_in(file)?;
        file.seek(SeekFrom::Start(begin.unwrap_or(0)))?;
        if begin.is_some() {
            first = at;
            break;
        }
    }
    files.drain(..first);
    Ok(())
}

/// Counts lines from the end of a log.
struct Wanted {
    lines: u64,
    seen: u64,
}

impl Wanted {
    /// Where the wanted lines begin in this file; `None` if some of them are before it.
    fn begin_in(&mut self, file: &mut File) -> io::Result<Option<u64>> {
        // The bytes from `start` on that were not looked at yet.
        let mut start = file.metadata()?.len();
        let mut window: Vec<u8> = Vec::new();
        loop {
            let before = window.len().saturating_sub(1);
            let line = match window[..before].iter().rposition(|byte| *byte == b'\n') {
                Some(end) => end + 1,
                None if start > 0 && window.len() < 4 * LINE => {
                    let block = BLOCK.min(start);
                    start -= block;
                    let mut more = Vec::new();
                    file.seek(SeekFrom::Start(start))?;
                    file.take(block).read_to_end(&mut more)?;
                    more.append(&mut window);
                    window = more;
                    continue;
                }
                None => 0,
            };
            if window.is_empty() {
                return Ok(None);
            }
            if self.is_one_more(&window[line..]) {
                return Ok(Some(start + window.len() as u64));
            }
            window.truncate(line);
            if window.is_empty() && start == 0 {
                return Ok(None);
            }
        }
    }

    /// Counts a line, and tells whether it is one more than wanted.
    fn is_one_more(&mut self, line: &[u8]) -> bool {
        let ends = line.strip_suffix(b"\n").and_then(format::read).is_some_and(|line| !line.partial);
        // Pieces belong to the line that ends behind them, or to one that has no end yet.
        if ends || self.seen == 0 {
            self.seen += 1;
        }
        self.seen > self.lines
    }
}
