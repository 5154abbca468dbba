//! What a guest says of itself, and what a program must not find there.

use std::time::Duration;

use cellule_tests::{HANG, Home, eventually, leftovers};
use serde_json::Value;

#[test]
fn stats_are_plausible_and_grow_with_use() {
    let home = Home::new();
    let sandbox = home.detached(["--memory", "256m", "--name", "busy", "base", "sleep", "1000"]);
    let other = home.idle();
    let stats = |words: &[&str]| -> Vec<Value> {
        let words = ["stats", "--no-stream", "--format", "json"].iter().chain(words);
        serde_json::from_str(&home.cellule(words).output().exits(0).out()).unwrap()
    };
    assert_eq!(stats(&[]).len(), 2, "all that run, if none is named");
    let one = |rows: Vec<Value>| {
        assert_eq!(rows.len(), 1);
        rows.into_iter().next().unwrap()
    };
    let before = one(stats(&["busy"]));
    let number =
        |row: &Value, field: &str| row[field].as_u64().unwrap_or_else(|| panic!("{field} in {row:#}"));
    assert!((100 << 20..=256 << 20).contains(&number(&before, "guest_memory_limit_bytes")), "{before:#}");
    assert!((1 << 20..200 << 20).contains(&number(&before, "guest_memory_bytes")), "{before:#}");
    assert!(number(&before, "host_memory_bytes") > 30 << 20, "{before:#}");
    assert!((1..20).contains(&number(&before, "processes")), "{before:#}");

    _ = sandbox.sh("dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null; sleep 1000 & sleep 1000 & i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    let held = sandbox.exec(&["-d"], &["sleep", "1000"]).output().exits(0);
    assert!(!held.out().is_empty());
    let after = one(stats(&["busy"]));
    for (field, by) in [
        ("guest_cpu_us", 50_000),
        ("guest_memory_bytes", 35 << 20),
        ("host_cpu_us", 50_000),
        ("writable_used_bytes", 39 << 20),
        ("uptime_us", 100_000),
        ("processes", 1),
    ] {
        let (before, after) = (number(&before, field), number(&after, field));
        assert!(after >= before + by, "{field} went from {before} to {after}");
    }
    let table = home.cellule(["stats", "--no-stream", "busy"]).output().exits(0).out();
    for word in ["CPU %", "MEM USAGE / LIMIT", "PIDS", "busy"] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
    _ = home.cellule(["rm", "-f", "busy", other.id()]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn top_shows_programs_alone_and_never_a_zombie() {
    let home = Home::new();
    let sandbox = home.detached(["base", "sleep", "4000"]);
    _ = sandbox.exec(&["-d", "-u", "nobody"], &["sleep", "4001"]).output().exits(0);
    // Children that outlive their parents, and end: nobody but the agent can reap them.
    _ = sandbox.sh("for i in 1 2 3 4 5 6 7 8; do (sleep 0.2 &) ; (setsid true &) ; done; sleep 0.1");
    eventually("orphans are gone", HANG, || {
        let table = sandbox.call(["top"]).output().exits(0).out();
        table.lines().count() == 3
    });
    let table = sandbox.call(["top"]).output().exits(0).out();
    for word in ["PID", "PPID", "USER", "COMMAND", "sleep 4000", "sleep 4001", "nobody"] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
    // What an exec's own view says: no process of the guest is dead and unburied.
    let states = sandbox.sh("cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | cut -c1 | sort | uniq -c");
    assert!(!states.contains('Z'), "{states}");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn diff_tells_what_was_added_changed_and_deleted() {
    let home = Home::new();
    let sandbox = home.idle();
    assert_eq!(
        sandbox.call(["diff"]).output().exits(0).out(),
        "",
        "nothing was done, and the agent's own files are none"
    );
    _ = sandbox.sh(
        "mkdir -p /srv/deep; echo x > /srv/deep/file; echo y >> /etc/passwd; rm /usr/bin/xz; ln -s x /link; \
                    rm -r /var/tmp; mkdir /var/tmp; chmod 700 /home",
    );
    let text = sandbox.call(["diff"]).output().exits(0).out();
    let lines: Vec<&str> = text.lines().collect();
    for line in [
        "A /srv",
        "A /srv/deep",
        "A /srv/deep/file",
        "A /link",
        "C /etc",
        "C /etc/passwd",
        "D /usr/bin/xz",
        "C /usr/bin",
        "C /home",
    ] {
        assert!(lines.contains(&line), "{line} is missing in\n{text}");
    }
    for path in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc", "/dev"] {
        assert!(!lines.iter().any(|line| line[2..] == *path), "{path} is told in\n{text}");
    }
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_program_finds_a_terminal_its_own_descriptors_and_its_own_control_group() {
    let home = Home::new();
    let sandbox = home.idle();
    // The fourth is the listing's own.
    let fds = "ls /proc/self/fd | tr '\\n' ' '";
    let script = ["sh", "-c", fds];
    assert_eq!(sandbox.exec(&[], &script).output().exits(0).out(), "0 1 2 3 ");
    assert_eq!(sandbox.exec(&["-i"], &script).output().exits(0).out(), "0 1 2 3 ");
    assert_eq!(sandbox.exec(&["-t"], &script).output().exits(0).out(), "0 1 2 3 ");
    // While others run.
    _ = sandbox.exec(&["-d"], &["sleep", "1000"]).output().exits(0);
    let open = sandbox
        .exec(&["-i"], &["cat"])
        .with(|command| _ = command.stdin(std::process::Stdio::piped()))
        .start_raw();
    assert_eq!(sandbox.exec(&["-t"], &script).output().exits(0).out(), "0 1 2 3 ");
    drop(open);

    let terminal = sandbox.exec(
        &["-t"],
        &["sh", "-c", "tty; ls -l $(tty) | cut -c1; ps -o tty= 2>/dev/null | head -1; stty size"],
    );
    let said = terminal.output().exits(0).out();
    assert!(said.starts_with("/dev/pts/") && said.contains("\r\nc\r\n"), "{said:?}");
    _ = sandbox.exec(&[], &["tty"]).output().exits(1);
    let user = sandbox
        .exec(&["-t", "-u", "nobody"], &["sh", "-c", "stat -c %U $(tty); echo x > $(tty)"])
        .output()
        .exits(0);
    assert_eq!(user.out(), "nobody\r\nx\r\n");

    // One that nothing is left of may be another's later.
    let script = "cat /proc/self/cgroup > /group.new; mv /group.new /group; sleep 1000";
    _ = sandbox.exec(&["-d"], &["sh", "-c", script]).output().exits(0);
    let first = sandbox.sh("until [ -e /group ]; do sleep 0.1; done; cat /group");
    assert!(first.starts_with("0::/exec/"), "{first}");
    assert_ne!(first, sandbox.sh("cat /proc/self/cgroup"), "two execs share a control group");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

/// What each exec takes it gives back: streams, descriptors, control groups, memory. A few empty groups, with the
/// descriptors that read them, stay for the next execs, however many there were.
#[test]
fn many_execs_in_a_row_leave_nothing_in_the_guest() {
    let home = Home::new();
    let sandbox = home.idle();
    let count = || {
        let script = "ls /proc/1/fd | wc -l; find /sys/fs/cgroup -type d | wc -l; awk '/VmRSS/ { print $2 }' /proc/1/status";
        let text = sandbox.sh(script);
        text.lines().map(|line| line.trim().parse::<u64>().unwrap()).collect::<Vec<_>>()
    };
    for _ in 0..5 {
        _ = sandbox.sh("true");
    }
    let before = count();
    for round in 0..40 {
        let options: &[&str] = if round % 2 == 0 { &[] } else { &["-t"] };
        _ = sandbox.exec(options, &["sh", "-c", "sleep 0.01 & true"]).output().exits(0);
    }
    eventually("descriptors and control groups are given back", Duration::from_secs(20), || {
        let after = count();
        after[0] <= before[0] + 20 && after[1] <= before[1] + 4
    });
    let after = count();
    assert!(after[2] < before[2] + 2048, "the agent grew from {} to {} KiB", before[2], after[2]);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}
