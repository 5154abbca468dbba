//! Standard input, output and error: byte for byte, apart, and never more in memory than a buffer.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cellule_tests::{Home, leftovers};
use sha2::{Digest as _, Sha256};

/// Bytes that repeat nowhere within a buffer.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn what_goes_in_comes_back_byte_for_byte() {
    let home = Home::new();
    let bytes = noise(32 << 20);
    let outcome = home.run(["--quiet", "-i", "base", "cat"]).stdin(bytes.clone()).output().exits(0);
    assert_eq!(Sha256::digest(&outcome.stdout), Sha256::digest(&bytes));
    assert_eq!(outcome.err(), "");
}

#[test]
fn without_interactive_standard_input_is_empty() {
    let home = Home::new();
    let outcome = home.run(["--quiet", "base", "wc", "-c"]).stdin("ignored").output().exits(0);
    assert_eq!(outcome.out().trim(), "0");
}

#[test]
fn the_end_of_input_reaches_the_program() {
    let home = Home::new();
    let outcome =
        home.run(["--quiet", "-i", "base", "sh", "-c", "cat; echo end"]).stdin("").output().exits(0);
    assert_eq!(outcome.out(), "end\n");
}

#[test]
fn a_program_that_reads_no_input_does_not_hang_on_it() {
    let home = Home::new();
    let outcome = home.run(["--quiet", "-i", "base", "true"]).stdin(noise(4 << 20)).output().exits(0);
    assert_eq!(outcome.out(), "");
}

#[test]
fn input_that_never_ends_does_not_keep_a_program_that_has_ended() {
    let home = Home::new();
    // A pipe whose writing end we keep.
    let running =
        home.run(["--quiet", "-i", "base", "echo", "done"]).with(|c| _ = c.stdin(Stdio::piped())).start();
    assert_eq!(running.wait().exits(0).out(), "done\n");
}

#[test]
fn output_and_error_are_apart() {
    let home = Home::new();
    let script = "i=0; while [ $i -lt 500 ]; do echo out$i; echo err$i >&2; i=$((i+1)); done";
    let outcome = home.run(["--quiet", "base", "sh", "-c", script]).output().exits(0);
    let expected = |word: &str| (0..500).map(|i| format!("{word}{i}\n")).collect::<String>();
    assert_eq!(outcome.out(), expected("out"));
    assert_eq!(outcome.err(), expected("err"));
}

#[test]
fn a_daemon_that_keeps_the_pipe_does_not_keep_the_run() {
    let home = Home::new();
    let outcome = home.run(["--quiet", "base", "sh", "-c", "sleep 1000 & echo started"]).output().exits(0);
    assert_eq!(outcome.out(), "started\n");
    leftovers::assert_none(&home);
}

#[test]
fn a_reader_that_hangs_up_ends_the_writer() {
    let home = Home::new();
    let mut child = home.run(["--quiet", "base", "yes"]).with(|_| {}).start_raw();
    let mut some = [0; 4096];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "yes goes on without a reader");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(141), "killed by SIGPIPE");
    leftovers::assert_none(&home);
}

/// A guest that writes as fast as it can to a reader that does not read: nothing of it may pile up on the host.
#[test]
fn a_reader_that_sleeps_slows_the_guest_and_costs_no_memory() {
    let home = Home::new();
    let mut child = home.run(["--quiet", "base", "yes"]).start_raw();
    let mut some = [0; 4096];
    child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    let (supervisor, _) = leftovers::running(&home);
    for (what, pid) in [("cellule run", child.id()), ("supervisor", supervisor)] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 64 << 10, "{what} grew to {kib} KiB");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    leftovers::assert_none(&home);
}
