//! Memory of guests that goes back to the host.

use std::fs;

use cellule_tests::sandbox::Sandbox;
use cellule_tests::{HANG, Home, eventually, leftovers};

const MIB: u64 = 1 << 20;

/// What the guest's kernel calls its memory, in bytes.
#[track_caller]
fn memory(sandbox: &Sandbox<'_>) -> u64 {
    let kib: u64 = sandbox.sh("awk '/MemTotal/ { print $2 }' /proc/meminfo").trim().parse().unwrap();
    kib << 10
}

/// What the engine's process has for itself, in bytes.
#[track_caller]
fn own_memory(sandbox: &Sandbox<'_>) -> u64 {
    let (_, engine) = sandbox.pids();
    let rollup = fs::read_to_string(format!("/proc/{engine}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn an_update_takes_memory_from_a_guest_and_gives_it_back() {
    let home = Home::new();
    let sandbox = home.detached(["--name", "web", "base", "sleep", "100000"]);
    let all = memory(&sandbox);
    let target = || sandbox.inspect()["resources"]["memory_target_bytes"].as_u64();
    assert_eq!(target(), None);
    assert_eq!(home.cellule(["update", "--memory", "200m", "web"]).output().exits(0).out(), "web\n");
    assert!(memory(&sandbox) <= 200 * MIB, "{} of {all} bytes", memory(&sandbox));
    assert_eq!(target(), Some(200 * MIB));
    let stats = home.cellule(["stats", "--no-stream", "--format", "json", "web"]).output().exits(0).out();
    assert!(!stats.contains(&all.to_string()), "{stats}");

    // So has its copy.
    _ = home.cellule(["fork", "--quiet", "web"]).output().exits(0);
    let copy = home.named("web-1");
    assert!(memory(&copy) <= 200 * MIB);
    assert_eq!(copy.inspect()["resources"]["memory_target_bytes"].as_u64(), Some(200 * MIB));
    _ = copy.remove();

    _ = home.cellule(["update", "--memory", "512m", "web"]).output().exits(0);
    assert_eq!((memory(&sandbox), target()), (all, None));

    // What is held stays, and is told.
    sandbox.sh("head -c 220m /dev/zero > /tmp/held");
    let held = home.cellule(["update", "--memory", "128m", "web"]).output().exits(0);
    assert_eq!(held.says(&["web has", "hold the rest"]).out(), "web\n");
    sandbox.sh("rm /tmp/held");
    assert!(memory(&sandbox) > 220 * MIB);
    _ = home.cellule(["update", "--memory", "128m", "web"]).output().exits(0);
    assert!(memory(&sandbox) <= 128 * MIB);

    // It is not more than one boot's.
    _ = home.cellule(["restart", "--timeout", "0", "web"]).output().exits(0);
    assert_eq!((memory(&sandbox), target()), (all, None));

    for (size, words) in [("16m", "96"), ("1g", "the sandbox's machine has 512 MiB"), ("much", "512m or 2g")]
    {
        let refused = home.cellule(["update", "--memory", size, "web"]).output();
        assert_ne!(refused.status.code(), Some(0), "{size}");
        _ = refused.says(&[words]);
    }
    _ = home.cellule(["pause", "web"]).output().exits(0);
    _ = home.cellule(["update", "--memory", "200m", "web"]).output().exits(125).says(&["paused"]);
    _ = home.cellule(["stop", "--timeout", "0", "web"]).output().exits(0);
    _ = home.cellule(["update", "--memory", "200m", "web"]).output().exits(125).says(&["start it"]);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn what_programs_free_goes_back_to_the_host_and_their_template_stays_as_it_was() {
    let home = Home::new();
    // Whoever makes the template has it no other way than all that follow.
    _ = home.idle().remove();
    let sandbox = home.idle();
    let before = own_memory(&sandbox);
    sandbox.sh("head -c 160m /dev/zero > /tmp/large");
    let full = own_memory(&sandbox);
    assert!(full > before + 120 * MIB, "{before} and {full} bytes");
    sandbox.sh("rm /tmp/large");
    eventually("it goes back", HANG, || own_memory(&sandbox) < full - 100 * MIB);
    // Pages that it shares with its template, too.
    sandbox.sh("echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory; sleep 4");

    let other = home.idle();
    assert_eq!(other.inspect()["start"]["kind"], "warm");
    assert_eq!(other.sh("echo it works"), "it works\n");
    for sandbox in [sandbox, other] {
        _ = sandbox.remove();
    }
    leftovers::assert_none(&home);
}
