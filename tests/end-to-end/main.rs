//! End to end: a real guest for each test. What a test may use, and what gives it that, stands in the harness.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod copy;
mod detached;
mod disks;
mod execs;
mod exit_codes;
mod faults;
mod files;
mod forks;
mod guest;
mod images;
mod insight;
mod library;
mod lifecycle;
mod listing;
mod logs;
mod memory;
mod network;
mod options;
mod outside;
mod pausing;
mod pools;
mod python;
mod registries;
mod secrets;
mod setup;
mod signals;
mod snapshots;
mod streams;
mod survival;
mod terminal;
mod time;
mod warm;

use cellule_tests::{Home, leftovers};

/// What standard error holds when nothing went wrong: the notice about emulation, which `--quiet` hides.
#[test]
fn a_command_runs_and_only_its_output_is_on_stdout() {
    let home = Home::new();
    let outcome = home.run(["base", "echo", "hello"]).output().exits(0).says(&["emulate"]);
    assert_eq!(outcome.out(), "hello\n");
    leftovers::assert_none(&home);
}

#[test]
fn quiet_says_nothing_of_its_own() {
    let home = Home::new();
    let outcome = home.run(["--quiet", "base", "sh", "-c", "echo out; echo err >&2"]).output().exits(0);
    assert_eq!((outcome.out().as_str(), outcome.err().as_str()), ("out\n", "err\n"));
}

#[test]
fn verbose_tells_each_phase_with_its_time() {
    let home = Home::new();
    let cold = home.run(["--verbose", "--cold", "base", "true"]).output().exits(0).err();
    let warm = home.run(["--verbose", "base", "true"]).output().exits(0).err();
    let all = ["boot bundle", "image", "handshake", "command started", "command", "in all"];
    let phases = |said, own: [&'static str; 2]| all.into_iter().chain(own).map(move |phase| (said, phase));
    for (said, phase) in phases(&cold, ["launch", "boot"]).chain(phases(&warm, ["restore", "agent"])) {
        // The name, spaces up to a column, the time: `boot` must not be taken for `boot bundle`.
        let told = said.lines().any(|line| {
            let rest = line.strip_prefix("cellule: ").and_then(|line| line.strip_prefix(phase));
            rest.and_then(|rest| rest.strip_prefix("  ")).is_some_and(|time| {
                let mut words = time.split_whitespace();
                words.next().is_some_and(|number| number.parse::<f64>().is_ok())
                    && words.next().is_some_and(|unit| ["ms", "s", "min"].contains(&unit))
                    && words.next().is_none()
            })
        });
        assert!(told, "{phase} in\n{said}");
    }
}
