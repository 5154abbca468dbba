//! What a sandbox may leave behind, and how it is found: processes, directories, locks, sockets, temporary files.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::{Home, eventually};

/// The host processes whose command line names this state directory, as `pid: command line`.
///
/// A supervisor and an engine both do: the one is told its sandbox's directory, the other its sandbox's id.
pub fn processes(home: &Home) -> Vec<String> {
    let mut found = Vec::new();
    let ids = sandboxes(home);
    let home = home.path().to_string_lossy().into_owned();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if pid != std::process::id() && (line.contains(&home) || ids.iter().any(|id| line.contains(id))) {
            found.push(format!("{pid}: {line}"));
        }
    }
    found
}

/// The ids of the sandboxes whose directories are there.
pub fn sandboxes(home: &Home) -> Vec<String> {
    names(&home.path().join("sandboxes"))
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Fails unless nothing of any sandbox is left within a second: no process, no directory, no name, no temporary file.
#[track_caller]
pub fn assert_none(home: &Home) {
    let left = || {
        let mut left = processes(home);
        left.extend(sandboxes(home).into_iter().map(|id| format!("sandboxes/{id}")));
        left.extend(names(&home.path().join("names")).into_iter().map(|name| format!("names/{name}")));
        left.extend(
            names(&home.path().join("images/tmp")).into_iter().map(|name| format!("images/tmp/{name}")),
        );
        left
    };
    let mut last = Vec::new();
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        last = left();
        if last.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("left behind: {last:#?}");
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
