//! Scratch disks: what is written is on them, stays as long as its sandbox, and goes along into copies.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use cellule_tests::processes::kill;
use cellule_tests::sandbox::Sandbox;
use cellule_tests::{HANG, Home, eventually, leftovers};

const MIB: u64 = 1 << 20;

/// What of a sandbox's disk the host keeps, and how large it is, in bytes.
#[track_caller]
fn disk(sandbox: &Sandbox<'_>) -> (u64, u64) {
    let found = fs::metadata(sandbox.dir().join("disk")).unwrap();
    (found.blocks() * 512, found.len())
}

#[track_caller]
fn start_kind(sandbox: &Sandbox<'_>) -> String {
    sandbox.inspect()["start"]["kind"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_on_a_disk_is_there_after_a_stop_a_kill_and_a_restart() {
    let home = Home::new();
    let words = ["--name", "db", "--memory", "160m", "--disk", "300m", "base", "sleep", "100000"];
    let sandbox = home.detached(words);
    assert_eq!(sandbox.inspect()["resources"]["disk_bytes"].as_u64(), Some(300 * MIB));
    let kib: u64 = sandbox.sh("df -k / | awk 'END { print $2 }'").trim().parse().unwrap();
    assert!((250 * 1024..=300 * 1024).contains(&kib), "{kib} KiB");
    assert!(disk(&sandbox).0 < 4 * MIB && disk(&sandbox).1 == 300 * MIB, "{:?}", disk(&sandbox));
    // More than the guest has memory.
    sandbox.sh("head -c 200m /dev/zero | tr '\\0' x > /large; echo kept > /file; echo root > /etc/own; chmod 700 /srv 2>/dev/null; sync");
    assert!(disk(&sandbox).0 > 200 * MIB);
    assert!(home.cellule(["diff", "db"]).output().exits(0).out().contains("A /large\n"));

    _ = home.cellule(["stop", "db"]).output().exits(0);
    _ = home.cellule(["start", "db"]).output().exits(0);
    let all = |sandbox: &Sandbox<'_>| sandbox.sh("cat /file /etc/own; wc -c < /large");
    assert_eq!(all(&sandbox), "kept\nroot\n209715200\n");
    let start = &sandbox.inspect()["start"];
    assert_eq!(
        (start["kind"].as_str(), start["note"].as_str()),
        (Some("cold"), Some("its disk was used before"))
    );

    // What was synced outlives everything.
    sandbox.sh("rm /large; echo changed > /file; sync");
    let (supervisor, _) = sandbox.pids();
    kill(supervisor);
    eventually("it is stopped", HANG, || sandbox.state() == "stopped");
    _ = home.cellule(["start", "db"]).output().exits(0);
    assert_eq!(sandbox.sh("cat /file; ls / | grep -c large; true"), "changed\n0\n");

    // So does what was not, where it ends in any way but by force.
    let words =
        ["--quiet", "--rm=false", "--name", "once", "--memory", "160m", "--disk", "300m", "base", "sh", "-c"];
    let script = "[ ! -e /made ] || cat /made; echo made > /made";
    let once = home.run(words.into_iter().chain([script])).output().exits(0);
    assert_eq!(once.out(), "");
    assert_eq!(home.cellule(["start", "--attach", "once"]).output().exits(0).out(), "made\n");
    _ = home.cellule(["rm", "once"]).output().exits(0);
    sandbox.sh("echo unsynced > /late");
    _ = home.cellule(["kill", "db"]).output().exits(0);
    eventually("it is stopped", HANG, || sandbox.state() == "stopped");
    _ = home.cellule(["start", "db"]).output().exits(0);
    assert_eq!(sandbox.sh("cat /late"), "unsynced\n");

    // A new one has nothing of it, and is warm.
    let other = home.detached(["--memory", "160m", "--disk", "300m", "base", "sleep", "100000"]);
    assert_eq!(start_kind(&other), "warm");
    assert_eq!(other.sh("ls /file /etc/own 2>/dev/null; true"), "");
    for sandbox in [sandbox, other] {
        _ = sandbox.remove();
    }
    leftovers::assert_none(&home);
}

#[test]
fn copies_have_a_disk_of_their_own_as_it_was_and_keep_it() {
    let home = Home::new();
    let words =
        ["--name", "web", "--disk", "128m", "--warmup", "echo warm > /warm", "base", "sleep", "100000"];
    let parent = home.detached(words);
    assert_eq!(parent.sh("cat /warm"), "warm\n");
    // A program holds a file open, of which only the guest's memory knows; what it writes is not synced.
    parent.sh("echo parents > /file; (exec 3> /open; echo one >&3; while [ ! -e /go ]; do sleep 0.1; done; echo two >&3) > /dev/null 2>&1 &");
    parent.sh("head -c 3m /dev/urandom > /data; md5sum /data > /data.md5");
    let is_whole = |sandbox: &Sandbox<'_>| {
        // From the disk, and not from the memory that it came with.
        sandbox.sh("sync; echo 3 > /proc/sys/vm/drop_caches; md5sum -c /data.md5")
    };
    eventually("it is open", HANG, || parent.sh("cat /open 2>/dev/null; true") == "one\n");
    assert_eq!(home.cellule(["fork", "web", "-q", "-n", "2"]).output().exits(0).out(), "web-1\nweb-2\n");
    _ = home.cellule(["snapshot", "create", "web", "saved"]).output().exits(0);
    parent.sh("echo later > /file; rm /warm; sync");
    let copies = [home.named("web-1"), home.named("web-2")];
    for copy in &copies {
        assert_eq!(is_whole(copy), "/data: OK\n");
    }
    copies[0].sh("echo mine > /file; touch /go");
    eventually("it goes on", HANG, || copies[0].sh("cat /open") == "one\ntwo\n");
    assert_eq!(copies[1].sh("cat /warm /file /open"), "warm\nparents\none\n");
    assert_eq!(parent.sh("cat /file"), "later\n");
    // What the warm-up left is not made again over what became of it.
    _ = home.cellule(["restart", "--timeout", "1", "web"]).output().exits(0);
    assert_eq!(parent.sh("ls /warm 2> /dev/null; cat /file"), "later\n");
    assert_eq!(is_whole(&parent), "/data: OK\n");
    _ = parent.remove();

    // Begun again, a copy has its own disk, and not the one that it was copied with.
    _ = home.cellule(["restart", "--timeout", "1", "web-1"]).output().exits(0);
    assert_eq!(copies[0].sh("cat /file /open"), "mine\none\ntwo\n");
    assert_eq!(start_kind(&copies[0]), "cold");
    assert!(!copies[0].dir().join("saved").exists(), "nobody reads it again");

    // A snapshot has it, needs nobody, and goes elsewhere as one file.
    let shown = home.cellule(["snapshot", "inspect", "saved"]).output().exits(0).out();
    assert!(shown.contains(&format!("{}", 128 * MIB)), "{shown}");
    let file = home.file("saved.cellule");
    _ = home.cellule(["snapshot", "export", "saved", "--output", &file]).output().exits(0);
    _ = home.cellule(["snapshot", "rm", "saved"]).output().exits(0);
    _ = home.cellule(["snapshot", "import", "-i", &file, "again"]).output().exits(0);
    _ = home.cellule(["start", "--from", "again", "--name", "back"]).output().exits(0);
    let back = home.named("back");
    assert_eq!(back.sh("cat /warm /file /open; touch /go"), "warm\nparents\none\n");
    eventually("it goes on", HANG, || back.sh("cat /open") == "one\ntwo\n");
    assert_eq!(is_whole(&back), "/data: OK\n");
    // To any depth, and of one that stands still.
    _ = home.cellule(["pause", "back"]).output().exits(0);
    assert_eq!(home.cellule(["fork", "back", "-q"]).output().exits(0).out(), "back-1\n");
    assert_eq!(is_whole(&home.named("back-1")), "/data: OK\n");
    _ = home.cellule(["unpause", "back"]).output().exits(0);
    assert_eq!(home.named("back-1").sh("cat /file /open"), "parents\none\ntwo\n");
    for sandbox in ["web-1", "web-2", "back", "back-1"] {
        _ = home.named(sandbox).remove();
    }
    _ = home.cellule(["snapshot", "rm", "again"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn a_full_disk_is_the_writers_error_and_a_pool_has_disks_too() {
    let home = Home::new();
    let words = ["pool", "create", "tasks", "--image", "base", "--disk", "64m"];
    _ = home.cellule(words).output().exits(0);
    let script = "dd if=/dev/zero of=/large bs=1M count=100; echo $?; rm /large; echo room > /file; cat /file; df -k / | awk 'END { print $2 }'";
    let outcome = home.run(["--quiet", "--pool", "tasks", "sh", "-c", script]).output().exits(0);
    let said = outcome.says(&["No space left"]).out();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["1", "room"], "{said}");
    assert!(lines[2].parse::<u64>().unwrap() < 64 * 1024, "{said}");
    _ = home.cellule(["pool", "rm", "tasks"]).output().exits(0);
    for (size, words) in [("1m", "32 MiB"), ("2t", "1024 GiB"), ("much", "512m or 2g")] {
        let refused = home.run(["--disk", size, "base", "true"]).output();
        assert_ne!(refused.status.code(), Some(0), "{size}");
        _ = refused.says(&[words]);
    }
    leftovers::assert_none(&home);
}

/// A host without room is an error of whoever writes, and of nobody else.
#[test]
fn a_full_host_is_an_error_in_the_guest_and_the_sandbox_lives() {
    if !rustix::process::geteuid().is_root() {
        // Only root can mount a small disk; the same tests run as root too.
        return;
    }
    let home = Home::new();
    let sandboxes = home.path().join("sandboxes");
    fs::create_dir_all(&sandboxes).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"]).arg(&sandboxes).status();
    assert!(mounted.unwrap().success());
    let script = "dd if=/dev/zero of=/large bs=1M count=100 conv=fsync; echo failed $?; echo alive > /dev/shm/x; cat /dev/shm/x";
    let words = ["--quiet", "--cold", "--disk", "200m", "base", "sh", "-c", script];
    let outcome = home.run(words).output();
    assert!(Command::new("umount").arg(&sandboxes).status().unwrap().success());
    assert_eq!(outcome.exits(0).says(&["Input/output error"]).out(), "failed 1\nalive\n");
    leftovers::assert_none(&home);
}
