//! Processes of this host, by their numbers.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal to a process that is there.
pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Kills a process that is there.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Whether a process runs. A zombie whose parent is about to look at it does not.
pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

/// The session that a process belongs to.
pub fn session(pid: u32) -> u32 {
    stat(pid).expect("the process is there")[3].parse().unwrap()
}

/// A line of a process's status that counts KiB, such as `VmHWM`.
pub fn kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{field} in\n{status}")).split_whitespace().next().unwrap().parse().unwrap()
}

/// The fields of /proc/PID/stat behind the name, which may hold anything: the state is the first.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<String> = text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect();
    (fields.len() > 3).then_some(fields)
}
