//! Forks: that copies go on from where their parent was, are machines of their own, and leave nothing behind.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use cellule_tests::sandbox::Sandbox;
use cellule_tests::{HANG, Home, eventually, leftovers, processes};

/// A main program that counts, once in a tenth of a second.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";

fn counter<'a>(home: &'a Home, name: &str) -> Sandbox<'a> {
    let sandbox = home.detached(["--name", name, "base", "sh", "-c", COUNTER]);
    sandbox.says("\n3\n");
    sandbox
}

/// The numbers that it has counted until now, which must follow one another.
#[track_caller]
fn counted(sandbox: &Sandbox<'_>) -> Vec<u32> {
    let log = sandbox.log();
    let numbers: Vec<u32> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{log}");
    numbers
}

/// Forks by `cellule fork OPTIONS… PARENT`, and returns the copies' names.
#[track_caller]
fn fork(home: &Home, words: &[&str]) -> Vec<String> {
    let words = [&["fork"], words].concat();
    home.cellule(words).output().exits(0).out().lines().map(str::to_owned).collect()
}

#[test]
fn copies_go_on_from_where_their_parent_was_and_so_does_it() {
    let home = Home::new();
    let parent = counter(&home, "web");
    parent.sh("echo before > /file; mkdir /www; echo page > /www/index.html; httpd -p 8080 -h /www");
    let before = *counted(&parent).last().unwrap();
    let outcome = home.cellule(["fork", "web", "-n", "2"]).output().exits(0);
    assert_eq!(outcome.out(), "web-1\nweb-2\n");
    _ = outcome.says(&["web stood still for", "copied"]);
    parent.sh("echo parents > /file");
    let copies = [home.named("web-1"), home.named("web-2")];
    for copy in &copies {
        assert_eq!(copy.sh("cat /file"), "before\n");
        assert_eq!(copy.sh("wget -qO- http://127.0.0.1:8080/"), "page\n");
        copy.sh("echo mine > /file; echo mine > /www/index.html");
        let first = counted(copy)[0];
        assert!(first > before, "it counts {first} a second time");
        eventually("it counts on", HANG, || counted(copy).len() > 5);
        let start = &copy.inspect()["start"];
        assert_eq!((start["kind"].as_str(), start["from"].as_str()), (Some("saved"), Some("a fork of web")));
    }
    assert_eq!(parent.sh("cat /file /www/index.html"), "parents\npage\n");
    let now = counted(&parent).len();
    eventually("the parent counts on", HANG, || counted(&parent).len() > now);

    // Each needs nobody else: not the parent, and not one another.
    let [first, second] = copies;
    _ = parent.remove();
    _ = first.remove();
    assert_eq!(second.sh("cat /file"), "mine\n");
    assert_eq!(second.sh("wget -qO- http://127.0.0.1:8080/"), "mine\n");
    _ = second.remove();
    leftovers::assert_none(&home);
}

#[test]
fn copies_are_machines_of_their_own() {
    let home = Home::new();
    let parent = home.detached(["--name", "web", "base", "sleep", "1000"]);
    // What another process keeps in its memory is the same, and what it draws from then on is not.
    let draws = "exec 3</dev/urandom; : > /drawn; while [ ! -e /go ]; do sleep 0.05; done; head -c 16 <&3 | od -An -tx1 > /drawn";
    _ = parent.exec(&["-d"], &["sh", "-c", draws]).output().exits(0);
    eventually("it waits", HANG, || parent.sh("ls /").contains("drawn"));
    let names = fork(&home, &["web", "-n", "3", "-q"]);
    let mut sandboxes: Vec<Sandbox<'_>> = names.iter().map(|name| home.named(name)).collect();
    sandboxes.push(parent);
    let script = "touch /go; cat /etc/machine-id; hostname; cat /proc/sys/kernel/random/boot_id; mktemp -u; \
                  od -An -tx1 -N16 /dev/urandom; while [ ! -s /drawn ]; do sleep 0.05; done; cat /drawn";
    let said: Vec<String> = sandboxes.iter().map(|sandbox| sandbox.sh(script)).collect();
    let kinds =
        ["machine id", "hostname", "boot id", "mktemp", "urandom", "urandom of a process that was there"];
    for (at, kind) in kinds.iter().enumerate() {
        let values: HashSet<&str> = said.iter().map(|said| said.lines().nth(at).unwrap()).collect();
        assert_eq!(values.len(), 4, "the {kind} is the same: {said:#?}");
    }
    for sandbox in sandboxes {
        assert_eq!(sandbox.sh("hostname").trim(), sandbox.id());
        _ = sandbox.remove();
    }
    leftovers::assert_none(&home);
}

#[test]
fn a_program_learns_that_it_is_in_a_copy_and_finds_the_right_time() {
    let home = Home::new();
    let watch = "id=$(cat /etc/machine-id); while :; do now=$(cat /etc/machine-id); \
                 [ $now = $id ] || { echo copied at $(date +%s); id=$now; }; sleep 0.05; done";
    let parent = home.detached(["--name", "web", "base", "sh", "-c", watch]);
    thread::sleep(Duration::from_millis(300));
    let copy = home.named(&fork(&home, &["web"])[0]);
    copy.says("copied at");
    let at: u64 = copy.log().trim().rsplit(' ').next().unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(at.abs_diff(now) <= 60, "{at} is not {now}");
    assert_eq!(parent.log(), "");
    _ = copy.remove();
    _ = parent.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_command_that_runs_in_the_parent_goes_on_in_both() {
    let home = Home::new();
    let parent = home.detached(["--name", "web", "base", "sleep", "1000"]);
    let count = "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i > /count; sleep 0.05; done; exit 7";
    let exec = parent.exec(&[], &["sh", "-c", count]).start();
    eventually("it counts", HANG, || parent.sh("cat /count || true").trim().parse().unwrap_or(0) > 3);
    let copy = home.named(&fork(&home, &["web"])[0]);
    let number = || copy.sh("cat /count").trim().parse::<u32>().unwrap();
    let first = number();
    assert!(first > 3);
    eventually("the copy of the command counts on", HANG, || number() > first);
    copy.sh("touch /stop");
    // The one whose client is there ends for nobody else.
    thread::sleep(Duration::from_millis(300));
    parent.sh("touch /stop");
    assert_eq!(exec.wait().code(), 7);
    _ = copy.remove();
    _ = parent.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_fork_of_a_fork_has_all_of_both() {
    let home = Home::new();
    let mut parent = counter(&home, "g-a");
    for (generation, name) in ["g-b", "g-c", "g-d"].iter().enumerate() {
        parent.sh(&format!("echo {generation} >> /generations"));
        eventually("it counts", HANG, || !counted(&parent).is_empty());
        let last = *counted(&parent).last().unwrap();
        assert_eq!(fork(&home, &["--name", name, parent.id()]), [*name]);
        let copy = home.named(name);
        assert!(counted(&copy).first().is_none_or(|first| *first > last));
        _ = parent.remove();
        parent = copy;
    }
    assert_eq!(parent.sh("cat /generations"), "0\n1\n2\n");
    _ = parent.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_fork_that_is_started_again_begins_where_it_was_forked() {
    let home = Home::new();
    let parent = counter(&home, "web");
    parent.sh("echo kept > /file");
    let copy = home.named(&fork(&home, &["web"])[0]);
    eventually("it counts", HANG, || !counted(&copy).is_empty());
    let first = counted(&copy)[0];
    copy.sh("echo changed > /file");
    _ = parent.remove();
    _ = copy.call(["restart", "-t", "1"]).output().exits(0);
    assert_eq!(copy.sh("cat /file"), "kept\n");
    let again = || copy.log().lines().filter(|line| *line == first.to_string()).count();
    eventually("it counts from there again", HANG, || again() == 2);
    _ = copy.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_paused_parent_stays_so_and_its_copies_run() {
    let home = Home::new();
    let parent = counter(&home, "web");
    _ = parent.call(["pause"]).output().exits(0);
    let stood = counted(&parent).len();
    let copy = home.named(&fork(&home, &["web"])[0]);
    eventually("the copy counts", HANG, || counted(&copy).len() > 3);
    assert_eq!((parent.state().as_str(), counted(&parent).len()), ("paused", stood));
    _ = parent.call(["unpause"]).output().exits(0);
    eventually("the parent counts on", HANG, || counted(&parent).len() > stood);
    _ = parent.remove();
    _ = copy.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_parent_that_is_written_to_meanwhile_is_copied_whole() {
    let home = Home::new();
    let parent = home.detached(["--name", "web", "base", "sleep", "1000"]);
    // What comes over the port of a guest that stands still is put into its memory all the same.
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    let flood = parent.exec(&["-i"], &["sh", "-c", "cat > /dev/null"]).with(|call| _ = call.stdin(zeros));
    let mut flood = flood.start_raw();
    for _ in 0..6 {
        let copy = home.named(&fork(&home, &["web"])[0]);
        assert_eq!(copy.sh("echo well"), "well\n");
        _ = copy.remove();
        assert_eq!(parent.sh("echo well"), "well\n");
    }
    assert!(flood.try_wait().unwrap().is_none(), "what was being written to is gone");
    flood.kill().unwrap();
    _ = flood.wait();
    _ = parent.remove();
    leftovers::assert_none(&home);
}

#[test]
fn what_cannot_be_forked_says_why_and_leaves_nothing() {
    let home = Home::new();
    _ = home.cellule(["fork", "nobody"]).output().exits(125).says(&["there is no sandbox"]);
    let parent = counter(&home, "web");
    _ = home.cellule(["fork", "web", "--name", "a/b"]).output().exits(125).says(&["a/b", "is no name"]);
    _ = home.cellule(["fork", "web", "--name", "web"]).output().exits(125).says(&["in use"]);
    _ = home.cellule(["fork", "web", "-n", "0"]).output().exits(125).says(&["0"]);
    let taken = home.detached(["--name", "x-2", "base", "sleep", "1000"]);
    _ = home
        .cellule(["fork", "web", "-n", "2", "--name", "x-{}"])
        .output()
        .exits(125)
        .says(&["x-2", "in use"]);
    assert_eq!(home.ps(["-a"]).len(), 2);
    _ = taken.remove();
    let count = counted(&parent).len();
    eventually("the parent counts on", HANG, || counted(&parent).len() > count);
    _ = parent.call(["stop", "-t", "0"]).output().exits(0);
    _ = home.cellule(["fork", "web"]).output().exits(125).says(&["stopped", "cellule start"]);
    _ = parent.remove();
    leftovers::assert_none(&home);
}

#[test]
fn whoever_is_killed_while_it_forks_leaves_nothing() {
    let home = Home::new();
    let parent = counter(&home, "web");
    for after in [10, 40, 80, 150, 250, 400] {
        let call = home.cellule(["fork", "web", "-n", "2", "-q"]).start();
        thread::sleep(Duration::from_millis(after));
        call.signal(rustix::process::Signal::KILL);
        _ = call.wait();
        clear(&home, &parent);
        let count = counted(&parent).len();
        eventually("the parent counts on", HANG, || counted(&parent).len() > count);
    }
    // Its supervisor is what saves it.
    let call = home.cellule(["fork", "web", "-n", "2", "-q"]).start();
    thread::sleep(Duration::from_millis(30));
    processes::kill(parent.pids().0);
    let outcome = call.wait();
    assert!([0, 125].contains(&outcome.code()), "{}", outcome.err());
    clear(&home, &parent);
    _ = parent.remove();
    leftovers::assert_none(&home);
}

/// Removes all but this one, once each is what it will be: copies that went on already belonged to who made them, and ended
/// with it, unless it had let go of them.
fn clear(home: &Home, but: &Sandbox<'_>) {
    let settled =
        |one: &serde_json::Value| ["running", "stopped", "failed"].iter().any(|state| one["state"] == *state);
    eventually("all are what they will be", HANG, || home.ps(["-a"]).iter().all(settled));
    for one in home.ps(["-a"]) {
        let id = one["id"].as_str().unwrap();
        if id != but.id() {
            _ = home.cellule(["rm", "-f", id]).output().exits(0);
        }
    }
}

#[test]
fn connections_of_the_parent_are_the_parents_and_a_copy_hears_at_once_that_it_has_none() {
    let home = Home::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let parent = home.detached(["--name", "web", "--expose-host", &port, "base", "sleep", "inf"]);
    // It reads what never comes, so that it would not find out by itself.
    parent.sh(&format!(
        "(nc host.cellule.internal {port} </dev/zero >/dev/null; echo over > /over) >/dev/null 2>&1 &"
    ));
    parent.sh(&format!("(sleep inf | nc host.cellule.internal {port}; echo over > /over) >/dev/null 2>&1 &"));
    let mut streams = [listener.accept().unwrap().0, listener.accept().unwrap().0];
    fork(&home, &["web", "-n", "1"]);
    let copy = home.named("web-1");
    let is_over = |sandbox: &Sandbox<'_>| sandbox.sh("cat /over 2>/dev/null; true").contains("over");
    eventually("the copy's connection is reset", HANG, || is_over(&copy));
    assert!(!is_over(&parent), "the parent lost its connection");
    for stream in &mut streams {
        std::io::Write::write_all(stream, b"still here").unwrap();
    }
}
