//! `cellule login` at a terminal: what is typed does not show, and afterwards it does again.
#![expect(clippy::unwrap_used, reason = "a test may fail so")]

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// Against hangs alone.
const LIMIT: Duration = Duration::from_secs(60);

fn pty() -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    (master.into(), rustix::fs::open(name, flags, Mode::empty()).unwrap())
}

/// Reads what the terminal shows until `text` is there.
fn expect(master: &mut File, text: &str) {
    let (begun, mut seen) = (Instant::now(), Vec::new());
    while !String::from_utf8_lossy(&seen).contains(text) {
        assert!(begun.elapsed() < LIMIT, "{text:?} does not come: {}", String::from_utf8_lossy(&seen));
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        if poll(&mut [PollFd::new(master, PollFlags::IN)], Some(&second)).unwrap() > 0 {
            let mut buffer = [0; 1024];
            let count = master.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..count]);
        }
    }
}

fn wait(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("it does not end");
}

/// The signals that this process ignores, one bit each, the lowest for signal 1.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

#[test]
fn a_signal_at_the_password_prompt_leaves_a_terminal_that_shows_what_is_typed() {
    let all = [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129), (Signal::QUIT, 131)];
    // One that whoever runs us made its children ignore, as nohup does, stays ignored.
    let ignored = ignored();
    for (signal, code) in all.into_iter().filter(|(signal, _)| ignored & (1 << (signal.as_raw() - 1)) == 0) {
        let (mut master, terminal) = pty();
        let before = tcgetattr(&terminal).unwrap().local_modes;
        assert!(before.contains(LocalModes::ECHO));
        let mut child = Command::new(env!("CARGO_BIN_EXE_cellule"))
            .args(["login", "--username", "somebody", "127.0.0.1:1"])
            .stdin(terminal.try_clone().unwrap())
            .stderr(terminal.try_clone().unwrap())
            .spawn()
            .unwrap();
        expect(&mut master, "Password: ");
        assert_eq!(tcgetattr(&terminal).unwrap().local_modes, before - LocalModes::ECHO);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(wait(&mut child), Some(code), "{signal:?}");
        assert_eq!(tcgetattr(&terminal).unwrap().local_modes, before, "{signal:?}");
    }
}
