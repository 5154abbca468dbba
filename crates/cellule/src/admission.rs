//! Whether this host has the memory for one more machine.
//!
//! A machine's memory is taken as its guest touches it, so that what one will need is not known when it starts: what others
//! like it have taken is what is counted on. A host that is short of memory tells so before it is out of it, by the time that
//! programs wait for some (`/proc/pressure/memory`).

use std::fs;
use std::path::Path;

/// What is left to the host in any case: this part of its memory, and no less than this.
const RESERVE_PART: u64 = 16;
const RESERVE_LEAST: u64 = 192 << 20;
/// The most of their time, in percent, that some programs may have waited for memory in the last ten seconds.
const PRESSURE: f64 = 10.0;

/// A host's memory at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HostMemory {
    /// Bytes, as the kernel counts them.
    pub(crate) total: u64,
    /// What programs can still have without anything being swapped out.
    pub(crate) available: u64,
    /// The percentage of time that some waited for memory; none if the kernel does not tell.
    pub(crate) pressure: Option<f64>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub(crate) enum NoRoom {
    /// Too little is left.
    #[error("{} MiB of memory are free, and {} are needed", available >> 20, needed >> 20)]
    Memory { available: u64, needed: u64 },
    /// Programs wait for memory.
    #[error("programs of this host wait for memory {0:.0} % of the time")]
    Pressure(f64),
}

impl HostMemory {
    /// As it is now; none where there is no /proc.
    pub(crate) fn now() -> Option<Self> {
        Self::read(Path::new("/proc"))
    }

    fn read(proc: &Path) -> Option<Self> {
        let info = fs::read_to_string(proc.join("meminfo")).ok()?;
        let field = |name: &str| -> Option<u64> {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
        };
        let pressure = fs::read_to_string(proc.join("pressure/memory")).ok();
        let pressure = pressure.and_then(|text| {
            let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
            some.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
        });
        Some(Self { total: field("MemTotal")?, available: field("MemAvailable")?, pressure })
    }

    /// Whether there is room for one more that takes so many bytes.
    pub(crate) fn admit(self, footprint: u64) -> Result<(), NoRoom> {
        if let Some(pressure) = self.pressure.filter(|pressure| *pressure > PRESSURE) {
            return Err(NoRoom::Pressure(pressure));
        }
        let needed = footprint.saturating_add((self.total / RESERVE_PART).max(RESERVE_LEAST));
        if self.available < needed {
            return Err(NoRoom::Memory { available: self.available, needed });
        }
        Ok(())
    }
}

/// What a process and its children have of memory for themselves, their part of what they share included; none if that cannot
/// be read.
pub(crate) fn footprint(pid: u32) -> Option<u64> {
    // A child belongs to the thread that made it.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<u32> = lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    let all: Vec<u64> = std::iter::once(pid).chain(children).filter_map(pss).collect();
    (!all.is_empty()).then(|| all.iter().sum())
}

fn pss(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn one_more_is_let_in_while_the_host_keeps_its_part() {
        let host = HostMemory { total: 16 * GIB, available: 2 * GIB, pressure: Some(0.0) };
        assert_eq!(host.admit(GIB), Ok(()));
        assert_eq!(host.admit(GIB + 1), Err(NoRoom::Memory { available: 2 * GIB, needed: 2 * GIB + 1 }));
        let small = HostMemory { total: GIB, available: 200 << 20, pressure: None };
        assert_eq!(small.admit(8 << 20), Ok(()));
        assert!(small.admit(9 << 20).is_err());
        let pressed = HostMemory { pressure: Some(11.0), ..host };
        assert_eq!(pressed.admit(0), Err(NoRoom::Pressure(11.0)));
    }

    #[test]
    fn the_host_is_read_as_its_kernel_tells_it() {
        let proc = tempfile::tempdir().unwrap();
        assert_eq!(HostMemory::read(proc.path()), None);
        fs::write(proc.path().join("meminfo"), "MemTotal:  1024 kB\nMemFree: 1 kB\nMemAvailable:   512 kB\n")
            .unwrap();
        let plain = HostMemory { total: 1 << 20, available: 512 << 10, pressure: None };
        assert_eq!(HostMemory::read(proc.path()), Some(plain));
        fs::create_dir(proc.path().join("pressure")).unwrap();
        let text = "some avg10=3.25 avg60=0.00 avg300=0.00 total=1\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=1\n";
        fs::write(proc.path().join("pressure/memory"), text).unwrap();
        assert_eq!(HostMemory::read(proc.path()), Some(HostMemory { pressure: Some(3.25), ..plain }));
        assert!(HostMemory::now().is_some_and(|now| now.available <= now.total));
        assert!(footprint(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
    }
}
