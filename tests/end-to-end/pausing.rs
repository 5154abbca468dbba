//! Sandboxes whose time stands still, and those whose time is up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cellule_tests::{HANG, Home, eventually, leftovers};
use serde_json::json;

#[test]
fn a_paused_sandbox_stands_still_says_so_and_goes_on_with_the_right_time() {
    let home = Home::new();
    let script = "while :; do echo tick; sleep 0.1; done";
    let sandbox = home.detached(["--name", "clock", "base", "sh", "-c", script]);
    sandbox.says("tick");
    let uptime = || sandbox.sh("cut -d' ' -f1 /proc/uptime").trim().parse::<f64>().unwrap();
    let before = uptime();
    assert_eq!(home.cellule(["pause", "clock"]).output().exits(0).out(), "clock\n");
    assert_eq!(sandbox.state(), "paused");
    let ticks = sandbox.log().len();
    let refused = sandbox.exec(&[], &["true"]).limit(Duration::from_secs(20)).output().exits(125);
    _ = refused.says(&["paused", "unpause"]);
    let table = home.cellule(["ps"]).output().exits(0).out();
    assert!(table.contains("(Paused)"), "{table}");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(sandbox.log().len(), ticks, "it goes on");
    _ = home.cellule(["pause", "clock"]).output().exits(125).says(&["paused"]);

    assert_eq!(home.cellule(["unpause", "clock"]).output().exits(0).out(), "clock\n");
    assert_eq!(sandbox.state(), "running");
    let passed = uptime() - before;
    assert!(passed < 3.0, "{passed} s passed in a guest that stood still for 4 s");
    eventually("it ticks again", HANG, || sandbox.log().len() > ticks);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let guest: f64 = sandbox.sh("date +%s").trim().parse().unwrap();
    assert!((guest - now).abs() < 3.0, "the guest's clock says {guest}, the host's {now}");
    _ = home.cellule(["unpause", "clock"]).output().exits(125).says(&["not paused"]);

    // What is paused is stopped and killed like anything else.
    _ = home.cellule(["pause", "clock"]).output().exits(0);
    _ = home.cellule(["kill", "-s", "USR1", "clock"]).output().exits(125).says(&["paused"]);
    let stopped = home.cellule(["stop", "-t", "2", "clock"]).output().exits(0);
    assert!(stopped.took < Duration::from_secs(15), "{:?}", stopped.took);
    assert_eq!(sandbox.state(), "stopped");
    _ = home.cellule(["start", "clock"]).output().exits(0);
    _ = home.cellule(["pause", "clock"]).output().exits(0);
    _ = home.cellule(["kill", "clock"]).output().exits(0);
    eventually("it is dead", HANG, || sandbox.state() != "paused");
    assert_eq!(home.cellule(["wait", "clock"]).output().exits(0).out(), "137\n");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_time_to_live_removes_what_runs_what_is_paused_and_what_never_ran() {
    let home = Home::new();
    let words = ["create", "--quiet", "--ttl", "6s", "base", "true"];
    _ = home.cellule(words).output().exits(0);
    let running = home.detached(["--ttl", "14s", "base", "sleep", "1000"]);
    let paused = home.detached(["--ttl", "14s", "--name", "still", "base", "sleep", "1000"]);
    _ = paused.call(["pause"]).output().exits(0);
    assert_eq!((running.state().as_str(), paused.state().as_str()), ("running", "paused"));
    // Nobody asks meanwhile: a supervisor removes its sandbox itself.
    eventually("what had a supervisor is gone", Duration::from_secs(40), || {
        !running.dir().exists() && !paused.dir().exists()
    });
    assert!(home.ps(["-a"]).is_empty());
    leftovers::assert_none(&home);
}

#[test]
fn a_sandbox_that_nobody_uses_is_stopped_or_paused_and_use_wakes_it() {
    let home = Home::new();
    let stops = home.detached(["--idle-timeout", "3s", "base", "sleep", "1000"]);
    let pauses = home.detached([
        "--idle-timeout",
        "3s",
        "--idle-action",
        "pause",
        "--name",
        "nap",
        "base",
        "sleep",
        "1000",
    ]);
    // As long as somebody uses it, nothing happens.
    _ = pauses.exec(&[], &["sleep", "5"]).output().exits(0);
    eventually("it is stopped", Duration::from_secs(30), || stops.state() == "stopped");
    let known = stops.inspect();
    assert!(known["cause"].as_str().unwrap().contains("nobody used it"), "{known:#}");

    eventually("it is paused", Duration::from_secs(30), || pauses.state() == "paused");
    let woken = pauses.exec(&[], &["echo", "awake"]).output().exits(0);
    assert_eq!(woken.out(), "awake\n");
    eventually("it naps again", Duration::from_secs(30), || pauses.state() == "paused");
    // Files are a use too.
    let words = ["fs", "exists", "nap", "/etc/passwd"];
    _ = home.cellule(words).output().exits(0);
    assert_eq!(pauses.state(), json!("running"));
    for sandbox in [stops, pauses] {
        _ = sandbox.remove();
    }
    leftovers::assert_none(&home);
}
