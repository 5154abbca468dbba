//! The guest's memory in QEMU's process: a private mapping of a base file, so that the kernel itself keeps apart what the
//! guest has changed.
//!
//! A page that was written since is anonymous memory in place of the file's page, which `/proc/PID/pagemap` tells; and
//! `/proc/PID/mem` reads and writes it, without a word to QEMU. Both are allowed to the process that started it.
//!
//! QEMU is only half trusted. Whatever its process says of its memory, no more is read and written than the guest's
//! memory has.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::num::NonZero;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{FallocateFlags, fallocate};

use super::process::Process;
use crate::MemorySize;
use crate::saved::{PAGE, PageRange, Pages};

/// How much is copied at a time.
const PIECE: usize = 256 << 10;
/// How many threads copy at once: the file takes no more.
const MAX_COPIERS: usize = 4;
/// Entries of the page map that are read at a time.
const ENTRIES: usize = 16 << 10;
/// The longest map of a process that is read: QEMU has some 200 lines.
const MAPS_MAX: usize = 64 << 10;

// Of an entry in `/proc/PID/pagemap`.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_A_FILE: u64 = 1 << 61;

/// Where a guest's memory is. Blocking: not for the thread of a runtime.
#[derive(Debug)]
pub(super) struct GuestMemory {
    address: u64,
    pages: u32,
    memory: File,
    map: File,
}

impl GuestMemory {
    /// Finds the mapping of `base` in the process.
    pub(super) fn find(process: &Process, base: &File, size: MemorySize) -> io::Result<Self> {
        let of = |name: &str| format!("/proc/{}/{name}", process.pid().as_raw_nonzero());
        let maps = BufReader::new(File::open(of("maps"))?);
        let map = File::open(of("pagemap"))?;
        let memory = File::options().read(true).write(true).open(of("mem"))?;
        // These files are the process's for ever, if its number was still its own when they were opened.
        if !process.is_alive() {
            return Err(io::Error::other("QEMU has ended"));
        }
        let base = base.metadata()?;
        let address = address_in(maps, (base.dev(), base.ino()), size.bytes())?
            .ok_or_else(|| io::Error::other("QEMU has not mapped the guest's memory"))?;
        let pages = u32::try_from(size.bytes() / PAGE).map_err(io::Error::other)?;
        Ok(Self { address, pages, memory, map })
    }

    /// The pages that were written since they were mapped.
    pub(super) fn changed(&self) -> io::Result<Vec<PageRange>> {
        let first = self.address / PAGE;
        let mut ranges = Ranges::default();
        let mut entries = vec![0; ENTRIES * 8];
        let mut page = 0;
        while page < self.pages {
            let count = (self.pages - page).min(u32::try_from(ENTRIES).unwrap_or(u32::MAX));
            let part = &mut entries[..count as usize * 8];
            self.map.read_exact_at(part, (first + u64::from(page)) * 8)?;
            for (at, entry) in (page..).zip(part.as_chunks::<8>().0) {
                let entry = u64::from_ne_bytes(*entry);
                if entry & (PRESENT | SWAPPED) != 0 && entry & OF_A_FILE == 0 {
                    ranges.push(at);
                }
            }
            page += count;
        }
        Ok(ranges.0)
    }

    /// Copies pages to their places in `file`, and makes holes of those that are all zero.
    ///
    /// The guest stands still for it, so that its processors are free to help: most of the time goes into finding each
    /// page of another process.
    pub(super) fn copy_out(&self, ranges: &[PageRange], file: &File) -> io::Result<()> {
        let target = Sparse { file, empty: file.metadata()?.blocks() == 0 };
        let all: Vec<(u64, usize)> = ranges.iter().flat_map(|range| pieces(*range)).collect();
        let next = AtomicUsize::new(0);
        let copy = || {
            let mut buffer = vec![0; PIECE];
            while let Some((offset, length)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                let piece = &mut buffer[..*length];
                self.memory.read_exact_at(piece, self.address + offset)?;
                target.write(piece, *offset)?;
            }
            Ok(())
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_COPIERS);
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(copy)).collect();
            let ours = copy();
            let joined = others.into_iter().map(|other| {
                other.join().unwrap_or_else(|_| Err(io::Error::other("a copier of memory is gone")))
            });
            joined.fold(ours, io::Result::and)
        })
    }

    /// Puts pages in their places.
    pub(super) fn copy_in(&self, pages: &Pages) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        let end = u64::from(self.pages) * PAGE;
        for range in pages.ranges() {
            for (offset, length) in pieces(*range) {
                if offset + length as u64 > end {
                    return Err(io::Error::other("a page that the guest's memory does not have"));
                }
                let piece = &mut buffer[..length];
                read_padded(pages.file(), piece, offset)?;
                self.memory.write_all_at(piece, self.address + offset)?;
            }
        }
        Ok(())
    }
}

/// What of some pages is not among others. Both are in their order.
pub(super) fn without(some: &[PageRange], others: &[PageRange]) -> Vec<PageRange> {
    let mut left = Vec::new();
    let mut others = others.iter().copied().peekable();
    for range in some {
        let (mut first, end) = (range.first, range.first + range.count);
        while first < end {
            while others.next_if(|other| other.first + other.count <= first).is_some() {}
            let next = others.peek().copied().filter(|other| other.first < end);
            let (until, behind) = next.map_or((end, end), |other| (other.first, other.first + other.count));
            if until > first {
                left.push(PageRange { first, count: until - first });
            }
            first = behind.max(first);
        }
    }
    left
}

/// Does what blocks on a thread of its own.
pub(super) async fn apart<T: Send + 'static>(
    what: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(what).await.map_err(io::Error::other)?
}

/// Where in a process's memory, of which `maps` is the list, a file is mapped from its beginning and `size` bytes long.
/// The mapping may be in several parts.
fn address_in(maps: impl BufRead, file: (u64, u64), size: u64) -> io::Result<Option<u64>> {
    let mut start = None;
    let mut mapped = 0;
    for line in maps.lines().take(MAPS_MAX) {
        let line = line?;
        let Some(part) = Mapping::parse(&line) else { continue };
        if part.file != file || part.offset != mapped {
            continue;
        }
        let begins = *start.get_or_insert(part.start);
        if part.start != begins + mapped {
            return Ok(None);
        }
        mapped += part.length;
        if mapped >= size {
            return Ok(Some(begins));
        }
    }
    Ok(None)
}

/// A line of `/proc/PID/maps`, as far as it matters.
struct Mapping {
    start: u64,
    length: u64,
    offset: u64,
    /// The device and the inode.
    file: (u64, u64),
}

impl Mapping {
    /// `7f0000000000-7f0010000000 rw-p 00000000 fe:00 1234    /path`
    fn parse(line: &str) -> Option<Self> {
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (start, end) = (hex(start)?, hex(end)?);
        let offset = hex(words.nth(1)?)?;
        let (major, minor) = words.next()?.split_once(':')?;
        let (major, minor) = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        let inode = words.next()?.parse().ok()?;
        let device = rustix::fs::makedev(major, minor);
        Some(Self { start, length: end.checked_sub(start)?, offset, file: (device, inode) })
    }
}

/// The parts of a range, in bytes, each no longer than is copied at a time.
fn pieces(range: PageRange) -> impl Iterator<Item = (u64, usize)> {
    let end = range.offset() + range.bytes();
    (range.offset()..end).step_by(PIECE).map(move |offset| {
        let length = usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE);
        (offset, length)
    })
}

/// A file that has holes where pages are all zero.
struct Sparse<'a> {
    file: &'a File,
    /// Whether it has nothing but holes at first.
    empty: bool,
}

impl Sparse<'_> {
    /// Writes pages.
    fn write(&self, pages: &[u8], offset: u64) -> io::Result<()> {
        const ZERO: [u8; 4096] = [0; 4096];
        const { assert!(ZERO.len() as u64 == PAGE) };
        let mut done = 0;
        while done < pages.len() {
            let alike = |page: &&[u8]| (**page == ZERO) == (pages[done..done + ZERO.len()] == ZERO);
            let count = pages[done..].chunks(ZERO.len()).take_while(alike).count();
            let run = &pages[done..done + count * ZERO.len()];
            let place = offset + done as u64;
            if run[..ZERO.len()] != ZERO {
                self.file.write_all_at(run, place)?;
            } else if !self.empty {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(self.file, flags, place, run.len() as u64)?;
            }
            done += run.len();
        }
        Ok(())
    }
}

/// Reads as much as there is, and zeros behind the end of the file.
fn read_padded(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    into[filled..].fill(0);
    Ok(())
}

/// Ranges in the making, from pages in their order.
#[derive(Debug, Default)]
struct Ranges(Vec<PageRange>);

impl Ranges {
    fn push(&mut self, page: u32) {
        match self.0.last_mut() {
            Some(last) if last.first + last.count == page => last.count += 1,
            _ => self.0.push(PageRange { first: page, count: 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c0100000 r-xp 00000000 fe:00 77                         /usr/bin/qemu
7f0000000000-7f0000100000 rw-p 00000000 00:01 42                         /memfd:x (deleted)
7f0000100000-7f0000400000 rw-p 00100000 00:01 42                         /memfd:x (deleted)
7f0000400000-7f0000500000 rw-p 00000000 00:00 0
";

    #[test]
    fn a_mapping_in_parts_is_found_and_a_shorter_one_is_not() {
        let of = |minor, inode, size| {
            address_in(MAPS.as_bytes(), (rustix::fs::makedev(0, minor), inode), size).expect("no error")
        };
        assert_eq!(of(1, 42, 0x40_0000), Some(0x7f00_0000_0000));
        assert_eq!(of(1, 42, 0x40_1000), None);
        assert_eq!(of(2, 42, 0x40_0000), None);
    }

    #[test]
    fn neighbours_are_one_range() {
        let mut ranges = Ranges::default();
        for page in [3, 4, 5, 9, 11, 12] {
            ranges.push(page);
        }
        let range = |first, count| PageRange { first, count };
        assert_eq!(ranges.0, [range(3, 3), range(9, 1), range(11, 2)]);
    }

    #[test]
    fn pages_that_are_not_among_others_are_left() {
        let range = |(first, count)| PageRange { first, count };
        let ranges = |pairs: &[(u32, u32)]| pairs.iter().copied().map(range).collect::<Vec<_>>();
        let some = ranges(&[(0, 4), (6, 4), (20, 2)]);
        for (others, left) in [
            (&[][..], &[(0, 4), (6, 4), (20, 2)][..]),
            (&[(0, 30)], &[]),
            (&[(1, 1), (3, 4), (9, 11)], &[(0, 1), (2, 1), (7, 2), (20, 2)]),
            (&[(4, 2), (10, 10), (22, 1)], &[(0, 4), (6, 4), (20, 2)]),
        ] {
            assert_eq!(without(&some, &ranges(others)), ranges(left), "{others:?}");
        }
    }

    #[test]
    fn zero_pages_become_holes_in_a_file_that_had_something_there() {
        let file = tempfile::tempfile().expect("a temporary file");
        file.write_all_at(&vec![1; 8 * 4096], 0).expect("a write");
        let mut pages = vec![2; 4 * 4096];
        pages[4096..3 * 4096].fill(0);
        Sparse { file: &file, empty: false }.write(&pages, 4096).expect("a write");
        let mut all = vec![9; 8 * 4096];
        file.read_exact_at(&mut all, 0).expect("a read");
        let firsts: Vec<u8> = all.chunks(4096).map(|page| page[0]).collect();
        assert_eq!(firsts, [1, 2, 0, 0, 2, 1, 1, 1]);
    }

    #[test]
    fn a_range_is_copied_in_pieces_to_its_last_page() {
        let count = u32::try_from(PIECE as u64 / PAGE).expect("a small piece") + 1;
        let all: Vec<_> = pieces(PageRange { first: 2, count }).collect();
        assert_eq!(all, [(8192, PIECE), (8192 + PIECE as u64, 4096)]);
    }
}
