//! Reads a guest's console, which has no format: lines of bytes, the former file first, and further as it grows.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A line that is longer is cut into pieces.
const LINE: u64 = 16 << 10;

/// Reads a console's log.
pub(super) struct ConsoleReader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// Whether `file` is the one that was put aside.
    former: bool,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
    /// The last lines, if only those are wanted; they come first.
    last: VecDeque<Vec<u8>>,
}

impl ConsoleReader {
    /// Opens it; one that is not there yet is empty. `tail` leaves out all but so many lines at its end.
    pub(super) fn open(path: &Path, tail: Option<usize>) -> io::Result<Self> {
        let mut former = path.as_os_str().to_owned();
        former.push(".1");
        let aside = open(Path::new(&former))?;
        let path = path.to_path_buf();
        let mut reader =
            Self { former: aside.is_some(), file: aside, path, rest: Vec::new(), last: VecDeque::new() };
        if let Some(most) = tail {
            let mut last = VecDeque::new();
            while let Some(line) = reader.read()? {
                last.push_back(line);
                if last.len() > most {
                    last.pop_front();
                }
            }
            reader.last = last;
        }
        Ok(reader)
    }

    /// The next line, or `None` if no more has come by now. What has no end yet is a line too if it is `all` there will be.
    pub(super) fn next(&mut self, all: bool) -> io::Result<Option<Vec<u8>>> {
        if let Some(line) = self.last.pop_front() {
            return Ok(Some(line));
        }
        let line = self.read()?;
        let rest = || (all && !self.rest.is_empty()).then(|| std::mem::take(&mut self.rest));
        Ok(line.or_else(rest))
    }

    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(file) = &mut self.file else {
                self.file = open(&self.path)?;
                if self.file.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let room = LINE.saturating_sub(self.rest.len() as u64);
            let got = file.take(room).read_until(b'\n', &mut self.rest)?;
            if self.rest.ends_with(b"\n") || self.rest.len() as u64 >= LINE {
                let mut line = std::mem::take(&mut self.rest);
                while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                    line.pop();
                }
                return Ok(Some(line));
            }
            if got == 0 && !self.go_on()? {
                return Ok(None);
            }
        }
    }

    /// Goes on with the current file, if the one that is read is another.
    fn go_on(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        if !self.former {
            match fs::metadata(&self.path) {
                Ok(now) if now.ino() != file.get_ref().metadata()?.ino() => {}
                _ => return Ok(false),
            }
        }
        self.former = false;
        self.file = None;
        Ok(true)
    }
}

fn open(path: &Path) -> io::Result<Option<BufReader<File>>> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn lines(reader: &mut ConsoleReader, all: bool) -> Vec<String> {
        std::iter::from_fn(|| reader.next(all).unwrap())
            .map(|line| String::from_utf8(line).unwrap())
            .collect()
    }

    #[test]
    fn both_files_are_read_in_order_and_a_tail_reaches_into_the_former() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("console.log");
        assert_eq!(lines(&mut ConsoleReader::open(&path, None).unwrap(), true), [""; 0]);
        fs::write(scratch.path().join("console.log.1"), "a\r\nb\n").unwrap();
        fs::write(&path, "c\nhalf").unwrap();
        assert_eq!(lines(&mut ConsoleReader::open(&path, None).unwrap(), true), ["a", "b", "c", "half"]);
        let mut tail = ConsoleReader::open(&path, Some(2)).unwrap();
        assert_eq!(lines(&mut tail, false), ["b", "c"]);
        assert_eq!(lines(&mut tail, true), ["half"]);
    }

    #[test]
    fn what_comes_later_is_read_across_a_rotation() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("console.log");
        let mut reader = ConsoleReader::open(&path, Some(0)).unwrap();
        assert_eq!(lines(&mut reader, false), [""; 0]);
        let mut file = File::create(&path).unwrap();
        file.write_all(b"a\nbe").unwrap();
        assert_eq!(lines(&mut reader, false), ["a"]);
        file.write_all(b"gun\n").unwrap();
        assert_eq!(lines(&mut reader, false), ["begun"]);
        fs::rename(&path, scratch.path().join("console.log.1")).unwrap();
        file.write_all(b"late\n").unwrap();
        fs::write(&path, "new\n").unwrap();
        assert_eq!(lines(&mut reader, false), ["late", "new"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("console.log");
        fs::write(&path, vec![b'x'; 40_000]).unwrap();
        let mut reader = ConsoleReader::open(&path, None).unwrap();
        let lengths: Vec<usize> = lines(&mut reader, true).iter().map(String::len).collect();
        assert_eq!(lengths, [16_384, 16_384, 7232]);
    }
}
