//! Owns the control groups: one per exec, so that all of its processes can be killed, wherever they hid.
//!
//! ```text
//!             ┌─────────────── spare: empty, untouched, its figures so far known ◀──┐
//!             ▼                                                                     │
//!   made ──▶ an exec's ──▶ given back ──┬─▶ something lives in it ──▶ outlived ──▶ removed
//!                                       └─▶ nothing does ────────────────────────▶ spare, or removed
//! ```
//! To make a group and to remove it costs an emulated kernel more than the start of a small program, so those that nothing
//! is left of are used again. Without cgroups, which only a process outside a guest lacks, an exec is its process group.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::{Context, Fault};

/// Where the kernel shows them.
pub(crate) const MOUNT_POINT: &str = "/sys/fs/cgroup";
/// The group above all execs.
const PARENT: &str = "exec";
/// Groups that wait for another exec. An exec is answered before its group is given back, so that one who starts them
/// one after the other needs two.
const SPARE: usize = 4;
/// What a new group's files say that a program may have written to, as far as it would change the next exec.
const NEW: [(&str, &str); 5] = [
    ("memory.max", "max\n"),
    ("memory.high", "max\n"),
    ("memory.oom.group", "0\n"),
    ("cgroup.type", "domain\n"),
    ("cgroup.subtree_control", ""),
];
/// How long programs may take until they stand still.
const HELD_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN_AFTER: Duration = Duration::from_micros(100);
/// What may be left of the memory of a group that is used again: pages of files that its programs read or wrote, which
/// stay its own. More of it would be taken for what the next exec needs.
const LEFT: u64 = 256 * 1024;
/// The longest file of a group that is read whole.
const TEXT: usize = 4096;

/// Where execs get their groups.
#[derive(Debug)]
pub struct Cgroups {
    parent: PathBuf,
    next: AtomicU64,
    /// Groups whose exec ended and that something still lives in.
    outlived: Mutex<Vec<PathBuf>>,
    spare: Mutex<Vec<Cgroup>>,
    held: AtomicBool,
}

/// One exec's group.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    dir: File,
    cpu: Option<File>,
    memory: Option<Memory>,
    /// CPU time of the execs before, and how often the kernel killed one of theirs.
    cpu_before: u64,
    killed_before: u64,
}

/// What accounts for a group's memory, if the kernel does.
#[derive(Debug)]
struct Memory {
    /// What it has now.
    current: File,
    /// Its most. What is read through a file that was written to counts from then on.
    peak: File,
    events: File,
    /// What was left of the execs before.
    left: u64,
}

impl Cgroups {
    /// Makes the parent of all groups in the mounted hierarchy.
    pub(crate) fn new() -> Result<Self, Fault> {
        let root = Path::new(MOUNT_POINT);
        let parent = root.join(PARENT);
        match fs::create_dir(&parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).context("make the control group of the execs");
            }
            _ => {}
        }
        // For `memory.events`, which knows whose processes the kernel killed. A kernel without it loses just that.
        for group in [root, parent.as_path()] {
            if let Err(error) = fs::write(group.join("cgroup.subtree_control"), "+memory") {
                crate::fault::report(format_args!("no memory accounting in {}: {error}", group.display()));
                break;
            }
        }
        Ok(Self {
            parent,
            next: AtomicU64::new(1),
            outlived: Mutex::default(),
            spare: Mutex::default(),
            held: AtomicBool::new(false),
        })
    }

    /// Makes all programs stand still, wherever in the groups they are.
    pub(crate) fn hold(&self) -> Result<(), Fault> {
        let freeze = self.parent.join("cgroup.freeze");
        fs::write(&freeze, "1").context("hold the programs")?;
        self.held.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + HELD_WITHIN;
        // One in the middle of a system call stands still when it comes back from it.
        while field(&fs::read_to_string(self.parent.join("cgroup.events")).unwrap_or_default(), "frozen") == 0
        {
            if Instant::now() > deadline {
                return Err(Fault::new("hold the programs: some go on"));
            }
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
        Ok(())
    }

    /// Lets them go on, if they were held.
    pub(crate) fn release(&self) -> Result<(), Fault> {
        if self.held.load(Ordering::Relaxed) {
            fs::write(self.parent.join("cgroup.freeze"), "0").context("release the programs")?;
            self.held.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// CPU time that all execs took together, in microseconds; zero if the kernel does not say.
    pub(crate) fn cpu_us(&self) -> u64 {
        let stat = fs::read_to_string(self.parent.join("cpu.stat")).unwrap_or_default();
        field(&stat, "usage_usec")
    }

    /// An empty group.
    pub(crate) fn make(&self) -> io::Result<Cgroup> {
        if let Some(spare) = lock(&self.spare).pop() {
            return Ok(spare);
        }
        let path = self.parent.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path)?;
        let dir = File::open(&path)?;
        let (cpu, memory) = (File::open(path.join("cpu.stat")).ok(), Memory::of(&path));
        Ok(Cgroup { path, dir, cpu, memory, cpu_before: 0, killed_before: 0 })
    }

    /// Takes a group back, for another exec or to remove it, now or when the last process has left it.
    pub(crate) fn give_back(&self, mut group: Cgroup) {
        if group.renew() {
            let mut spare = lock(&self.spare);
            if spare.len() < SPARE {
                return spare.push(group);
            }
        }
        self.discard(group);
    }

    /// Forgets a group, now or when the last process has left it.
    pub(crate) fn discard(&self, group: Cgroup) {
        let Cgroup { path, .. } = group;
        let mut outlived = lock(&self.outlived);
        outlived.push(path);
        outlived
            .retain(|path| fs::remove_dir(path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound));
    }
}

impl Cgroup {
    /// For `clone3`, which starts a process inside.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Kills every process inside, also those that are being forked.
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// The processes inside.
    pub(crate) fn processes(&self) -> io::Result<Vec<i32>> {
        let list = fs::read_to_string(self.path.join("cgroup.procs"))?;
        Ok(list.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// What its processes held together at the most, in bytes; zero if the kernel does not say.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| number(&memory.peak).saturating_sub(memory.left))
    }

    /// CPU time that its processes took together, in microseconds; zero if the kernel does not say.
    pub(crate) fn cpu_us(&self) -> u64 {
        self.cpu_so_far().saturating_sub(self.cpu_before)
    }

    /// Whether the kernel killed one of its processes for want of memory.
    pub(crate) fn oom_killed(&self) -> bool {
        self.killed_so_far() > self.killed_before
    }

    fn cpu_so_far(&self) -> u64 {
        self.cpu.as_ref().map_or(0, |stat| field(&text(stat), "usage_usec"))
    }

    fn killed_so_far(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| field(&text(&memory.events), "oom_kill"))
    }

    /// Makes it as good as new; `false` if it is not to be used again.
    fn renew(&mut self) -> bool {
        let (cpu, killed) = (self.cpu_so_far(), self.killed_so_far());
        let Some(memory) = &mut self.memory else { return false };
        let events = fs::read_to_string(self.path.join("cgroup.events")).unwrap_or_default();
        // Nobody lives in it, none of its programs has frozen it, made groups within, or set it a limit.
        let untouched = events.lines().all(|line| line.ends_with(" 0"))
            && !events.is_empty()
            && self.dir.metadata().is_ok_and(|dir| dir.nlink() == 2)
            && NEW
                .iter()
                .all(|(name, new)| fs::read(self.path.join(name)).is_ok_and(|is| is == new.as_bytes()));
        memory.left = number(&memory.current);
        if !untouched || memory.left > LEFT || memory.peak.write_at(b"reset", 0).is_err() {
            return false;
        }
        (self.cpu_before, self.killed_before) = (cpu, killed);
        true
    }
}

impl Memory {
    fn of(group: &Path) -> Option<Self> {
        let open = |name: &str| File::open(group.join(name)).ok();
        let peak = group.join("memory.peak");
        // Kernels before 6.12 let nobody write to it: then no group is used again.
        let peak = File::options().read(true).write(true).open(&peak).or_else(|_| File::open(&peak)).ok()?;
        Some(Self { current: open("memory.current")?, peak, events: open("memory.events")?, left: 0 })
    }
}

/// What a file of a group says now.
fn text(file: &File) -> String {
    let mut bytes = [0; TEXT];
    let count = file.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

fn number(file: &File) -> u64 {
    text(file).trim().parse().unwrap_or(0)
}

/// The number behind a name in a file of names and numbers; zero if there is none.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let events = "low 0\nhigh 0\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!((field(events, "oom_kill"), field(events, "oom")), (2, 3));
        assert_eq!(field(events, "oom_group"), 0);
        assert_eq!(field("usage_usec many\n", "usage_usec"), 0);
    }
}
