//! What is killed at any moment, with anybody left to tell: the next command says the truth, and nothing stays behind.

use std::fs;
use std::time::{Duration, Instant};

use cellule_tests::{HANG, Home, eventually, leftovers, processes};
use rustix::process::Signal;
use serde_json::Value;

/// How soon `ps` tells the truth: a second, and what a busy machine may add to a process's own start.
const TRUTH: Duration = Duration::from_millis(2500);

/// What `ps -a` says of a sandbox, asked once.
fn told(home: &Home, id: &str) -> Option<Value> {
    home.ps(["-a"]).into_iter().find(|row| row["id"] == id)
}

#[test]
fn after_a_kill_ps_tells_the_truth_and_the_sandbox_starts_again() {
    let home = Home::new();
    let sandbox = home.idle();
    for (what, victims) in
        [("the supervisor", [true, false]), ("the engine", [false, true]), ("both", [true, true])]
    {
        let (supervisor, engine) = sandbox.pids();
        let killed = Instant::now();
        for (pid, _) in [supervisor, engine].into_iter().zip(victims).filter(|(_, is)| *is) {
            processes::kill(pid);
        }
        // A process that is killed needs a moment to be gone, and its supervisor one to say so.
        let lies = || {
            let row = told(&home, sandbox.id()).unwrap();
            !["stopped", "failed"].contains(&row["state"].as_str().unwrap())
        };
        while lies() {
            assert!(killed.elapsed() < TRUTH, "{what}: no truth within {:?}", killed.elapsed());
        }
        let known = sandbox.inspect();
        let cause = known["cause"].as_str().unwrap_or_default();
        let named = if victims[0] { "supervisor" } else { "engine" };
        assert!(cause.contains(named), "{what}: the cause is {cause:?}");
        assert!(known["supervisor_pid"].is_null() && known["engine_pid"].is_null());
        eventually("no process is left", Duration::from_secs(5), || {
            !processes::alive(supervisor) && !processes::alive(engine)
        });
        _ = sandbox.exec(&[], &["true"]).output().exits(125);
        _ = sandbox.call(["start"]).output().exits(0);
        assert_eq!(sandbox.sh("echo again"), "again\n");
    }
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn after_a_reboot_of_the_host_what_ran_is_stopped_and_starts_again() {
    let home = Home::new();
    let sandbox = home.detached(["--name", "web", "base", "sh", "-c", "echo up; sleep 1000"]);
    let brief = home.detached(["--rm", "base", "sleep", "1000"]);
    let (all, file) = ([sandbox.pids(), brief.pids()], sandbox.dir().join("state.json"));
    for (supervisor, engine) in all {
        processes::kill(supervisor);
        eventually("the engine is gone", Duration::from_secs(5), || !processes::alive(engine));
    }
    // As another kernel would find it: what was written under the one before, of processes that there are none of.
    let text = fs::read_to_string(&file).unwrap();
    let mut state: Value = serde_json::from_str(&text).unwrap();
    assert!(state["boot_id"].is_string(), "{text}");
    state["boot_id"] = "00000000-0000-4000-8000-000000000000".into();
    fs::write(&file, serde_json::to_vec(&state).unwrap()).unwrap();

    assert_eq!(told(&home, sandbox.id()).unwrap()["state"], "stopped");
    let known = sandbox.inspect();
    assert!(known["cause"].as_str().unwrap().contains("restarted"), "{known:#}");
    assert!(told(&home, brief.id()).is_none(), "one that is not to be kept is kept");
    _ = home.cellule(["start", "web"]).output().exits(0);
    assert_eq!(home.cellule(["exec", "web", "echo", "back"]).output().exits(0).out(), "back\n");
    assert!(sandbox.inspect()["cause"].is_null(), "the cause of an end long past is still told");
    eventually("both lives are in the log", HANG, || sandbox.log() == "up\nup\n");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn no_sandbox_waits_for_another() {
    let home = Home::new();
    let stuck = home.idle();
    let other = home.idle();
    let (supervisor, _) = stuck.pids();
    processes::signal(supervisor, Signal::STOP);
    // Nobody can stop it now, and that is a matter for those alone who try.
    let stopping = stuck.call(["stop", "-t", "1"]).start();

    let prompt = |what: &str, limit: u64, call: cellule_tests::Call| {
        let outcome = call.limit(Duration::from_secs(60)).output().exits(0);
        assert!(outcome.took < Duration::from_secs(limit), "{what} took {:?}", outcome.took);
        outcome.out()
    };
    let listed = prompt("ps", 2, home.cellule(["ps", "-aq"]));
    assert!(listed.contains(stuck.id()) && listed.contains(other.id()), "{listed}");
    _ = prompt("inspect", 2, stuck.call(["inspect"]));
    _ = prompt("exec", 5, other.exec(&[], &["true"]));
    assert_eq!(prompt("run", 20, home.run(["--quiet", "base", "echo", "new"])), "new\n");
    _ = prompt("stop", 5, other.call(["stop", "-t", "1"]));
    _ = prompt("start", 20, other.call(["start"]));
    _ = prompt("rm", 5, other.call(["rm", "-f"]));

    processes::signal(supervisor, Signal::CONT);
    _ = stopping.wait().exits(0);
    _ = stuck.call(["rm"]).output().exits(0);
    leftovers::assert_none(&home);
}

/// One whose supervisor does not even answer is removed all the same, by force.
#[test]
fn a_supervisor_that_hangs_does_not_keep_its_sandbox() {
    let home = Home::new();
    let sandbox = home.idle();
    let (supervisor, engine) = sandbox.pids();
    processes::signal(supervisor, Signal::STOP);
    let removed = sandbox.call(["rm", "--force"]).output();
    if processes::alive(supervisor) {
        processes::signal(supervisor, Signal::CONT);
    }
    _ = removed.exits(0);
    eventually("no process is left", Duration::from_secs(20), || {
        !processes::alive(supervisor) && !processes::alive(engine)
    });
    leftovers::assert_none(&home);
}

#[test]
fn clients_that_are_killed_take_their_execs_with_them_and_nothing_else() {
    let home = Home::new();
    let sandbox = home.idle();
    let plain = sandbox.exec(&[], &["sleep", "4321"]).start();
    let escaped = sandbox.exec(&[], &["sh", "-c", "setsid sleep 4322 & wait"]).start();
    let terminal = sandbox.exec(&["-t"], &["sleep", "4323"]).start();
    let running = || sandbox.sh("ps -o args | grep -c '^sleep 432' || true").trim().to_owned();
    eventually("all three run", HANG, || running() == "3");
    for client in [plain, escaped, terminal] {
        client.signal(Signal::KILL);
        _ = client.wait();
    }
    eventually("none of it runs", Duration::from_secs(10), || running() == "0");
    assert_eq!(sandbox.state(), "running");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_killed_client_of_a_detached_run_leaves_all_or_nothing() {
    let home = Home::new();
    // Before anything was told to anybody.
    let starting = home.run(["--quiet", "-d", "base", "sleep", "1000"]).start();
    let (supervisor, engine) = leftovers::running(&home);
    starting.signal(Signal::KILL);
    _ = starting.wait();
    eventually("what nobody knows of is gone", Duration::from_secs(20), || {
        !processes::alive(supervisor) && !processes::alive(engine)
    });
    assert!(home.ps(["-a"]).is_empty(), "half a sandbox is kept");
    leftovers::assert_none(&home);
}
