//! The life of a sandbox in the background: made, started, stopped, started again, removed.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use cellule_tests::{HANG, Home, binary, eventually, leftovers, processes};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

/// A main program that says when it is ready and answers SIGTERM and SIGUSR1.
const POLITE: &str =
    "trap 'echo bye; exit 7' TERM; trap 'echo got' USR1; echo ready; while :; do sleep 0.1; done";
const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 0.1; done";

#[test]
fn a_detached_sandbox_outlives_its_maker_and_the_makers_terminal() {
    let home = Home::new();
    let script = "\"$0\" run --quiet -d --name web base sleep 1000 && sleep 1000";
    let program = binary();
    let words = ["-c", script, program.to_str().unwrap()];
    let mut shell = home.program(Path::new("/bin/sh"), words).start_raw();
    let mut id = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut id).unwrap();
    let sandbox = home.sandbox(id.trim_end());
    let (supervisor, engine) = sandbox.pids();
    assert_eq!(processes::session(supervisor), supervisor, "it is not in a session of its own");

    let group = Pid::from_child(&shell);
    kill_process_group(group, Signal::HUP).unwrap();
    shell.wait().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(processes::alive(supervisor) && processes::alive(engine));
    assert_eq!(sandbox.sh("echo alive"), "alive\n");
    assert_eq!(sandbox.state(), "running");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn stop_lets_the_command_end_by_itself_and_keeps_its_code() {
    let home = Home::new();
    let sandbox = home.detached(["base", "sh", "-c", POLITE]);
    sandbox.says("ready");
    let waiting = sandbox.call(["wait"]).start();

    let stopped = sandbox.call(["stop"]).output().exits(0);
    assert_eq!(stopped.out().trim_end(), sandbox.id(), "each that was stopped is named");
    assert!(stopped.took < Duration::from_secs(9), "it was not heard: {:?}", stopped.took);
    assert_eq!(waiting.wait().exits(0).out(), "7\n");
    assert_eq!(sandbox.log(), "ready\nbye\n");
    let known = sandbox.inspect();
    assert_eq!((&known["state"], &known["main"]["exit_code"]), (&json!("stopped"), &json!(7)));
    assert_eq!((&known["supervisor_pid"], &known["engine_pid"]), (&json!(null), &json!(null)));
    assert!(leftovers::processes(&home).is_empty());

    // One that has ended is waited for at once, and stopped already.
    assert_eq!(sandbox.call(["wait"]).output().exits(0).out(), "7\n");
    _ = sandbox.call(["stop"]).output().exits(0);

    // What it wrote outside of its log was in its memory.
    assert_eq!(sandbox.call(["start"]).output().exits(0).out().trim_end(), sandbox.id());
    eventually("the log goes on", HANG, || sandbox.log() == "ready\nbye\nready\n");
    assert_eq!(sandbox.sh("cat /mark 2>/dev/null || touch /mark && echo new"), "new\n");
    // To start what runs is no mistake, by Docker's habit.
    _ = sandbox.call(["start"]).output().exits(0);
    let before = sandbox.inspect()["started_ns"].as_i64().unwrap();
    _ = sandbox.call(["restart"]).output().exits(0);
    eventually("the log goes on", HANG, || sandbox.log() == "ready\nbye\nready\nbye\nready\n");
    assert!(sandbox.inspect()["started_ns"].as_i64().unwrap() > before);
    assert_eq!(sandbox.sh("ls /mark 2>/dev/null || echo none"), "none\n");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn signals_are_sent_by_name_and_what_ignores_a_stop_is_killed_in_time() {
    let home = Home::new();
    let polite = home.detached(["base", "sh", "-c", POLITE]);
    let stubborn = home.detached(["--name", "stubborn", "base", "sh", "-c", STUBBORN]);
    polite.says("ready");
    stubborn.says("ready");

    _ = polite.call(["kill", "-s", "USR1"]).output().exits(0);
    polite.says("got");
    assert_eq!(polite.state(), "running");
    _ = polite.call(["kill", "-s", "NONSENSE"]).output().exits(125).says(&["NONSENSE"]);

    let stopped = stubborn.call(["stop", "-t", "2"]).output().exits(0);
    assert!(stopped.took >= Duration::from_secs(2), "it was killed early: {:?}", stopped.took);
    assert!(stopped.took < Duration::from_secs(20), "it was killed late: {:?}", stopped.took);
    assert_eq!(stubborn.call(["wait"]).output().exits(0).out(), "137\n");

    let killed = polite.call(["kill"]).output().exits(0);
    assert_eq!(killed.out().trim_end(), polite.id());
    assert_eq!(polite.call(["wait"]).output().exits(0).out(), "137\n");
    // Several at once, and one that is none: the others are handled all the same.
    let words = ["rm", "no-such", "stubborn", polite.id()];
    let removed = home.cellule(words).output();
    assert_ne!(removed.code(), 0);
    _ = removed.says(&["no-such"]);
    leftovers::assert_none(&home);
}

#[test]
fn one_that_was_created_starts_when_it_is_told_to() {
    let home = Home::new();
    let words = ["create", "--quiet", "--name", "later", "base", "sh", "-c", "echo hello; exit 3"];
    let created = home.cellule(words).output().exits(0).out();
    let sandbox = home.sandbox(created.trim_end());
    assert_eq!(sandbox.state(), "created");
    assert!(leftovers::processes(&home).is_empty(), "something runs already");
    assert!(home.ps([""; 0]).is_empty());
    assert_eq!(home.ps(["-a"]).len(), 1);
    _ = home.cellule(["exec", "later", "true"]).output().exits(125).says(&["later", "created", "start"]);

    let attached = home.cellule(["start", "--attach", "later"]).output().exits(3);
    assert_eq!(attached.out(), "hello\n");
    assert_eq!(sandbox.state(), "stopped", "it is kept, since nobody said --rm");
    _ = home.cellule(["start", "later"]).output().exits(0);
    assert_eq!(home.cellule(["wait", "later"]).output().exits(0).out(), "3\n");
    assert_eq!(sandbox.log(), "hello\nhello\n");
    assert_eq!(home.cellule(["rm", "later"]).output().exits(0).out(), "later\n");
    leftovers::assert_none(&home);
}

#[test]
fn a_running_sandbox_is_removed_by_force_alone() {
    let home = Home::new();
    let sandbox = home.idle();
    _ = sandbox.call(["rm"]).output().exits(125).says(&["running", "--force"]);
    assert_eq!(sandbox.state(), "running");
    // Nobody else may have its name, and it cannot be removed under somebody who waits for it without him knowing.
    let waiting = sandbox.call(["wait"]).start();
    let attached = sandbox.call(["attach", "--no-stdin"]).start();
    std::thread::sleep(Duration::from_millis(500));
    _ = sandbox.call(["rm", "-f"]).output().exits(0);
    _ = waiting.wait();
    assert_ne!(attached.wait().code(), 0, "a command that was killed did not succeed");
    leftovers::assert_none(&home);
}

#[test]
fn rename_works_at_any_time_and_never_takes_a_name_away() {
    let home = Home::new();
    let sandbox = home.detached(["--name", "one", "base", "sleep", "1000"]);
    _ = home.cellule(["create", "--quiet", "--name", "two", "base", "true"]).output().exits(0);

    _ = home.cellule(["rename", "one", "uno"]).output().exits(0);
    assert_eq!(home.cellule(["exec", "uno", "echo", "here"]).output().exits(0).out(), "here\n");
    _ = home.cellule(["exec", "one", "true"]).output().exits(125).says(&["one"]);
    assert_eq!(sandbox.inspect()["name"], "uno");
    _ = home.cellule(["rename", "uno", "two"]).output().exits(125).says(&["two"]);
    _ = home.cellule(["rename", "two", "uno"]).output().exits(125).says(&["uno"]);
    _ = home.cellule(["rename", "uno", "a/b"]).output().exits(125).says(&["a/b"]);
    _ = home
        .run(["--quiet", "-d", "--name", "uno", "base", "true"])
        .output()
        .exits(125)
        .says(&["uno", "in use"]);

    // The old name is free, and a stopped one is renamed as well.
    _ = home.cellule(["rename", "two", "one"]).output().exits(0);
    _ = home.cellule(["rm", "one"]).output().exits(0);
    assert_eq!(home.ps(["-a"]).len(), 1);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn prune_removes_what_does_not_run_and_asks_before() {
    let home = Home::new();
    let running = home.detached(["--label", "keep=no", "base", "sleep", "1000"]);
    for label in ["keep=no", "keep=yes"] {
        let words = ["create", "--quiet", "--label", label, "base", "true"];
        _ = home.cellule(words).output().exits(0);
    }
    // There is nobody to ask.
    _ = home.cellule(["prune"]).output().exits(125).says(&["--force"]);
    assert_eq!(home.ps(["-a"]).len(), 3);
    _ = home.cellule(["prune", "--force", "--filter", "label=keep=no"]).output().exits(0);
    assert_eq!(home.ps(["-a"]).len(), 2);
    _ = home.cellule(["prune", "--force"]).output().exits(0);
    assert_eq!(home.ps(["-a"]).len(), 1);
    assert_eq!(running.state(), "running");
    _ = running.remove();
    leftovers::assert_none(&home);
}

#[test]
fn wait_tells_the_codes_of_several_in_their_order() {
    let home = Home::new();
    let first = home.detached(["base", "sh", "-c", "sleep 2; exit 3"]);
    let second = home.detached(["base", "sh", "-c", "exit 4"]);
    let waited = home.cellule(["wait", first.id(), second.id()]).output().exits(0);
    assert_eq!(waited.out(), "3\n4\n");
    _ = home.cellule(["wait", "no-such"]).output().exits(125).says(&["no-such"]);
    for sandbox in [first, second] {
        _ = sandbox.call(["rm"]).output().exits(0);
    }
    leftovers::assert_none(&home);
}

#[test]
fn a_detached_one_with_rm_vanishes_when_its_command_ends() {
    let home = Home::new();
    let sandbox = home.detached(["--rm", "--name", "brief", "base", "sh", "-c", "sleep 1; exit 5"]);
    let waited = sandbox.call(["wait"]).output().exits(0);
    assert_eq!(waited.out(), "5\n", "whoever waited before the end learns the code");
    leftovers::assert_none(&home);
    assert!(home.ps(["-a"]).is_empty());
}

#[test]
fn an_attached_one_without_rm_is_kept() {
    let home = Home::new();
    let words = ["--quiet", "--rm=false", "--name", "kept", "base", "sh", "-c", "echo once; exit 6"];
    assert_eq!(home.run(words).output().exits(6).out(), "once\n");
    assert_eq!(home.cellule(["logs", "kept"]).output().exits(0).out(), "once\n");
    assert_eq!(home.cellule(["wait", "kept"]).output().exits(0).out(), "6\n");
    _ = home.cellule(["rm", "kept"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn a_stopped_sandbox_whose_image_is_gone_says_so() {
    let home = Home::new();
    _ = home.cellule(["create", "--quiet", "--name", "orphan", "base", "true"]).output().exits(0);
    // Not unasked.
    _ = home.cellule(["image", "rm", "base"]).output().exits(125).says(&["orphan", "--force"]);
    _ = home.cellule(["image", "prune", "--all"]).output().exits(0);
    assert!(home.cellule(["images", "-q"]).output().exits(0).out().lines().count() == 1);
    _ = home.cellule(["image", "rm", "--force", "base"]).output().exits(0);
    _ = home.cellule(["start", "orphan"]).output().exits(125).says(&["image", "base"]);
    assert_eq!(home.cellule(["rm", "orphan"]).output().exits(0).out(), "orphan\n");
    leftovers::assert_none(&home);
}

#[test]
fn what_cannot_be_done_in_a_state_says_in_which_it_is() {
    let home = Home::new();
    _ = home.cellule(["create", "--quiet", "--name", "box", "base", "true"]).output().exits(0);
    for command in ["pause", "unpause", "kill", "attach", "top", "diff"] {
        _ = home.cellule([command, "box"]).output().exits(125).says(&["box", "created"]);
    }
    for command in ["start", "stop", "rm", "inspect", "logs", "pause", "exec"] {
        let mut words = vec![command, "no-such"];
        words.extend((command == "exec").then_some("true"));
        _ = home.cellule(words).output().exits(125).says(&["no-such"]);
    }
    _ = home.cellule(["rm", "box"]).output().exits(0);
    leftovers::assert_none(&home);
}

/// A command that is not there leaves nothing: whoever made it was told, and has no id.
#[test]
fn a_detached_run_that_fails_leaves_nothing() {
    let home = Home::new();
    let outcome = home.run(["--quiet", "-d", "base", "no-such-program"]).output().exits(127);
    assert_eq!(outcome.out(), "");
    _ = outcome.says(&["no-such-program"]);
    leftovers::assert_none(&home);
    // Before its machine is there; nobody waits for anybody then.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("{}:80", taken.local_addr().unwrap().port());
    let begun = Instant::now();
    let outcome = home.run(["--quiet", "-d", "-p", &port, "base", "true"]).output().exits(125);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    _ = outcome.says(&["cannot listen", "choose another port"]);
    leftovers::assert_none(&home);
}
