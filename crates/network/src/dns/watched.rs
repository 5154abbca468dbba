//! A file of the host's that is read anew when it has changed.

use std::{
    cell::RefCell,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

/// A file of names or servers is smaller; of a larger one, the beginning counts.
const MAX_SIZE: u64 = 1 << 20;
/// How often at most it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// A file, and what it means.
#[derive(Debug)]
pub(super) struct Watched<T> {
    path: PathBuf,
    /// What its bytes mean. A file that is not there, or cannot be read, is as an empty one.
    parse: fn(&[u8]) -> T,
    last: RefCell<Option<Last<T>>>,
}

#[derive(Debug)]
struct Last<T> {
    looked: Instant,
    version: Option<Version>,
    value: Rc<T>,
}

/// What changes with the content: the file itself, its size, its time in seconds and nanoseconds.
type Version = (u64, u64, i64, i64);

impl<T> Watched<T> {
    pub(super) fn new(path: PathBuf, parse: fn(&[u8]) -> T) -> Self {
        Self { path, parse, last: RefCell::new(None) }
    }

    /// What is in the file now, or was a second ago.
    pub(super) fn get(&self) -> Rc<T> {
        let mut last = self.last.borrow_mut();
        if let Some(last) = last.as_ref().filter(|last| last.looked.elapsed() < INTERVAL) {
            return last.value.clone();
        }
        let version = fs::metadata(&self.path).ok().filter(Metadata::is_file).as_ref().map(version);
        let looked = Instant::now();
        if let Some(last) = last.as_mut().filter(|last| last.version == version) {
            last.looked = looked;
            return last.value.clone();
        }
        // What is written between the look and this is seen at the next look, as another version.
        let bytes = version.and_then(|_| read(&self.path).ok()).unwrap_or_default();
        let value = Rc::new((self.parse)(&bytes));
        *last = Some(Last { looked, version, value: value.clone() });
        value
    }
}

fn version(metadata: &Metadata) -> Version {
    (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SIZE).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == MAX_SIZE {
        // Half a line could be another address.
        let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        bytes.truncate(end);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(bytes: &[u8]) -> usize {
        bytes.len()
    }

    #[test]
    fn a_changed_file_is_read_anew_after_a_second() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let watched = Watched::new(path.clone(), length);
        assert_eq!(*watched.get(), 0);
        fs::write(&path, "one\n").unwrap();
        assert_eq!(*watched.get(), 0);
        watched.last.borrow_mut().as_mut().unwrap().looked -= INTERVAL;
        assert_eq!(*watched.get(), 4);
        fs::remove_file(&path).unwrap();
        watched.last.borrow_mut().as_mut().unwrap().looked -= INTERVAL;
        assert_eq!(*watched.get(), 0);
    }

    #[test]
    fn a_huge_file_ends_with_a_whole_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "1.2.3.4 name\n".repeat(100_000)).unwrap();
        let bytes = read(&path).unwrap();
        assert!(bytes.len() as u64 <= MAX_SIZE && bytes.ends_with(b"1.2.3.4 name"));
    }
}
