//! Pools: that what is ready is there at once and a machine of its own, that a burst waits, and that nothing is left.

use std::fs;
use std::thread;

use cellule_tests::{HANG, Home, eventually, leftovers, processes};
use serde_json::Value;

fn create(home: &Home, words: &[&str]) {
    let words = [&["pool", "create", "pool", "--image", "base"], words].concat();
    assert_eq!(home.cellule(words).output().exits(0).out(), "pool\n");
}

#[track_caller]
fn stats(home: &Home) -> Value {
    let text = home.cellule(["pool", "stats", "pool"]).output().exits(0).out();
    let mut all: Vec<Value> = serde_json::from_str(&text).unwrap();
    all.remove(0)
}

fn counts(home: &Home) -> (u64, u64) {
    let stats = stats(home);
    (stats["ready"].as_u64().unwrap(), stats["in_use"].as_u64().unwrap())
}

fn remove(home: &Home) {
    assert_eq!(home.cellule(["pool", "rm", "pool"]).output().exits(0).out(), "pool\n");
    assert!(!home.path().join("pools/pool").exists());
    leftovers::assert_none(home);
}

#[test]
fn what_is_taken_is_a_sandbox_like_any_other_and_another_takes_its_place() {
    let home = Home::new();
    create(&home, &["--min", "1", "--max", "3", "--memory", "300m"]);
    assert!(home.ps(["-a"]).is_empty(), "what is nobody's is no sandbox");
    let script = "cat /etc/machine-id; hostname; od -An -tx1 -N8 /dev/urandom; echo $WHO; id -u; pwd; exit 3";
    let words =
        ["run", "--verbose", "--pool", "pool", "-e", "WHO=me", "-u", "7", "-w", "/tmp", "sh", "-c", script];
    let said: Vec<String> =
        (0..2).map(|_| home.cellule(words).output().exits(3).says(&["warm start"]).out()).collect();
    for (at, kind) in ["machine id", "hostname", "urandom"].iter().enumerate() {
        assert_ne!(said[0].lines().nth(at), said[1].lines().nth(at), "the {kind} is the same");
    }
    for said in &said {
        assert_eq!(said.lines().skip(3).collect::<Vec<_>>(), ["me", "7", "/tmp"]);
    }
    // One that stays, with a name, a log and a restart.
    let id = home.cellule([
        "run",
        "-q",
        "-d",
        "--pool",
        "pool",
        "--name",
        "mine",
        "--network",
        "none",
        "-p",
        "0:80",
        "sh",
        "-c",
        "echo hello; sleep 1000",
    ]);
    let sandbox = home.sandbox(id.output().exits(0).out().trim());
    sandbox.says("hello");
    assert_eq!(sandbox.sh("hostname").trim(), sandbox.id());
    assert_eq!(sandbox.inspect()["resources"]["memory_bytes"], 300 << 20);
    // The network is the sandbox's own, and no matter of the pool's.
    let network = &sandbox.inspect()["network"];
    assert_eq!((&network["mode"], &network["ports"][0]["guest"]), (&"none".into(), &80.into()));
    _ = sandbox.call(["logs", "--console"]).output().exits(0);
    assert!(sandbox.dir().join("log/supervisor.log").exists() && sandbox.dir().join("log/main.log").exists());
    eventually("another is ready", HANG, || counts(&home).0 >= 1 && counts(&home).1 == 1);
    _ = sandbox.call(["restart", "-t", "0"]).output().exits(0);
    assert_eq!(sandbox.sh("echo well"), "well\n");
    // Restarted, it has a supervisor of its own, and is the pool's no more.
    eventually("it is not the pool's", HANG, || counts(&home).1 == 0);
    let listed = home.cellule(["pool", "ls"]).output().exits(0).out();
    assert!(listed.contains("kept") && listed.contains("base"), "{listed}");
    _ = sandbox.remove();
    remove(&home);
}

#[test]
fn a_burst_waits_for_its_turn_and_more_are_kept_ready_for_the_next() {
    let home = Home::new();
    create(&home, &["--min", "1", "--max", "2"]);
    let outputs: Vec<String> = thread::scope(|scope| {
        let home = &home;
        let runs: Vec<_> = (0..5)
            .map(|n| {
                let word = n.to_string();
                scope.spawn(move || {
                    let words = ["run", "-q", "--pool", "pool", "sh", "-c", "sleep 0.2; echo $0", &word];
                    home.cellule(words).output().exits(0).out()
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(outputs, ["0\n", "1\n", "2\n", "3\n", "4\n"]);
    assert_eq!(stats(&home)["taken"], 5);
    assert_eq!(stats(&home)["wanted"], 2);
    // With all in use nobody is let in, and is told so in time.
    let mut busy = Vec::new();
    for _ in 0..2 {
        busy.push(
            home.cellule(["run", "-q", "-d", "--pool", "pool", "sleep", "1000"]).output().exits(0).out(),
        );
    }
    eventually("all are in use", HANG, || counts(&home) == (0, 2));
    for id in &busy {
        _ = home.cellule(["rm", "-f", id.trim()]).output().exits(0);
    }
    eventually("their places are free", HANG, || counts(&home) == (2, 0));
    remove(&home);
}

#[test]
fn an_idle_pool_shrinks_to_its_least_and_a_full_one_says_so() {
    let home = Home::new();
    create(&home, &["--min", "1", "--max", "2", "--idle-timeout", "20s", "--acquire-timeout", "2s"]);
    let run = || home.cellule(["run", "-q", "-d", "--pool", "pool", "sleep", "1000"]).output();
    let first = run().exits(0).out();
    eventually("one more is ready", HANG, || counts(&home).0 == 1);
    let second = run().exits(0).out();
    _ = run().exits(125).says(&["at most 2, 2 are in use"]);
    for id in [first, second] {
        _ = home.cellule(["rm", "-f", id.trim()]).output().exits(0);
    }
    eventually("two are ready", HANG, || counts(&home).0 == 2);
    eventually("one is enough", HANG, || counts(&home) == (1, 0) && stats(&home)["wanted"] == 1);
    remove(&home);
}

#[test]
fn a_claim_that_is_given_up_costs_no_machine_and_the_pool_goes_on() {
    let home = Home::new();
    create(&home, &["--min", "1", "--max", "2"]);
    for after in [20, 35, 50, 70, 100] {
        let call = home.cellule(["run", "-q", "--pool", "pool", "sleep", "1000"]).start();
        thread::sleep(std::time::Duration::from_millis(after));
        call.signal(rustix::process::Signal::KILL);
        _ = call.wait();
        let words = ["run", "-q", "--pool", "pool", "echo", "well"];
        assert_eq!(home.cellule(words).output().exits(0).out(), "well\n", "after {after} ms");
    }
    _ = home.ps(["-a"]);
    remove(&home);
}

#[test]
fn what_warm_ups_left_is_in_each_of_a_pool() {
    let home = Home::new();
    let warm_up = [
        "--warmup",
        "mkdir /www; echo page > /www/index.html",
        "--warmup-detach",
        "httpd -f -p 8080 -h /www",
        "--ready-port",
        "8080",
    ];
    create(&home, &warm_up);
    for _ in 0..2 {
        let words = ["run", "-q", "--pool", "pool", "wget", "-qO-", "http://127.0.0.1:8080/"];
        assert_eq!(home.cellule(words).output().exits(0).out(), "page\n");
    }
    remove(&home);
}

#[test]
fn whoever_keeps_it_or_is_kept_may_be_killed() {
    let home = Home::new();
    create(&home, &["--min", "2", "--max", "3"]);
    eventually("two are ready", HANG, || counts(&home).0 == 2);
    let taken = home.cellule(["run", "-q", "-d", "--pool", "pool", "sleep", "1000"]).output().exits(0).out();
    let taken = home.sandbox(taken.trim());
    eventually("two are ready", HANG, || counts(&home).0 == 2);
    // One that waits: whoever comes gets another, and a new one takes its place.
    let ready = fs::read_dir(home.path().join("pools/pool/ready")).unwrap().next().unwrap().unwrap();
    let id = ready.file_name().into_string().unwrap();
    let (supervisor, _) = leftovers::all_processes()
        .into_iter()
        .find(|(_, line)| line.contains("supervise") && line.contains(&id))
        .unwrap();
    processes::kill(supervisor);
    assert_eq!(
        home.cellule(["run", "-q", "--pool", "pool", "echo", "well"]).output().exits(0).out(),
        "well\n"
    );
    eventually("it was replaced", HANG, || counts(&home) == (2, 1));
    // The keeper: what waits goes with it, what was taken stays.
    let keeper = fs::read_to_string(home.path().join("pools/pool/state.json")).unwrap();
    let keeper: Value = serde_json::from_str(&keeper).unwrap();
    processes::kill(u32::try_from(keeper["keeper_pid"].as_u64().unwrap()).unwrap());
    eventually("what waited is gone", HANG, || {
        let ours = leftovers::processes(&home);
        !ours.iter().any(|line| line.contains("--standby") && !line.contains(taken.id()))
    });
    let refused = home.cellule(["run", "-q", "--pool", "pool", "true"]).output().exits(125);
    _ = refused.says(&["keeper was killed", "cellule pool start pool"]);
    assert_eq!(taken.sh("echo well"), "well\n");
    assert_eq!(stats(&home)["state"], "stopped");
    assert_eq!(home.cellule(["pool", "start", "pool"]).output().exits(0).out(), "pool\n");
    assert_eq!(
        home.cellule(["run", "-q", "--pool", "pool", "echo", "well"]).output().exits(0).out(),
        "well\n"
    );
    _ = taken.remove();
    remove(&home);
}

#[test]
fn mistakes_are_told_where_they_are_made() {
    let home = Home::new();
    let pool = |words: &[&str]| home.cellule([&["pool"], words].concat()).output().exits(125);
    _ = pool(&["create", "pool", "--image", "base", "--min", "3", "--max", "2"]).says(&["that is no pool"]);
    _ = pool(&["create", "pool", "--image", "base", "--min", "0"]).says(&["at least one"]);
    _ = pool(&["create", "pool", "--image", "/no/such/image"]).says(&["/no/such/image"]);
    _ = pool(&["create", "pool", "--image", "base", "--memory", "1m"]).says(&["--memory"]);
    _ = pool(&["rm", "pool"]).says(&["no pool", "pool ls"]);
    _ = home.cellule(["run", "--pool", "pool", "true"]).output().exits(125).says(&["no pool", "pool ls"]);
    assert!(!home.path().join("pools/pool").exists());
    create(&home, &[]);
    _ = pool(&["create", "pool", "--image", "base"]).says(&["already", "pool rm"]);
    let words = ["run", "--pool", "pool", "--memory", "1g", "true"];
    _ = home.cellule(words).output().exits(125).says(&["--memory"]);
    let named = home.detached(["--name", "taken", "base", "sleep", "1000"]);
    let words = ["run", "-q", "--pool", "pool", "--name", "taken", "true"];
    _ = home.cellule(words).output().exits(125).says(&["in use"]);
    assert_eq!(
        home.cellule(["run", "-q", "--pool", "pool", "echo", "well"]).output().exits(0).out(),
        "well\n"
    );
    let words = ["run", "-q", "--pool", "pool", "no-such-program"];
    _ = home.cellule(words).output().exits(127).says(&["no-such-program"]);
    // Whoever is refused takes no machine from others.
    assert_eq!(stats(&home)["failed"], 0);
    _ = named.remove();
    // What cannot be read can be removed.
    fs::write(home.path().join("pools/pool/pool.json"), "{").unwrap();
    _ = home.cellule(["run", "--pool", "pool", "true"]).output().exits(125).says(&["pool rm pool"]);
    remove(&home);
}
