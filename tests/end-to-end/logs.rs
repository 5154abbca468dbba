//! What a sandbox leaves in writing: its command's output, its console, its agent's notes.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use cellule_tests::{HANG, Home, eventually, leftovers};

#[test]
fn a_log_keeps_both_streams_apart_and_is_shown_by_number_and_time() {
    let home = Home::new();
    let script = "echo one; sleep 0.2; echo two >&2; sleep 0.2; printf 'a\\tb\\n\\nlast without end'";
    let sandbox = home.detached(["--name", "talk", "base", "sh", "-c", script]);
    _ = sandbox.call(["wait"]).output().exits(0);

    let log = |words: &[&str]| sandbox.call(["logs"].iter().chain(words)).output().exits(0);
    let all = log(&[]);
    assert_eq!((all.out().as_str(), all.err().as_str()), ("one\na\tb\n\nlast without end", "two\n"));
    assert_eq!(log(&["--tail", "1"]).out().trim_end(), "last without end");
    let last = log(&["-n", "3"]);
    assert_eq!((last.out().as_str(), last.err().as_str()), ("a\tb\n\nlast without end", ""));
    assert_eq!(log(&["--tail", "0"]).out(), "");
    assert_eq!(log(&["--since", "10m"]).out(), all.out());
    assert_eq!(log(&["--since", "2100-01-01T00:00:00Z"]).out(), "");
    assert_eq!(log(&["--until", "2000-01-01T00:00:00Z"]).out(), "");
    assert_eq!(log(&["--follow"]).out(), all.out(), "one that has ended is followed to its end");

    // The times stand in front, and are those of the lines.
    let stamped = log(&["--timestamps"]).out();
    let mut times = Vec::new();
    for (line, text) in stamped.lines().zip(["one", "a\tb", "", "last without end"]) {
        let (time, rest) = line.split_once(' ').unwrap_or((line, ""));
        assert_eq!(rest, text, "{stamped}");
        assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{time}");
        times.push(time.to_owned());
    }
    assert!(times.is_sorted(), "{times:?}");
    // What was said since the second line is that line and what follows.
    assert_eq!(log(&["--since", &times[1]]).out(), "a\tb\n\nlast without end");
    _ = home
        .cellule(["logs", "--since", "yesterday-ish", "talk"])
        .output()
        .exits(125)
        .says(&["yesterday-ish"]);
    _ = sandbox.call(["rm"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn a_hundred_thousand_lines_are_complete_and_in_order() {
    let home = Home::new();
    let sandbox = home.detached(["base", "seq", "1", "100000"]);
    // From the beginning to the end, whenever it comes.
    let followed = sandbox.call(["logs", "-f"]).output().exits(0).out();
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(followed == expected, "{} of {} bytes were followed", followed.len(), expected.len());
    assert!(sandbox.log() == expected, "the log as it is kept is another");
    let tail = sandbox.call(["logs", "--tail", "2500"]).output().exits(0).out();
    assert!(tail == expected[expected.find("97501\n").unwrap()..], "{} bytes", tail.len());
    _ = sandbox.call(["rm"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn a_log_is_followed_while_it_grows_and_until_the_sandbox_ends() {
    let home = Home::new();
    let script = "echo ready; while [ ! -e /go ]; do sleep 0.1; done; echo gone; sleep 1000";
    let sandbox = home.detached(["base", "sh", "-c", script]);
    let mut following = sandbox.call(["logs", "-f"]).start_raw();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert_eq!(lines.next().unwrap(), "ready");
    let asked = Instant::now();
    _ = sandbox.sh("touch /go");
    assert_eq!(lines.next().unwrap(), "gone");
    assert!(asked.elapsed() < Duration::from_secs(5), "a line came after {:?}", asked.elapsed());

    // Who hangs up is no matter for the sandbox.
    let mut other = sandbox.call(["logs", "-f"]).start_raw();
    drop(other.stdout.take());
    other.kill().unwrap();
    other.wait().unwrap();

    _ = sandbox.call(["stop", "-t", "1"]).output().exits(0);
    assert_eq!(lines.next(), None);
    eventually("it ends with the sandbox", Duration::from_secs(10), || {
        following.try_wait().unwrap().is_some()
    });
    assert!(following.wait().unwrap().success());
    _ = sandbox.call(["rm"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn the_console_and_the_agents_notes_are_shown() {
    let home = Home::new();
    let sandbox = home.idle();
    // A message of the highest level is printed on the console whatever else is not.
    _ = sandbox.sh("mknod /tmp/kmsg c 1 11 && echo '<0>a mark on the console' > /tmp/kmsg");
    let console = || sandbox.call(["logs", "--console"]).output().exits(0).out();
    eventually("the mark is on the console", Duration::from_secs(10), || {
        console().contains("a mark on the console")
    });
    _ = sandbox.call(["logs", "--agent"]).output().exits(0);
    let engine = sandbox.pids().1;
    cellule_tests::processes::kill(engine);
    sandbox.becomes("failed");
    assert!(console().contains("a mark on the console"), "a console is of no use if it goes with the guest");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

/// A program's output waits for nobody but its log, so that what nobody reads costs no memory anywhere.
#[test]
fn a_log_is_bounded_and_so_is_the_supervisor() {
    let home = Home::new();
    let sandbox = home.detached([
        "base",
        "sh",
        "-c",
        "yes 'forty-one bytes and an end, many a time..' | head -n 1200000; echo end",
    ]);
    let (supervisor, _) = sandbox.pids();
    let peak = std::cell::Cell::new(0);
    eventually("fifty megabytes are through", HANG, || {
        let kib = std::fs::read_to_string(format!("/proc/{supervisor}/status")).ok().and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok())
        });
        peak.set(peak.get().max(kib.unwrap_or(0)));
        sandbox.state() == "stopped"
    });
    assert!(peak.get() > 0 && peak.get() < 32 << 10, "the supervisor grew to {} KiB", peak.get());
    let dir = sandbox.dir().join("log");
    let size: u64 =
        std::fs::read_dir(&dir).unwrap().flatten().map(|file| file.metadata().unwrap().len()).sum();
    assert!(size < 48 << 20, "the log grew to {size} bytes");
    assert_eq!(sandbox.call(["logs", "--tail", "1"]).output().exits(0).out(), "end\n");
    _ = sandbox.call(["rm"]).output().exits(0);
    leftovers::assert_none(&home);
}
