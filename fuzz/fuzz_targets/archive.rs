//! Bytes as a tar that the agent unpacks: no panic, what is kept is bounded, and it means the same in pieces of any size.
#![no_main]

use std::sync::LazyLock;

use cellule_fuzz::mutate::mutate;
use cellule_fuzz::tar::{Entry, seal, tar};
use cellule_guest_agent::files::archive::{Archive, ArchiveEntry, ArchiveError, ArchiveKind, Receiver};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

static EXAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let small = tar(&[
        Entry::directory("a"),
        Entry::file("a/b", b"contents").with_xattr(),
        Entry::hard_link("c", "a/b"),
        Entry::symlink("d", "a"),
    ]);
    vec![small, tar(&[Entry::sparse("a", false), Entry::file("b", b"")])]
});

/// What was told, and what must hold of it.
#[derive(Debug, Default, PartialEq)]
struct Told {
    entries: Vec<ArchiveEntry>,
    contents: Vec<(u64, Vec<u8>)>,
    /// Of the file that is open: its size, and the end of what came.
    open: Option<(u64, u64)>,
}

impl Receiver for Told {
    type Error = ArchiveError;

    fn begin(&mut self, entry: ArchiveEntry) -> Result<(), ArchiveError> {
        assert!(self.open.is_none(), "a file is complete before the next entry");
        assert!(entry.mode <= 0o7777);
        if let ArchiveKind::File(size) = entry.kind {
            self.open = Some((size, 0));
            self.contents.push((0, Vec::new()));
        }
        self.entries.push(entry);
        Ok(())
    }

    fn contents(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ArchiveError> {
        let (size, end) = self.open.as_mut().expect("contents are a file's");
        assert!(offset >= *end && !bytes.is_empty(), "pieces follow each other");
        let before = *end;
        *end = offset.checked_add(bytes.len() as u64).expect("an offset is one");
        assert!(*end <= *size, "contents are within the size");
        match self.contents.last_mut() {
            Some((_, contents)) if offset == before && !contents.is_empty() => contents.extend(bytes),
            _ => self.contents.push((offset, bytes.to_vec())),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        assert!(self.open.take().is_some(), "only a file ends");
        Ok(())
    }
}

fn read(tar: &[u8], piece: usize) -> (Told, Result<(), ArchiveError>) {
    let (mut archive, mut told) = (Archive::default(), Told::default());
    let fed = tar.chunks(piece).try_for_each(|piece| archive.feed(piece, &mut told));
    let result = fed.and_then(|()| archive.finish());
    (told, result)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, bytes.len().max(1));
    for piece in [1, 100, 512, 777] {
        assert_eq!(read(bytes, piece), whole, "in pieces of {piece}");
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed, &EXAMPLES, seal)
});
