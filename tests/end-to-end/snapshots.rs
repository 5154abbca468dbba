//! Snapshots: that sandboxes go on from them as they were, however deep, and that damage is told and never run.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use cellule_tests::sandbox::Sandbox;
use cellule_tests::{HANG, Home, eventually, leftovers};
use rustix::process::Signal;
use serde_json::Value;

/// Makes one and returns its name.
#[track_caller]
fn snapshot(sandbox: &Sandbox<'_>, name: &str) -> String {
    let outcome = sandbox.call_with(&["snapshot", "create"], &[name]).output().exits(0);
    outcome.says(&["stood still for", "takes"]).out().trim().to_owned()
}

#[track_caller]
fn start<'a>(home: &'a Home, snapshot: &str) -> Sandbox<'a> {
    home.sandbox(home.cellule(["start", "--from", snapshot]).output().exits(0).out().trim())
}

fn dir(home: &Home, snapshot: &str) -> PathBuf {
    home.path().join("snapshots").join(snapshot)
}

fn list(home: &Home) -> Vec<Value> {
    let text = home.cellule(["snapshot", "ls", "--format", "json"]).output().exits(0).out();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_ran_goes_on_in_each_sandbox_that_is_started_from_a_snapshot() {
    let home = Home::new();
    let count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";
    let first = home.detached(["--name", "web", "--label", "a=b", "base", "sh", "-c", count]);
    // A server, a connection within the guest that both ends hold open, and a file that has no name any more.
    first.sh("mkdir /www; echo page > /www/index.html; httpd -p 8080 -h /www");
    _ = first.exec(&["-d"], &["sh", "-c", "mkfifo /in; nc -l -p 9000 > /heard <> /in"]).output().exits(0);
    eventually("it listens", HANG, || first.sh("netstat -tln").contains(":9000"));
    let talk = "exec 3> /open; rm /open; (i=0; while [ ! -e /end ]; do i=$((i+1)); echo $i; sleep 0.1; done) | nc 127.0.0.1 9000";
    _ = first.exec(&["-d"], &["sh", "-c", talk]).output().exits(0);
    eventually("it talks", HANG, || first.sh("wc -l < /heard || true").trim().parse().unwrap_or(0) > 3);
    assert_eq!(snapshot(&first, "ready"), "ready");
    let before: usize = first.log().lines().count();
    _ = first.remove();

    let copies = [start(&home, "ready"), start(&home, "ready")];
    for copy in &copies {
        assert_eq!(copy.sh("wget -qO- http://127.0.0.1:8080/"), "page\n");
        let lines = || copy.sh("wc -l < /heard").trim().parse::<u32>().unwrap();
        let heard = lines();
        eventually("the connection goes on", HANG, || lines() > heard + 3);
        eventually("the main program goes on", HANG, || copy.log().lines().count() > 3);
        let first_number: usize = copy.log().lines().next().unwrap().parse().unwrap();
        assert!(
            (1..=before + 10).contains(&first_number) && first_number > 1,
            "it begins with {first_number}"
        );
        let known = copy.inspect();
        assert_eq!(
            (&known["start"]["kind"], &known["start"]["from"]),
            (&"saved".into(), &"the snapshot ready".into())
        );
        assert_eq!(known["labels"]["a"], "b");
    }
    // It is needed by nobody who has started.
    assert_eq!(home.cellule(["snapshot", "rm", "ready"]).output().exits(0).out(), "ready\n");
    for copy in copies {
        assert_eq!(copy.sh("find / -xdev | wc -l > /dev/null; echo well"), "well\n");
        _ = copy.remove();
    }
    leftovers::assert_none(&home);
}

#[test]
fn a_snapshot_of_a_copy_of_a_snapshot_has_all_of_them_and_stays_small() {
    let home = Home::new();
    let mut sandbox = home.detached(["base", "sleep", "100000"]);
    for generation in 0..4 {
        sandbox
            .sh(&format!("echo {generation} >> /generations; head -c 1000000 /dev/urandom > /{generation}"));
        let name = snapshot(&sandbox, &format!("g{generation}"));
        _ = sandbox.remove();
        sandbox = start(&home, &name);
    }
    assert_eq!(sandbox.sh("cat /generations"), "0\n1\n2\n3\n");
    // A fork of one, and a snapshot of that.
    _ = sandbox.call_with(&["fork", "--name", "forked"], &[]).output().exits(0);
    let forked = home.named("forked");
    forked.sh("echo f >> /generations");
    _ = snapshot(&forked, "f");
    let last = start(&home, "f");
    assert_eq!(last.sh("cat /generations; cat /0 /1 /2 /3 | wc -c"), "0\n1\n2\n3\nf\n4000000\n");
    for one in list(&home) {
        let bytes = one["disk_bytes"].as_u64().unwrap();
        assert!(bytes < 30 << 20, "{} takes {bytes} bytes", one["name"]);
    }
    for sandbox in [sandbox, forked, last] {
        _ = sandbox.remove();
    }
    leftovers::assert_none(&home);
}

#[test]
fn snapshots_are_named_listed_and_pruned() {
    let home = Home::new();
    let web = home.detached(["--name", "web", "base", "sleep", "100000"]);
    let create = |words: &[&str]| {
        home.cellule([&["snapshot", "create"], words].concat()).output().exits(0).out().trim().to_owned()
    };
    assert_eq!(create(&["web", "--label", "stage=one", "-q"]), "web-1");
    assert_eq!(create(&["web"]), "web-2");
    assert_eq!(create(&["web", "third"]), "third");
    let again = home.cellule(["snapshot", "create", "web", "third"]).output().exits(125);
    _ = again.says(&["already", "snapshot rm third"]);
    _ = home
        .cellule(["snapshot", "create", "web", "a/b"])
        .output()
        .exits(125)
        .says(&["a snapshot's name has"]);
    let names: Vec<String> = list(&home).iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["third", "web-2", "web-1"]);
    let text = home.cellule(["snapshot", "inspect", "web-1"]).output().exits(0).out();
    let known: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&known[0]["sandbox"], &known[0]["labels"]["stage"]), (&"web".into(), &"one".into()));
    assert!(known[0]["origin"].as_str().unwrap().starts_with("qemu "), "{known}");
    let out = home.cellule(["snapshot", "prune", "--keep", "2"]).output().exits(0).out();
    assert!(out.starts_with("deleted web-1\nfreed "), "{out}");
    assert_eq!(home.cellule(["snapshot", "ls", "-q"]).output().exits(0).out(), "third\nweb-2\n");
    _ = home.cellule(["snapshot", "rm", "web-1"]).output().exits(125).says(&["no snapshot", "snapshot ls"]);
    _ = home.cellule(["start", "--from", "web-1"]).output().exits(125).says(&["no snapshot", "snapshot ls"]);
    // Its image is needed as long as it is there.
    _ = web.remove();
    _ = home.cellule(["image", "rm", "base"]).output().exits(125).says(&["the snapshot"]);
    leftovers::assert_none(&home);
}

#[test]
fn a_paused_sandbox_is_saved_as_it_stands() {
    let home = Home::new();
    let count = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.05; done";
    let sandbox = home.detached(["base", "sh", "-c", count]);
    eventually("it counts", HANG, || sandbox.sh("cat /count || true").trim().parse().unwrap_or(0) > 3);
    _ = sandbox.call(["pause"]).output().exits(0);
    _ = snapshot(&sandbox, "still");
    assert_eq!(sandbox.state(), "paused");
    let copy = start(&home, "still");
    let number = |sandbox: &Sandbox<'_>| sandbox.sh("cat /count").trim().parse::<u32>().unwrap_or(0);
    let first = number(&copy);
    eventually("the copy counts", HANG, || number(&copy) > first);
    _ = sandbox.call(["unpause"]).output().exits(0);
    let first = number(&sandbox);
    eventually("it counts on", HANG, || number(&sandbox) > first);
    _ = sandbox.remove();
    _ = copy.remove();
    leftovers::assert_none(&home);
}

#[test]
fn one_can_be_attached_to_from_its_beginning() {
    let home = Home::new();
    let echo = "while read line; do echo \"heard $line\"; done; echo end; exit 4";
    let sandbox = home.detached(["-i", "--name", "web", "base", "sh", "-c", echo]);
    _ = snapshot(&sandbox, "ready");
    _ = sandbox.remove();
    let call =
        home.cellule(["start", "--from", "ready", "--name", "again", "-i"]).stdin("one\ntwo\n").start();
    eventually("it is there", HANG, || !home.ps(["-f", "name=again"]).is_empty());
    let again = home.named("again");
    again.says("heard two");
    // Its input is the sandbox's, which is not over when this one's is.
    _ = again.call(["kill"]).output().exits(0);
    let outcome = call.wait();
    assert_eq!((outcome.code(), outcome.out().as_str()), (137, "heard one\nheard two\n"));
    _ = again.remove();
    leftovers::assert_none(&home);
}

#[test]
fn damage_is_told_by_name_and_nothing_of_it_runs() {
    type Harm = fn(&Path);
    fn change(path: &Path, at: u64) {
        let file = fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        thread::sleep(Duration::from_millis(20));
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }
    fn edit(dir: &Path, from: &str, to: &str) {
        let path = dir.join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }
    let harms: [(&str, Harm); 11] = [
        ("memory cannot be read", |dir| fs::remove_file(dir.join("memory")).unwrap()),
        ("instead of", |dir| {
            fs::File::options().write(true).open(dir.join("memory")).unwrap().set_len(1 << 20).unwrap();
        }),
        ("changed since it was saved", |dir| change(&dir.join("memory"), 4096)),
        ("file devices is not what was saved", |dir| change(&dir.join("devices"), 100)),
        ("file pages is not what was saved", |dir| change(&dir.join("pages"), 3)),
        ("file pages is not what was saved", |dir| fs::write(dir.join("pages"), b"").unwrap()),
        ("base cannot be read", |dir| fs::remove_file(dir.join("base")).unwrap()),
        ("cannot be understood", |dir| fs::write(dir.join("manifest.json"), b"[").unwrap()),
        ("it has format", |dir| edit(dir, "\"format\": ", "\"format\": 9")),
        ("it was saved by qemu 0.", |dir| edit(dir, "\"version\": \"", "\"version\": \"0.")),
        ("kHz", |dir| edit(dir, "\"tsc_khz\": ", "\"tsc_khz\": 1")),
    ];
    let home = Home::new();
    let sandbox = home.detached(["base", "sleep", "100000"]);
    for (words, harm) in harms {
        let name = snapshot(&sandbox, "one");
        harm(&dir(&home, &name));
        let outcome = home.cellule(["start", "--from", "one"]).output().exits(125);
        assert!(outcome.err().contains(words), "{words}: {}", outcome.err());
        let listed = list(&home);
        assert_eq!(listed.len(), 1);
        _ = home.cellule(["snapshot", "rm", "one"]).output().exits(0);
    }
    assert_eq!(home.ps(["-a"]).len(), 1);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn an_exported_snapshot_goes_on_elsewhere_and_what_is_cut_or_of_another_host_does_not() {
    let home = Home::new();
    let count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";
    let sandbox = home.detached(["--name", "web", "--label", "a=b", "base", "sh", "-c", count]);
    sandbox.sh("echo kept > /file");
    sandbox.says("\n3\n");
    _ = snapshot(&sandbox, "one");
    let before = sandbox.log().lines().count();
    _ = sandbox.remove();
    let file = home.file("one.cell");
    _ = home.cellule(["snapshot", "export", "-o", &file, "one"]).output().exits(0);
    let piped = home.cellule(["snapshot", "export", "one"]).output().exits(0).stdout;
    assert!(piped.len() < 60 << 20, "{} bytes", piped.len());

    let elsewhere = Home::new();
    assert_eq!(elsewhere.cellule(["snapshot", "import", "-i", &file]).output().exits(0).out(), "web-1\n");
    assert_eq!(
        elsewhere.cellule(["snapshot", "import", "two"]).stdin(piped).output().exits(0).out(),
        "two\n"
    );
    for name in ["web-1", "two"] {
        let copy = start(&elsewhere, name);
        assert_eq!(copy.sh("cat /file"), "kept\n");
        copy.says("\n");
        let first: usize = copy.log().lines().next().unwrap().parse().unwrap();
        assert!(first > 1 && first <= before + 10, "it begins with {first}");
        // One from there is as any other.
        assert_eq!(snapshot(&copy, &format!("again-{name}")), format!("again-{name}"));
        _ = copy.remove();
    }
    let import =
        |file: &str| elsewhere.cellule(["snapshot", "import", "-i", file, "three"]).output().exits(125);
    let bytes = fs::read(&file).unwrap();
    let changed = home.file("changed.cell");
    fs::write(&changed, &bytes[..bytes.len() / 2]).unwrap();
    _ = import(&changed).says(&["it is cut"]);
    let mut altered = bytes.clone();
    altered[bytes.len() / 2] ^= 1;
    fs::write(&changed, &altered).unwrap();
    _ = import(&changed).says(&["is damaged"]);
    fs::write(&changed, "no archive").unwrap();
    _ = import(&changed).says(&["no archive of a snapshot"]);
    _ = import("/no/such/file").says(&["/no/such/file"]);
    // Another version of the engine made it.
    let path = dir(&home, "one").join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"version\": \"", "\"version\": \"0.", 1)).unwrap();
    _ = home.cellule(["snapshot", "export", "-o", &changed, "one"]).output().exits(0);
    _ = import(&changed).says(&["cannot go on", "it was saved by qemu 0.", "here is qemu"]);
    assert!(!list(&elsewhere).iter().any(|one| one["name"] == "three"));
    leftovers::assert_none(&home);
    leftovers::assert_none(&elsewhere);
}

#[test]
fn whoever_is_killed_while_it_saves_leaves_nothing_or_all() {
    let home = Home::new();
    let sandbox = home.detached(["base", "sleep", "100000"]);
    sandbox.sh("head -c 30000000 /dev/urandom > /file; sha256sum /file > /sum");
    let mut whole = 0;
    for after in [5, 20, 40, 60, 90, 130, 200] {
        let name = format!("after-{after}");
        let call = sandbox.call_with(&["snapshot", "create"], &[&name]).start();
        thread::sleep(Duration::from_millis(after));
        call.signal(Signal::KILL);
        _ = call.wait();
        let there = list(&home).iter().any(|one| one["name"] == *name);
        assert_eq!(sandbox.sh("sha256sum -c /sum"), "/file: OK\n");
        if there {
            whole += 1;
            let copy = start(&home, &name);
            assert_eq!(copy.sh("sha256sum -c /sum"), "/file: OK\n");
            _ = copy.remove();
        }
    }
    assert!(whole < 7, "none was killed in time");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn without_room_for_it_there_is_no_snapshot_and_the_sandbox_goes_on() {
    if !rustix::process::geteuid().is_root() {
        // Only root can mount a small disk; the same tests run as root too.
        return;
    }
    let home = Home::new();
    let snapshots = home.path().join("snapshots");
    fs::create_dir(&snapshots).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=4m", "tmpfs"];
    assert!(Command::new("mount").args(mount).arg(&snapshots).status().unwrap().success());
    let sandbox = home.detached(["base", "sleep", "100000"]);
    let outcome = sandbox.call(["snapshot", "create"]).output();
    let well = sandbox.exec(&[], &["echo", "well"]).output();
    let left = fs::read_dir(&snapshots).unwrap().count();
    _ = sandbox.remove();
    assert!(Command::new("umount").arg(&snapshots).status().unwrap().success());
    _ = outcome.exits(125).says(&["goes on", "no space left", "snapshot rm"]);
    assert_eq!((well.exits(0).out().as_str(), left), ("well\n", 0));
    leftovers::assert_none(&home);
}
