//! A machine as it was at one moment: what [`Machine::save`](crate::Machine::save) gives and
//! [`Start::Restore`](crate::Start::Restore) takes.
//!
//! ```text
//!   memory   = base: a file as long as the guest's memory, which any number of machines share and none changes
//!            + changes: the pages that differ from it, at their own places in a second file, with holes between
//!   devices  = the engine's own words for the processors' and devices' state
//!   where    = the engine and the host that can go on with it
//! ```
//! Whoever saves a machine that was itself restored gets its changes against the same base: so a copy of a copy of a copy
//! is as near to its base as the first.

use std::fmt;
use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};

use crate::MemorySize;

/// Bytes of a page, the unit in which memory is compared.
pub const PAGE: u64 = 4096;
/// The most that an engine's own state can have. QEMU's has some 9 KB.
pub const DEVICES_MAX: usize = 1 << 20;
/// How far two measurements of one counter's frequency may lie apart, as its parts.
const FREQUENCY_TOLERANCE: u64 = 2000;

/// A machine as it was at one moment.
#[derive(Debug)]
pub struct SavedMachine {
    /// As long as the guest's memory. It must not be changed for as long as any machine that was restored from it runs.
    pub base: File,
    /// What differs from it.
    pub changes: Pages,
    /// The state of processors and devices; at most [`DEVICES_MAX`] bytes.
    pub devices: Vec<u8>,
    /// Who can go on with it.
    pub origin: Origin,
}

impl SavedMachine {
    /// One whose memory is all in one file.
    ///
    /// # Errors
    /// The file's descriptor cannot be copied.
    pub fn whole(memory: File, devices: Vec<u8>, origin: Origin) -> io::Result<Self> {
        let changes = Pages { file: memory.try_clone()?, ranges: Vec::new() };
        Ok(Self { base: memory, changes, devices, origin })
    }
}

/// Some of a guest's pages: a file that has each of them at its own place in memory.
#[derive(Debug)]
pub struct Pages {
    file: File,
    ranges: Vec<PageRange>,
}

/// Pages that lie one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRange {
    /// The first, counted from the beginning of the memory.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Ranges that are not those of a guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ranges of saved pages are out of order or out of bounds")]
pub struct InvalidPages;

impl Pages {
    /// Pages of a guest with this much memory. The ranges must be in order and apart; what of them `file` does not have is
    /// zero.
    ///
    /// # Errors
    /// The ranges are none of such a memory.
    pub fn new(file: File, ranges: Vec<PageRange>, memory: MemorySize) -> Result<Self, InvalidPages> {
        let mut free = 0;
        for range in &ranges {
            if range.count == 0 || range.first < free {
                return Err(InvalidPages);
            }
            free = range.first.checked_add(range.count).ok_or(InvalidPages)?;
        }
        if u64::from(free) * PAGE > memory.bytes() {
            return Err(InvalidPages);
        }
        Ok(Self { file, ranges })
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where in it pages are.
    pub fn ranges(&self) -> &[PageRange] {
        &self.ranges
    }

    /// How many bytes all pages have.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| u64::from(range.count) * PAGE).sum()
    }
}

impl PageRange {
    /// Where it begins, in bytes.
    pub(crate) fn offset(self) -> u64 {
        u64::from(self.first) * PAGE
    }

    /// How long it is, in bytes.
    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.count) * PAGE
    }
}

/// What made a saved machine, as far as another can only go on with it if it is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The engine's name.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// The machine and the processor that it plays.
    pub machine: String,
    /// The frequency of the time stamp counter that the guest's kernel was told, in kHz.
    pub tsc_khz: u64,
}

/// Why a machine that was saved cannot go on here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another engine made it, or another version.
    #[error("it was saved by {saved}; here is {here}")]
    Engine {
        /// The engine that saved it.
        saved: String,
        /// The one that is here.
        here: String,
    },
    /// It is another machine, or has another processor.
    #[error("it was saved as the machine `{saved}`; this version makes `{here}`")]
    Machine {
        /// What was saved.
        saved: String,
        /// What would be restored.
        here: String,
    },
    /// The processor's counter runs at another pace here, and the guest's clock with it.
    #[error(
        "the clock of the host that it was saved on runs at {saved_khz} kHz; this one's at {here_khz} kHz"
    )]
    Frequency {
        /// The pace that the guest knows.
        saved_khz: u64,
        /// The pace here.
        here_khz: u64,
    },
}

impl Origin {
    /// Looks whether what was saved as `saved` can go on where this is how machines are made.
    ///
    /// # Errors
    /// It cannot, and why.
    pub fn check(&self, saved: &Self) -> Result<(), Mismatch> {
        if (&self.engine, &self.version) != (&saved.engine, &saved.version) {
            return Err(Mismatch::Engine { saved: saved.engine_name(), here: self.engine_name() });
        }
        if self.machine != saved.machine {
            return Err(Mismatch::Machine { saved: saved.machine.clone(), here: self.machine.clone() });
        }
        if self.tsc_khz.abs_diff(saved.tsc_khz) > self.tsc_khz / FREQUENCY_TOLERANCE {
            return Err(Mismatch::Frequency { saved_khz: saved.tsc_khz, here_khz: self.tsc_khz });
        }
        Ok(())
    }

    fn engine_name(&self) -> String {
        format!("{} {}", self.engine, self.version)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, {}, {} kHz", self.engine, self.version, self.machine, self.tsc_khz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(ranges: &[(u32, u32)]) -> Result<Pages, InvalidPages> {
        let ranges = ranges.iter().map(|(first, count)| PageRange { first: *first, count: *count }).collect();
        Pages::new(tempfile::tempfile().expect("a temporary file"), ranges, MemorySize::MIN)
    }

    #[test]
    fn ranges_in_order_and_within_the_memory_are_taken() {
        let last = u32::try_from(MemorySize::MIN.bytes() / PAGE).expect("a small memory") - 1;
        let pages = pages(&[(0, 2), (2, 1), (7, 3), (last, 1)]).expect("good ranges");
        assert_eq!(pages.bytes(), 7 * PAGE);
    }

    #[test]
    fn ranges_of_no_memory_are_refused() {
        let end = u32::try_from(MemorySize::MIN.bytes() / PAGE).expect("a small memory");
        for bad in [
            &[(1, 0)][..],
            &[(4, 2), (5, 1)],
            &[(4, 2), (0, 1)],
            &[(end, 1)],
            &[(end - 1, 2)],
            &[(u32::MAX, 2)],
        ] {
            assert_eq!(pages(bad).map(|_| ()), Err(InvalidPages), "{bad:?}");
        }
    }

    #[test]
    fn another_engine_machine_or_pace_is_named() {
        let here = Origin {
            engine: "qemu".to_owned(),
            version: "7.2.22".to_owned(),
            machine: "microvm".to_owned(),
            tsc_khz: 2_600_000,
        };
        assert_eq!(here.check(&Origin { tsc_khz: 2_600_900, ..here.clone() }), Ok(()));
        let version = here.check(&Origin { version: "8.0.0".to_owned(), ..here.clone() });
        assert!(matches!(version, Err(Mismatch::Engine { saved, .. }) if saved == "qemu 8.0.0"));
        let machine = here.check(&Origin { machine: "q35".to_owned(), ..here.clone() });
        assert!(matches!(machine, Err(Mismatch::Machine { .. })));
        let pace = here.check(&Origin { tsc_khz: 2_500_000, ..here.clone() });
        assert!(matches!(pace, Err(Mismatch::Frequency { saved_khz: 2_500_000, .. })));
    }
}
