//! What is killed, full, cut or missing: a clear error, in time, and nothing left behind.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cellule_tests::processes::{alive, kill, signal};
use cellule_tests::{HANG, Home, binary, eventually, leftovers};
use rustix::process::Signal;

#[test]
fn a_killed_run_leaves_nothing() {
    let home = Home::new();
    let running = home.run(["--quiet", "--name", "web", "base", "sleep", "1000"]).start();
    let (supervisor, engine) = leftovers::running(&home);
    running.signal(Signal::KILL);
    _ = running.wait();
    eventually("supervisor and engine are gone", Duration::from_secs(20), || {
        !alive(supervisor) && !alive(engine)
    });
    leftovers::assert_none(&home);
}

#[test]
fn a_killed_engine_is_an_error_that_names_it_and_leaves_nothing() {
    let home = Home::new();
    let running = home.run(["--quiet", "--cold", "base", "sleep", "1000"]).start();
    let (_, engine) = leftovers::running(&home);
    // Once while it boots and once, below, while a program runs: both are the same to its user.
    kill(engine);
    _ = running.wait().exits(125).says(&["engine", "SIGKILL"]);
    leftovers::assert_none(&home);

    let mut child = home.run(["--quiet", "base", "sh", "-c", "echo ready; sleep 1000"]).start_raw();
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    let (_, engine) = leftovers::running(&home);
    kill(engine);
    _ = child.collect(HANG).wait().exits(125).says(&["engine", "SIGKILL"]);
    leftovers::assert_none(&home);
}

#[test]
fn a_killed_supervisor_takes_its_machine_with_it_and_is_named() {
    let home = Home::new();
    let running = home.run(["--quiet", "base", "sleep", "1000"]).start();
    let (supervisor, engine) = leftovers::running(&home);
    kill(supervisor);
    _ = running.wait().exits(125).says(&["supervisor"]);
    // Killed with it, it needs a moment to give its memory back.
    eventually("the engine is gone", Duration::from_secs(5), || !alive(engine));
    leftovers::assert_none(&home);
}

#[test]
fn when_all_are_killed_the_next_command_cleans_up() {
    let home = Home::new();
    let running = home.run(["--quiet", "base", "sleep", "1000"]).start();
    let (supervisor, engine) = leftovers::running(&home);
    // Stopped, so that it cannot clean up after its owner before it is killed too.
    signal(supervisor, Signal::STOP);
    running.signal(Signal::KILL);
    _ = running.wait();
    kill(supervisor);
    eventually("the engine is gone", Duration::from_secs(20), || !alive(engine));
    assert_eq!(leftovers::sandboxes(&home).len(), 1, "somebody cleaned up already");
    _ = home.run(["--quiet", "base", "true"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn without_qemu_the_remedy_is_named() {
    let home = Home::new();
    let call = home.run(["base", "true"]).env("CELLULE_QEMU", "/no/such/qemu");
    _ = call.output().exits(125).says(&["not installed", "apt-get install qemu-system-x86"]);
    leftovers::assert_none(&home);
}

#[test]
fn a_qemu_that_fails_is_an_error_with_its_words() {
    let home = Home::new();
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("qemu-system-x86_64");
    fs::write(&fake, "#!/bin/sh\ncase \"$*\" in *-version*) echo 'QEMU emulator version 7.2.0';; *) echo 'out of luck' >&2; exit 3;; esac\n").unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    let call = home.run(["base", "true"]).env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()));
    _ = call.output().exits(125).says(&["out of luck"]);
    leftovers::assert_none(&home);
}

/// Makes this state directory's bundle its own, so that damage stays here.
fn own_bundle(home: &Home) -> std::path::PathBuf {
    home.copy(&["bundles", "kernels", "bases"]);
    let current = fs::read_to_string(home.path().join("bundles/current")).unwrap();
    home.path().join("bundles").join(current.trim())
}

fn truncate(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let length = path.metadata().unwrap().len();
    fs::File::options().write(true).open(path).unwrap().set_len(length / 2).unwrap();
}

#[test]
fn a_truncated_bundle_is_made_anew_and_never_booted() {
    let home = Home::new();
    let bundle = own_bundle(&home);
    truncate(&bundle.join("kernel"));
    let doctor = home.cellule(["doctor"]).output();
    assert!(doctor.out().contains("kernel has"), "{}", doctor.out());
    _ = home.run(["--quiet", "base", "true"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn a_full_disk_is_named_and_nothing_half_made_stays() {
    if !rustix::process::geteuid().is_root() {
        // Only root can mount a small disk; the same tests run as root too.
        return;
    }
    let home = Home::new();
    let images = home.path().join("images");
    fs::create_dir(&images).unwrap();
    let mount =
        |words: &[&str]| assert!(Command::new("mount").args(words).arg(&images).status().unwrap().success());
    mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
    let outcome = home.run(["base", "true"]).output();
    let used = Command::new("du").arg("-sk").arg(&images).output().unwrap();
    assert!(Command::new("umount").arg(&images).status().unwrap().success());
    _ = outcome.exits(125).says(&["no space left", "image prune"]);
    let used = String::from_utf8(used.stdout).unwrap();
    let kib: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
    assert!(kib < 64, "{kib} KiB of something half made stay");
    leftovers::assert_none(&home);
}

/// Runs as root alone: a state directory on a disk of its own, of this many MiB.
fn small_disk(mib: u32) -> Home {
    let home = Home::empty();
    let size = format!("size={mib}m,mode=755");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(home.path()).status();
    assert!(mount.unwrap().success());
    home.share();
    home
}

/// A log that cannot be written is no reason for a program to fail, or to wait.
#[test]
fn a_disk_that_is_full_of_logs_hurts_the_log_alone() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = small_disk(10);
    let script = "head -c 30000000 /dev/zero | tr '\\0' '\\n'; echo through >&2; exit 3";
    let words = ["--quiet", "--rm=false", "--name", "chatty", "base", "sh", "-c", script];
    let outcome = home.run(words).output();
    let logs = home.cellule(["logs", "chatty"]).output();
    // With room again, it goes on as if nothing had been.
    let listed = home.cellule(["ps", "-a"]).output();
    let removed = home.cellule(["rm", "-f", "chatty"]).output();
    let again = home.run(["--quiet", "base", "echo", "room"]).output();
    let left = leftovers::sandboxes(&home);
    assert!(Command::new("umount").arg(home.path()).status().unwrap().success());
    assert_eq!(outcome.code(), 3, "{}", outcome.err());
    assert_eq!((outcome.stdout.len(), outcome.err().as_str()), (30_000_000, "through\n"));
    assert!(listed.exits(0).out().contains("chatty"));
    _ = logs.exits(0).says(&["lost"]);
    _ = removed.exits(0);
    assert_eq!(again.exits(0).out(), "room\n");
    assert!(left.is_empty(), "{left:?}");
}

/// What a sandbox does is its user's matter: on its socket another one hears nothing.
#[test]
fn the_socket_of_a_sandbox_serves_no_other_user() {
    if !rustix::process::geteuid().is_root() {
        // Only root can become somebody else.
        return;
    }
    let home = Home::new();
    let sandbox = home.idle();
    let socket = sandbox.dir().join("socket");
    let mode = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    // As if no mode had kept anybody out: the peer's user is asked for as well.
    for path in [&sandbox.dir(), &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    // The directory is given as an open one, for the way there may be closed.
    let hung_up_on = |user: u32| {
        let dir = fs::File::open(sandbox.dir()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "faults::a_peer_is_hung_up_on", "--ignored"]).uid(user).gid(user).stdin(dir);
        command.output().unwrap()
    };
    let other = hung_up_on(65534);
    assert!(other.status.success(), "another user is heard: {}", String::from_utf8_lossy(&other.stdout));
    assert!(!hung_up_on(0).status.success(), "nobody at all is heard");
    assert_eq!(sandbox.sh("echo served"), "served\n");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

/// What the test before this starts as another user: it succeeds where nobody listens to it.
#[test]
#[ignore = "the test of sockets starts it, with a sandbox's directory as standard input"]
fn a_peer_is_hung_up_on() {
    let mut stream = UnixStream::connect("/proc/self/fd/0/socket").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let home = Home::empty();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let call = home.run(["base", "true"]).env("CELLULE_HOME", file.join("home"));
    _ = call.output().exits(125).says(&["file/home"]);
    _ = home.run(["base", "true"]).env("CELLULE_HOME", "relative").output().exits(125).says(&["absolute"]);
}

#[test]
fn four_at_a_time_do_not_disturb_each_other() {
    let home = Home::new();
    let running: Vec<_> = (0..4)
        .map(|n| home.run(["--quiet", "base", "sh", "-c", &format!("echo {n}; exit {n}")]).start())
        .collect();
    for (n, running) in running.into_iter().enumerate() {
        let outcome = running.wait().exits(i32::try_from(n).unwrap());
        assert_eq!(outcome.out(), format!("{n}\n"));
    }
    leftovers::assert_none(&home);
}

#[test]
fn a_path_with_spaces_and_a_long_one_serve_as_state_directory() {
    let home = Home::new();
    let long = home.path().join("a directory with spaces").join("x".repeat(150));
    fs::create_dir_all(&long).unwrap();
    for name in ["bundles", "kernels", "bases"] {
        std::os::unix::fs::symlink(fs::canonicalize(home.path().join(name)).unwrap(), long.join(name))
            .unwrap();
    }
    assert!(binary().exists());
    _ = home.run(["--quiet", "base", "true"]).env("CELLULE_HOME", &long).output().exits(0);
}
