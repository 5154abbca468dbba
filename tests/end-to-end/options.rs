//! The options of `run`, each seen from inside the guest.

use std::fs;

use cellule_tests::{Home, leftovers};

fn out(words: &[&str]) -> String {
    let home = Home::new();
    home.run(["--quiet"].iter().chain(words)).output().exits(0).out()
}

#[test]
fn environment_comes_from_files_options_and_the_image() {
    let home = Home::new();
    let file = home.path().join("env");
    fs::write(&file, "# note\nA=file\nB=file with spaces\n").unwrap();
    let file = file.to_str().unwrap();
    let words = ["--quiet", "--env-file", file, "-e", "A=option", "-e", "HERE", "base", "env"];
    let text = home.run(words).env("HERE", "from here").output().exits(0).out();
    for line in ["A=option", "B=file with spaces", "HERE=from here", "HOME=/root"] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
    assert!(text.lines().any(|line| line.starts_with("PATH=")), "{text}");
}

#[test]
fn the_working_directory_is_made_if_it_is_missing() {
    assert_eq!(out(&["-w", "/some/where", "base", "pwd"]), "/some/where\n");
}

#[test]
fn a_user_is_a_name_or_numbers() {
    assert_eq!(out(&["-u", "nobody", "base", "id", "-un"]), "nobody\n");
    assert_eq!(out(&["-u", "1234:5678", "base", "sh", "-c", "id -u; id -g"]), "1234\n5678\n");
    let home = Home::new();
    _ = home
        .run(["--quiet", "-u", "no-such-user", "base", "true"])
        .output()
        .exits(125)
        .says(&["no-such-user"]);
}

#[test]
fn an_entrypoint_takes_the_place_of_the_images() {
    assert_eq!(out(&["--entrypoint", "echo", "base", "a", "b"]), "a b\n");
}

#[test]
fn options_behind_the_image_are_the_commands() {
    assert_eq!(out(&["base", "echo", "-e", "--rm", "-i"]), "--rm -i\n");
}

#[test]
fn attached_option_values_are_understood() {
    let script = "id -un; echo $A; pwd";
    let words = ["-unobody", "-eA=1", "-w/tmp", "-m256m", "base", "sh", "-c", script];
    assert_eq!(out(&words), "nobody\n1\n/tmp\n");
}

#[test]
fn the_hostname_is_the_one_asked_for() {
    assert_eq!(
        out(&["--hostname", "cell", "base", "sh", "-c", "hostname; cat /etc/hostname"]),
        "cell\ncell\n"
    );
    assert!(out(&["--hostname", "cell", "base", "cat", "/etc/hosts"]).contains("cell"));
}

#[test]
fn a_guest_has_the_cpus_and_the_memory_asked_for() {
    assert_eq!(out(&["--cpus", "2", "base", "nproc"]), "2\n");
    let total = out(&["--memory", "256m", "base", "awk", "/MemTotal/ { print $2 }", "/proc/meminfo"]);
    let total: u64 = total.trim().parse().unwrap();
    assert!((150 << 10..=256 << 10).contains(&total), "{total} KiB");
}

#[test]
fn too_little_memory_is_refused_with_the_least_that_will_do() {
    let home = Home::new();
    _ = home.run(["--memory", "16m", "base", "true"]).output().exits(125).says(&["16 MiB", "at least"]);
    leftovers::assert_none(&home);
}

#[test]
fn a_read_only_root_refuses_writes_except_where_memory_is_mounted() {
    let home = Home::new();
    let script = "touch /x 2>&1; touch /tmp/x /run/x /dev/shm/x /data/x && echo written";
    let words = ["--quiet", "--read-only", "--tmpfs", "/data", "base", "sh", "-c", script];
    let text = home.run(words).output().exits(0).out();
    assert!(text.contains("Read-only file system") && text.ends_with("written\n"), "{text}");
}

#[test]
fn a_tmpfs_has_the_size_it_was_given() {
    let script = "df -k /data | tail -1 | awk '{ print $2 }'; stat -c %a /data";
    assert_eq!(out(&["--tmpfs", "/data:size=2m,mode=700", "base", "sh", "-c", script]), "2048\n700\n");
}

#[test]
fn a_name_is_free_again_after_the_run() {
    let home = Home::new();
    let first = home.run(["--quiet", "--name", "web", "base", "sleep", "100"]).start();
    _ = leftovers::running(&home);
    _ = home.run(["--quiet", "--name", "web", "base", "true"]).output().exits(125).says(&["web", "in use"]);
    first.signal(rustix::process::Signal::TERM);
    _ = first.wait();
    _ = home.run(["--quiet", "--name", "web", "base", "true"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn mistakes_are_refused_before_anything_starts() {
    let home = Home::new();
    let cases: [(&[&str], &str); 8] = [
        (&["--memory", "lots", "base"], "--memory"),
        (&["--cpus", "0", "base", "true"], "0 CPUs"),
        (&["--timeout", "soon", "base"], "--timeout"),
        (&["--name", "a/b", "base"], "a/b"),
        (&["--engine", "kvm", "base"], "not available"),
        (&["-w", "relative", "base", "true"], "relative"),
        (&["--tmpfs", "relative", "base", "true"], "relative"),
        (&["--env-file", "/no/such/file", "base", "true"], "/no/such/file"),
    ];
    for (words, said) in cases {
        _ = home.run(words.iter()).output().exits(125).says(&[said]);
    }
    leftovers::assert_none(&home);
}
