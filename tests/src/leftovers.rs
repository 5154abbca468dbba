//! What a sandbox may leave behind, and how it is found: processes, directories, locks, sockets, temporary files.

use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use rustix::process::Pid;

use crate::{Home, eventually};

/// The host processes that belong to this state directory, as `pid: command line`.
///
/// A supervisor is told its sandbox's directory and an engine its sandbox's id; both keep files below the directory
/// open.
pub fn processes(home: &Home) -> Vec<String> {
    let mut found = Vec::new();
    let ids = {
        let mut seen = home.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(sandboxes(home));
        seen.clone()
    };
    let path = home.path().to_string_lossy();
    // Links of /proc lead to real paths.
    let real = fs::canonicalize(home.path()).unwrap();
    for (pid, line) in all_processes() {
        if line.contains(&*path)
            || ids.iter().any(|id| line.contains(id))
            || has_open(&Path::new("/proc").join(pid.to_string()), &real)
        {
            found.push(format!("{pid}: {line}"));
        }
    }
    found
}

/// All processes of this host but this one, each with its command line.
pub fn all_processes() -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        if pid != std::process::id() {
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// Whether a process has a file below `dir` open, also one that was removed. Of processes we may not look into: no.
fn has_open(process: &Path, dir: &Path) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.starts_with(dir)))
}

/// The ids of the sandboxes whose directories are there.
pub fn sandboxes(home: &Home) -> Vec<String> {
    names(&home.path().join("sandboxes"))
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Fails unless nothing of any sandbox is left before long: no process, no directory, no name, no temporary file.
#[track_caller]
pub fn assert_none(home: &Home) {
    let left = || {
        let mut left = processes(home);
        left.extend(sandboxes(home).into_iter().map(|id| format!("sandboxes/{id}")));
        left.extend(names(&home.path().join("names")).into_iter().map(|name| format!("names/{name}")));
        left.extend(
            names(&home.path().join("images/tmp")).into_iter().map(|name| format!("images/tmp/{name}")),
        );
        for network in names(&home.path().join("networks")) {
            let members = names(&home.path().join("networks").join(&network)).into_iter();
            left.extend(members.map(|id| format!("networks/{network}/{id}")));
        }
        let half = names(&home.path().join("snapshots")).into_iter().filter(|name| name.starts_with('.'));
        left.extend(half.map(|name| format!("snapshots/{name}")));
        left
    };
    let mut last = Vec::new();
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        last = left();
        if last.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("left behind: {last:#?}");
}

/// The supervisors of this state directory's sandboxes.
pub fn supervisors(home: &Home) -> Vec<Pid> {
    let lines = processes(home).into_iter().filter(|line| line.contains(" supervise "));
    lines.filter_map(|line| Pid::from_raw(line.split(':').next()?.parse().ok()?)).collect()
}

/// Waits until a sandbox runs a supervisor and an engine, and gives their process ids, the supervisor's first.
#[track_caller]
pub fn running(home: &Home) -> (u32, u32) {
    let mut pids = None;
    eventually("a supervisor and an engine run", crate::HANG, || {
        let found = processes(home);
        let pid = |what: &str| {
            let line = found.iter().find(|line| line.contains(what))?;
            line.split(':').next()?.parse().ok()
        };
        pids = pid(" supervise ").zip(pid("qemu-system"));
        pids.is_some()
    });
    pids.unwrap()
}
