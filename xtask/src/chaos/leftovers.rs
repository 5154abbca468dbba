//! What may not be left of sandboxes: processes, files, control groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::until;

/// What is left of all rounds: processes, directories, names, and control groups that bear the product's name.
pub(super) fn leftovers(program: &Path, home: &Path) -> Vec<String> {
    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(home.join(dir)).into_iter().flatten().flatten();
        entries.map(|entry| format!("{dir}/{}", entry.file_name().to_string_lossy())).collect()
    };
    let mut left = Vec::new();
    until(Duration::from_secs(15), || {
        // Half made templates are swept by whoever comes next, as dead sandboxes are.
        for words in [&["ps"][..], &["snapshot", "ls"]] {
            _ = Command::new(program).args(words).env("CELLULE_HOME", home).stdout(Stdio::null()).status();
        }
        left = names("sandboxes");
        left.extend(names("templates").into_iter().filter(|name| name.contains(".tmp-")));
        left.extend(names("snapshots"));
        left.extend(names("names"));
        let path = home.to_string_lossy().into_owned();
        left.extend(
            processes_of(&BTreeSet::from([path])).into_iter().map(|(pid, line)| format!("{pid}: {line}")),
        );
        left.extend(control_groups(Path::new("/sys/fs/cgroup"), 6));
        left.is_empty()
    });
    left
}

fn control_groups(dir: &Path, depth: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains("cellule") {
            found.push(entry.path().display().to_string());
        }
        if depth > 0 {
            found.extend(control_groups(&entry.path(), depth - 1));
        }
    }
    found
}

/// The processes whose command line names one of these.
pub(super) fn processes_of(words: &BTreeSet<String>) -> Vec<(u32, String)> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in all.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if pid != std::process::id() && words.iter().any(|word| line.contains(word.as_str())) {
            found.push((pid, line));
        }
    }
    found
}
