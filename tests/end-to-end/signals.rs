//! Signals to `cellule run` reach the program in the guest.

use std::io::{BufRead as _, BufReader};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use cellule_tests::{Home, Raw, leftovers};
use rustix::process::{Pid, Signal, kill_process};

/// A script that says when it is ready, and then waits.
fn start(home: &Home, traps: &str) -> (Raw, BufReader<ChildStdout>) {
    let script = format!("{traps}; echo ready; while :; do sleep 0.1; done");
    let mut child = home.run(["--quiet", "base", "sh", "-c", &script]).start_raw();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, lines)
}

fn wait(child: &mut Raw) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(start.elapsed() < Duration::from_secs(30), "it goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_trapped_signal_is_the_programs_to_answer() {
    let home = Home::new();
    let (mut child, mut lines) = start(&home, "trap 'echo got; exit 3' TERM");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!((line.as_str(), wait(&mut child)), ("got\n", Some(3)));
    leftovers::assert_none(&home);
}

#[test]
fn an_interrupt_ends_a_program_that_does_not_care() {
    let home = Home::new();
    let (mut child, _lines) = start(&home, ":");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(wait(&mut child), Some(130));
    leftovers::assert_none(&home);
}

#[test]
fn a_second_interrupt_ends_a_program_that_ignores_the_first() {
    let home = Home::new();
    let (mut child, _lines) = start(&home, "trap '' INT");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(child.try_wait().unwrap(), None, "the first was not ignored");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(wait(&mut child), Some(130));
    leftovers::assert_none(&home);
}

#[test]
fn an_interrupt_while_the_guest_boots_ends_it_at_once() {
    let home = Home::new();
    let mut child = home.run(["--quiet", "base", "true"]).start_raw();
    _ = leftovers::running(&home);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(wait(&mut child), Some(130));
    leftovers::assert_none(&home);
}
