//! Owns the control groups: one per exec, so that all of its processes can be killed, wherever they hid.
//!
//! Without cgroups, which only a process outside a guest lacks, an exec is its process group.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::fault::{Context, Fault};

/// Where the kernel shows them.
pub(crate) const MOUNT_POINT: &str = "/sys/fs/cgroup";
/// The group above all execs.
const PARENT: &str = "exec";

/// Where execs get their groups.
#[derive(Debug)]
pub struct Cgroups {
    parent: PathBuf,
    next: AtomicU64,
    /// Groups whose exec ended and that something still lives in.
    outlived: Mutex<Vec<PathBuf>>,
}

/// One exec's group.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    dir: File,
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
        Ok(Self { parent, next: AtomicU64::new(1), outlived: Mutex::default() })
    }

    /// CPU time that all execs took together, in microseconds; zero if the kernel does not say.
    pub(crate) fn cpu_us(&self) -> u64 {
        cpu_us(&self.parent)
    }

    /// A new, empty group.
    pub(crate) fn make(&self) -> io::Result<Cgroup> {
        let path = self.parent.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path)?;
        let dir = File::open(&path)?;
        Ok(Cgroup { path, dir })
    }

    /// Forgets a group, now or when the last process has left it.
    pub(crate) fn discard(&self, group: Cgroup) {
        let mut outlived = self.outlived.lock().unwrap_or_else(PoisonError::into_inner);
        outlived.push(group.path);
        drop(group.dir);
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
        let peak = fs::read_to_string(self.path.join("memory.peak")).unwrap_or_default();
        peak.trim().parse().unwrap_or(0)
    }

    /// CPU time that its processes took together, in microseconds; zero if the kernel does not say.
    pub(crate) fn cpu_us(&self) -> u64 {
        cpu_us(&self.path)
    }

    /// Whether the kernel killed one of its processes for want of memory.
    pub(crate) fn oom_killed(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
    }
}

fn cpu_us(group: &Path) -> u64 {
    let stat = fs::read_to_string(group.join("cpu.stat")).unwrap_or_default();
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
    usage.and_then(|usage| usage.trim().parse().ok()).unwrap_or(0)
}
