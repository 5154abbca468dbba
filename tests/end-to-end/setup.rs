//! The set-up as a new user meets it: one file, copied alone; and what `doctor` says of the host.

use std::fs;

use cellule_tests::{HANG, Home, binary, leftovers};
use serde_json::Value;

#[test]
fn the_program_copied_alone_sets_itself_up_and_runs() {
    let home = Home::empty();
    let alone = home.path().join("bin");
    fs::create_dir(&alone).unwrap();
    let program = alone.join("cellule");
    fs::copy(binary(), &program).unwrap();
    let call = |words: &[&str]| {
        // Longer than others: it fetches a kernel.
        home.program(&program, words).limit(3 * HANG).output().exits(0).out()
    };
    let first = call(&["setup"]);
    assert!(first.contains("kernel"), "{first}");
    assert_eq!(call(&["setup"]), first, "a second set-up changed the bundle");
    assert_eq!(call(&["run", "base", "echo", "alone"]), "alone\n");
    leftovers::assert_none(&home);
}

#[test]
fn a_first_run_sets_up_by_itself_and_two_at_once_make_one_bundle() {
    let home = Home::empty();
    // With what was fetched before, so that this needs no network.
    home.copy(&["kernels", "bases"]);
    let start = || home.run(["--quiet", "base", "echo", "ready"]).start();
    let (one, other) = (start(), start());
    for running in [one, other] {
        assert_eq!(running.wait().exits(0).out(), "ready\n");
    }
    let bundles = fs::read_dir(home.path().join("bundles")).unwrap().flatten();
    assert_eq!(bundles.filter(|entry| entry.path().is_dir()).count(), 1);
    leftovers::assert_none(&home);
}

#[test]
fn a_kernel_that_is_none_is_refused() {
    let home = Home::empty();
    let file = home.path().join("vmlinuz");
    fs::write(&file, "no kernel").unwrap();
    let outcome = home.cellule(["setup", "--kernel", file.to_str().unwrap()]).output().exits(125);
    _ = outcome.says(&["vmlinuz"]);
}

#[test]
fn doctor_says_what_there_is_in_words_and_in_json() {
    let home = Home::new();
    let table = home.cellule(["doctor"]).output().exits(0).out();
    let json = home.cellule(["doctor", "--format", "json"]).output().exits(0).out();
    let findings: Vec<Value> = serde_json::from_str(&json).unwrap();
    for name in [
        "CPU virtualisation",
        "/dev/kvm",
        "KVM runs a guest",
        "QEMU",
        "memory",
        "disk",
        "user namespaces",
        "cgroup v2",
        "boot bundle",
    ] {
        assert!(table.contains(name), "{name} in\n{table}");
        let finding = findings.iter().find(|finding| finding["name"] == name).unwrap();
        let ok = finding["standing"] == "ok";
        assert_eq!(finding["remedy"].is_null(), ok, "what is not ok has a remedy: {finding}");
    }
}

#[test]
fn doctor_fails_where_nothing_can_run() {
    let home = Home::new();
    let outcome = home.cellule(["doctor"]).env("CELLULE_QEMU", "/no/such/qemu").output().exits(1);
    assert!(outcome.out().contains("apt-get install qemu-system-x86"), "{}", outcome.out());
}
