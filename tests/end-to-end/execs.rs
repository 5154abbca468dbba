//! Programs that are run in a sandbox besides its own: how they are told what to do, and how they end.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cellule_tests::{HANG, Home, eventually, leftovers, processes};
use rustix::process::Signal;

#[test]
fn an_exec_is_told_what_to_do_as_with_docker() {
    let home = Home::new();
    let sandbox =
        home.detached(["-e", "OF=sandbox", "-e", "BOTH=sandbox", "-w", "/srv", "base", "sleep", "1000"]);
    let out = |options: &[&str], command: &[&str]| sandbox.exec(options, command).output().exits(0).out();

    // The environment: the sandbox's, then what is said here.
    let script = ["sh", "-c", "echo $OF $BOTH $MINE $HERE; pwd; id -un; echo $HOME"];
    assert_eq!(out(&[], &script), "sandbox sandbox\n/srv\nroot\n/root\n");
    let call =
        sandbox.exec(&["-e", "BOTH=exec", "-eMINE=1 2", "-e", "HERE", "-w", "/tmp", "-u", "nobody"], &script);
    let said = call.env("HERE", "here").output().exits(0).out();
    assert!(said.starts_with("sandbox exec 1 2 here\n/tmp\nnobody\n"), "{said}");
    assert_eq!(out(&["-u", "12:34"], &["sh", "-c", "id -u; id -g"]), "12\n34\n");

    // Words are the program's from the first that is no option of ours on.
    assert_eq!(out(&[], &["echo", "-e", "-i", "--timeout"]), "-i --timeout\n");
    assert_eq!(out(&[], &["printf", "[%s]", "", "a b", "*"]), "[][a b][*]");
    let long = "x".repeat(128 * 1024 - 1);
    assert_eq!(out(&[], &["sh", "-c", "echo ${#0}", &long]), "131071\n");

    // Input goes where it is asked for.
    assert_eq!(sandbox.exec(&["-i"], &["tr", "a-z", "A-Z"]).stdin("hello").output().exits(0).out(), "HELLO");
    assert_eq!(sandbox.exec(&[], &["cat"]).stdin("ignored").output().exits(0).out(), "");
    let both = sandbox.exec(&[], &["sh", "-c", "echo out; echo err >&2"]).output().exits(0);
    assert_eq!((both.out().as_str(), both.err().as_str()), ("out\n", "err\n"));

    // Limits.
    let limits = ["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"];
    assert_eq!(out(&["--ulimit", "nofile=77:99", "--ulimit", "core=0"], &limits), "77\n99\n0\n");
    _ = sandbox.exec(&["--ulimit", "nonsense=1"], &["true"]).output().exits(125).says(&["nonsense"]);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn an_execs_end_is_ours_and_what_cannot_start_is_named() {
    let home = Home::new();
    let sandbox = home.idle();
    let exec = |options: &[&str], command: &[&str]| sandbox.exec(options, command).output();
    _ = exec(&[], &["sh", "-c", "exit 42"]).exits(42);
    _ = exec(&[], &["sh", "-c", "kill -KILL $$"]).exits(137).says(&["SIGKILL"]);
    _ = exec(&[], &["no-such-program"]).exits(127).says(&["no-such-program"]);
    _ = exec(&[], &["/etc/passwd"]).exits(126).says(&["/etc/passwd"]);
    _ = exec(&[], &["/bin"]).exits(126).says(&["/bin"]);
    _ = exec(&["-u", "no-such-user"], &["true"]).says(&["no-such-user"]).exits(125);
    _ = exec(&["-w", "/no/such/dir"], &["true"]).says(&["/no/such/dir"]).exits(125);
    _ = exec(&["-w", "relative"], &["true"]).says(&["absolute path"]).exits(125);
    _ = exec(&[], &[""]).says(&["program"]);
    _ = exec(&["-it"], &["sh"]).exits(125).says(&["not a terminal"]);
    // A grandchild that keeps the pipe does not keep the exec.
    let daemon = exec(&[], &["sh", "-c", "setsid sleep 1000 & echo started"]).exits(0);
    assert_eq!(daemon.out(), "started\n");
    assert!(daemon.took < Duration::from_secs(20), "{:?}", daemon.took);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_timeout_kills_whatever_the_exec_started_and_nothing_else() {
    let home = Home::new();
    let sandbox = home.idle();
    _ = sandbox.exec(&["-d"], &["sleep", "5000"]).output().exits(0);
    let script =
        "trap '' TERM INT HUP; setsid sh -c 'trap \"\" TERM HUP; sleep 6001' & (sleep 6002 &) ; sleep 6003";
    for options in [&["--timeout", "2s"][..], &["--timeout", "2s", "-t"], &["--timeout", "2s", "-i"]] {
        let call = sandbox.exec(options, &["sh", "-c", script]);
        // Input that stalls delays nothing.
        let child = call.with(|command| _ = command.stdin(Stdio::piped())).start_raw();
        let outcome = child.collect(HANG).wait().exits(124);
        assert!(outcome.took >= Duration::from_secs(2), "{:?}", outcome.took);
        assert!(outcome.took < Duration::from_secs(15), "{options:?} took {:?}", outcome.took);
        let table = sandbox.call(["top"]).output().exits(0).out();
        assert!(!table.contains("600"), "{options:?} leaves\n{table}");
        assert!(table.contains("sleep 5000"), "{table}");
    }
    // A program that ends in time is not timed out, nor is the next one with its number.
    _ = sandbox.exec(&["--timeout", "2s"], &["true"]).output().exits(0);
    _ = sandbox.exec(&[], &["sleep", "3"]).output().exits(0);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn files_are_staged_before_the_program_and_chains_stop_at_the_first_failure() {
    let home = Home::new();
    let sandbox = home.idle();
    let (script, data) = (home.file("script"), home.file("data"));
    fs::write(&script, "#!/bin/sh\ncat /tmp/data; id -un; stat -c '%a %U' /tmp/data $0\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    fs::write(&data, b"bytes\x00\xff\n").unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o640)).unwrap();
    let (script, data) = (format!("{script}:/tmp/script"), format!("{data}:/tmp/data"));
    let words = ["--stage", &script, "--stage", &data, "-u", "nobody"];
    let outcome = sandbox.exec(&words, &["/tmp/script"]).output().exits(0);
    assert_eq!(outcome.stdout, b"bytes\x00\xff\nnobody\n640 nobody\n750 nobody\n");
    // One that cannot be written keeps the program from starting.
    let nowhere = data.replace("/tmp/data", "/no/such/dir/data");
    _ = sandbox
        .exec(&["--stage", &nowhere], &["touch", "/ran"])
        .output()
        .exits(125)
        .says(&["/no/such/dir/data"]);
    _ = sandbox.exec(&["--stage", "nothing"], &["true"]).output().exits(125).says(&["--stage"]);
    _ = sandbox.exec(&["--stage", "/no/such:/tmp/x"], &["true"]).output().exits(125).says(&["/no/such"]);
    assert_eq!(sandbox.sh("ls /ran 2>/dev/null; ls -A /tmp | sort"), "data\nscript\n");

    let chain = |words: &[&str]| sandbox.exec(&["--chain"], words).output();
    let all = chain(&["echo", "a", "&&", "sh", "-c", "echo b; cd /tmp", "&&", "echo", "c d"]).exits(0);
    assert_eq!(all.out(), "a\nb\nc d\n");
    let broken = chain(&["echo", "a", "&&", "sh", "-c", "exit 7", "&&", "echo", "never"]).exits(7);
    assert_eq!(broken.out(), "a\n");
    let missing = chain(&["true", "&&", "no-such-program", "&&", "echo", "never"]).exits(127);
    assert_eq!(missing.out(), "");
    _ = missing.says(&["no-such-program"]);
    _ = chain(&["true", "&&"]).exits(125);
    // Without the option they are words like any other.
    assert_eq!(sandbox.exec(&[], &["echo", "a", "&&", "b"]).output().exits(0).out(), "a && b\n");
    let late = sandbox.exec(&["--chain", "--timeout", "2s"], &["sleep", "1", "&&", "sleep", "1000"]).output();
    _ = late.exits(124);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_stalled_input_delays_no_signal() {
    let home = Home::new();
    let sandbox = home.idle();
    // It never reads, and somebody writes more than all buffers hold.
    let script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let call = sandbox.exec(&["-i"], &["sh", "-c", script]).with(|command| _ = command.stdin(Stdio::piped()));
    let mut child = call.start_raw();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::spawn(move || while stdin.write_all(&vec![b'x'; 65536]).is_ok() {});
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert_eq!(lines.next().unwrap(), "ready");
    std::thread::sleep(Duration::from_secs(2));
    let asked = Instant::now();
    processes::signal(child.id(), Signal::TERM);
    assert_eq!(lines.next().unwrap(), "got");
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    eventually("the exec ends", Duration::from_secs(10), || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(9));
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_guest_that_dies_is_an_error_with_its_cause_and_never_an_exit_code() {
    let home = Home::new();
    for options in [&[][..], &["-t"], &["-i"]] {
        let sandbox = home.idle();
        let (_, engine) = sandbox.pids();
        let call = sandbox.exec(options, &["sh", "-c", "echo ready; sleep 1000"]);
        let mut child = call.with(|command| _ = command.stdin(Stdio::piped())).start_raw();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), "ready");
        processes::kill(engine);
        _ = child.collect(HANG).wait().exits(125).says(&["engine", "SIGKILL"]);
        _ = sandbox.remove();
    }
    leftovers::assert_none(&home);
}
