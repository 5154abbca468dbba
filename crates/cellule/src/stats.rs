//! What a sandbox uses: as its guest counts it, and as the host does.

use std::fs;

use cellule_protocol::v1;
use serde::Serialize;

/// What a sandbox uses at one moment. Counters run since its machine started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Processor time of all programs in the guest, in its own microseconds.
    pub guest_cpu_us: u64,
    /// What programs and files in memory hold, in bytes.
    pub guest_memory_bytes: u64,
    /// The guest's memory, in bytes.
    pub guest_memory_limit_bytes: u64,
    /// Read from the image, in bytes.
    pub disk_read_bytes: u64,
    /// Written to disks, in bytes.
    pub disk_written_bytes: u64,
    /// Processes in the guest.
    pub processes: u32,
    /// What was written into the root filesystem, in bytes, and what fits.
    pub writable_used_bytes: u64,
    /// What fits into the root filesystem, in bytes.
    pub writable_limit_bytes: u64,
    /// How long the guest has been up, in microseconds.
    pub uptime_us: u64,
    /// Processor time that the host spent on it, in microseconds: the engine and the supervisor.
    pub host_cpu_us: u64,
    /// Memory of the host that it holds, in bytes: the engine and the supervisor.
    pub host_memory_bytes: u64,
}

/// Puts both accounts together.
pub(crate) fn combine(guest: &v1::StatsResponse, processes: &[(String, u32)]) -> Stats {
    let mut stats = Stats {
        guest_cpu_us: guest.cpu_us,
        guest_memory_bytes: guest.memory_used_bytes,
        guest_memory_limit_bytes: guest.memory_total_bytes,
        disk_read_bytes: guest.disk_read_bytes,
        disk_written_bytes: guest.disk_written_bytes,
        processes: guest.processes,
        writable_used_bytes: guest.writable_used_bytes,
        writable_limit_bytes: guest.writable_total_bytes,
        uptime_us: guest.uptime_us,
        ..Stats::default()
    };
    for (_, pid) in processes {
        // One that just ended has nothing to add.
        stats.host_cpu_us += cpu_us(*pid).unwrap_or(0);
        stats.host_memory_bytes += memory_bytes(*pid).unwrap_or(0);
    }
    stats
}

/// User and system time of a process of the host, in microseconds.
fn cpu_us(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = ticks(&stat)?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(ticks * 1_000_000 / per_second)
}

/// The sum of fields 14 and 15. The name in field 2 may hold anything, so counting begins behind its last parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn memory_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_named_like_fields_is_counted_right() {
        let stat = "7 (a) b 1 2) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1 0 100 1000 10";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(memory_bytes(std::process::id()).unwrap() > 100_000);
        assert!(cpu_us(std::process::id()).is_some());
    }
}
