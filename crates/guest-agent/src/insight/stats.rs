//! Owns the figures of what the guest uses.

use std::fs;

use cellule_protocol::v1::StatsResponse;

use super::processes;
use crate::boot::since_boot_us;
use crate::cgroup::Cgroups;

/// The kernel counts in these, whatever the disk has.
const SECTOR: u64 = 512;

/// What is used now. What the kernel does not tell is zero.
pub(crate) fn stats(cgroups: Option<&Cgroups>) -> StatsResponse {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo(&memory, "MemTotal:");
    let (disk_read_bytes, disk_written_bytes) =
        disks(&fs::read_to_string("/proc/diskstats").unwrap_or_default());
    let (writable_total_bytes, writable_used_bytes) = writable();
    StatsResponse {
        cpu_us: cgroups.map_or(0, Cgroups::cpu_us),
        memory_total_bytes: total,
        memory_used_bytes: total.saturating_sub(meminfo(&memory, "MemAvailable:")),
        disk_read_bytes,
        disk_written_bytes,
        processes: u32::try_from(processes::count()).unwrap_or(u32::MAX),
        uptime_us: since_boot_us(),
        writable_total_bytes,
        writable_used_bytes,
    }
}

fn meminfo(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Bytes read from and written to the virtio disks, whole ones.
fn disks(text: &str) -> (u64, u64) {
    let disk = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        let name = fields.next()?;
        let whole = name.starts_with("vd") && !name.ends_with(|last: char| last.is_ascii_digit());
        let read = fields.nth(2)?.parse::<u64>().ok()?;
        let written = fields.nth(3)?.parse::<u64>().ok()?;
        whole.then_some((read, written))
    };
    text.lines().filter_map(disk).fold((0, 0), |(read, written), (more_read, more_written)| {
        (
            more_read.saturating_mul(SECTOR).saturating_add(read),
            more_written.saturating_mul(SECTOR).saturating_add(written),
        )
    })
}

/// The size of the file system that takes what is written, and what of it is used.
fn writable() -> (u64, u64) {
    let Ok(system) = rustix::fs::statvfs("/") else { return (0, 0) };
    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
    (bytes(system.f_blocks), bytes(system.f_blocks.saturating_sub(system.f_bfree)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_disks_are_summed_and_their_parts_not_counted_again() {
        let text = " 254 0 vda 10 0 100 5 3 0 50 1 0 0 0\n 254 1 vda1 10 0 100 5 3 0 50 1 0 0 0\n\
                    \x20254 16 vdb 1 0 8 0 1 0 2 0 0 0 0\n 7 0 loop0 1 0 999 0 0 0 0 0 0\n broken\n";
        assert_eq!(disks(text), (108 * 512, 52 * 512));
    }

    #[test]
    fn figures_of_this_machine_make_sense() {
        let stats = stats(None);
        assert!(stats.memory_used_bytes > 0 && stats.memory_used_bytes < stats.memory_total_bytes);
        assert!(stats.writable_used_bytes <= stats.writable_total_bytes && stats.writable_total_bytes > 0);
        assert!(stats.uptime_us > 0);
    }
}
