//! Owns the list of the guest's processes, as the kernel shows them in /proc.
//!
//! Names and arguments are what each process made of them: bounded, and never taken apart by what they say.

use std::fs::{self, File};
use std::io::Read;

use cellule_protocol::v1::Process;

use crate::exec::user_names;

const MAX_PROCESSES: usize = 4096;
const MAX_COMMAND: usize = 512;
/// More than the kernel writes of one process.
const MAX_FILE: u64 = 16 * 1024;
/// Of the kernel's `PF_KTHREAD`.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// Major numbers of the terminals in devpts.
const TERMINALS: std::ops::RangeInclusive<u64> = 136..=143;

/// The processes, the agent and the kernel's own left out.
pub(crate) fn list() -> Vec<Process> {
    let users = user_names();
    let process = |pid: u32| {
        let stat = Stat::of(pid)?;
        let uid = uid(pid).unwrap_or(0);
        let mut command = arguments(pid);
        if command.is_empty() {
            command = [b"[", stat.name.as_slice(), b"]"].concat();
        }
        Some(Process {
            pid,
            parent: stat.parent,
            uid,
            user: users.get(&uid).cloned().unwrap_or_default(),
            state: stat.state.to_string(),
            cpu_us: ticks_us(stat.cpu_ticks),
            rss_bytes: stat.rss_pages.saturating_mul(rustix::param::page_size() as u64),
            started_us: ticks_us(stat.started_ticks),
            terminal: stat.terminal(),
            command,
        })
    };
    pids().filter_map(process).take(MAX_PROCESSES).collect()
}

/// How many there are.
pub(crate) fn count() -> usize {
    pids().filter(|pid| Stat::of(*pid).is_some()).take(MAX_PROCESSES).count()
}

fn pids() -> impl Iterator<Item = u32> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(move |pid| *pid != own)
}

/// What the kernel says of one process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: Vec<u8>,
    state: char,
    parent: u32,
    terminal: u64,
    cpu_ticks: u64,
    started_ticks: u64,
    rss_pages: u64,
}

impl Stat {
    /// None if it is gone, or the kernel's own.
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&read(&format!("/proc/{pid}/stat"))?)
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        // The name is in parentheses and may have some itself.
        let begin = stat.iter().position(|byte| *byte == b'(')? + 1;
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let name = stat.get(begin..end)?.to_vec();
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        // As proc(5) counts them, the third is the first here.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        if number(9)? & KERNEL_THREAD != 0 {
            return None;
        }
        Some(Self {
            name,
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(4)?).ok()?,
            // It is signed, and no terminal's number is negative.
            terminal: number(7).unwrap_or(0),
            cpu_ticks: number(14)?.saturating_add(number(15)?),
            started_ticks: number(22)?,
            rss_pages: number(24)?,
        })
    }

    fn terminal(&self) -> String {
        let major = (self.terminal >> 8) & 0xFF;
        let minor = (self.terminal & 0xFF) | ((self.terminal >> 12) & 0xF_FF00);
        if TERMINALS.contains(&major) {
            format!("pts/{}", minor + (major - TERMINALS.start()) * 256)
        } else {
            String::new()
        }
    }
}

fn uid(pid: u32) -> Option<u32> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    // Real and effective; the second is the one that counts.
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn arguments(pid: u32) -> Vec<u8> {
    let Ok(file) = File::open(format!("/proc/{pid}/cmdline")) else { return Vec::new() };
    let mut arguments = Vec::new();
    let _as_far_as_it_goes = file.take(MAX_COMMAND as u64).read_to_end(&mut arguments);
    while arguments.last() == Some(&0) {
        arguments.pop();
    }
    for byte in &mut arguments {
        *byte = if *byte == 0 { b' ' } else { *byte };
    }
    arguments
}

fn read(path: &str) -> Option<Vec<u8>> {
    let mut contents = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut contents).ok()?;
    Some(contents)
}

fn ticks_us(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000) / rustix::param::clock_ticks_per_second().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "42 (NAME) S 7 42 42 34817 42 4194304 1 2 3 4 50 25 0 0 20 0 1 0 900 4096 12 0 0\n";

    #[test]
    fn a_name_may_look_like_the_rest_of_its_line() {
        let stat = Stat::parse(LINE.replace("NAME", "a) Z 1 (b").as_bytes()).unwrap();
        assert_eq!(stat.name, b"a) Z 1 (b");
        assert_eq!((stat.state, stat.parent, stat.cpu_ticks, stat.started_ticks), ('S', 7, 75, 900));
        assert_eq!((stat.rss_pages, stat.terminal()), (12, "pts/1".to_owned()));
    }

    #[test]
    fn what_is_the_kernels_own_or_cut_short_is_left_out() {
        assert_eq!(Stat::parse(LINE.replace("4194304", "2129984").as_bytes()), None);
        for len in 0..60 {
            assert_eq!(Stat::parse(&LINE.as_bytes()[..len]), None);
        }
    }

    #[test]
    fn a_terminal_beyond_the_first_256_has_its_number() {
        let stat = Stat { terminal: 0x10_8905, ..Stat::parse(LINE.as_bytes()).unwrap() };
        assert_eq!(stat.terminal(), format!("pts/{}", 0x105 + 256));
    }

    #[test]
    fn a_process_is_listed_with_its_arguments() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let listed = loop {
            // Until it is no copy of this process any more.
            let found = list().into_iter().find(|process| process.pid == child.id());
            if let Some(found) = found
                && found.command.starts_with(b"sleep")
            {
                break found;
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(listed.command, b"sleep 1000");
        assert_eq!(listed.parent, std::process::id());
        assert!(list().iter().all(|process| process.pid != std::process::id()));
    }
}
