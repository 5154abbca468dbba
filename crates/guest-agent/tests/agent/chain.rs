//! Chains of programs, and what is made ready before the first: files and limits.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use cellule_protocol::client::{
    ExecError, ExecSpec, Exit, Rlimit, Session, StagedFile, StartFailureKind, TerminalSize,
};

use crate::support::{AgentProcess, run, shell};

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn chain(links: &[&str]) -> ExecSpec {
    let then = links[1..].iter().map(|script| words(&["sh", "-c", script])).collect();
    ExecSpec { then, ..shell(links[0]) }
}

async fn refused(session: &Session, spec: ExecSpec) -> (StartFailureKind, String) {
    match session.exec(spec).await {
        Err(ExecError::Failed(failure)) => (failure.kind, failure.field),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_runs_after_the_one_before_with_the_same_streams() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let (status, stdout, stderr) = run(&session, chain(&["echo a", "echo b; echo c >&2", "exit 5"])).await;
    assert_eq!(status.exit, Exit::Code(5));
    assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"a\nb\n"[..], &b"c\n"[..]));
}

#[tokio::test]
async fn one_that_fails_is_the_last() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let (status, stdout, _) = run(&session, chain(&["echo a", "exit 3", "echo never"])).await;
    assert_eq!((status.exit, stdout.as_slice()), (Exit::Code(3), &b"a\n"[..]));
    let (status, stdout, _) = run(&session, chain(&["kill -9 $$", "echo never"])).await;
    assert_eq!((status.exit, stdout.as_slice()), (Exit::Signal(9), &b""[..]));
}

#[tokio::test]
async fn one_that_cannot_start_is_told_as_a_shell_does() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    for (program, code) in [("no-such-program", 127), ("/usr", 126)] {
        for terminal in [None, Some(TerminalSize { rows: 24, columns: 80 })] {
            let spec = ExecSpec { then: vec![words(&[program])], terminal, ..shell("echo first") };
            let (status, stdout, stderr) = run(&session, spec).await;
            assert_eq!(status.exit, Exit::Code(code));
            let output = String::from_utf8([stdout, stderr].concat()).unwrap();
            assert!(output.starts_with("first") && output.contains(program), "{output:?}");
        }
    }
}

#[tokio::test]
async fn its_links_share_a_terminal() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let terminal = Some(TerminalSize { rows: 24, columns: 80 });
    let spec = ExecSpec { terminal, ..chain(&["echo a", "echo b > /dev/tty", "tty > /dev/null && exit 2"]) };
    let (status, stdout, _) = run(&session, spec).await;
    assert_eq!(String::from_utf8_lossy(&stdout), "a\r\nb\r\n");
    assert_eq!(status.exit, Exit::Code(2));
}

#[tokio::test]
async fn a_time_limit_is_one_for_all_of_it() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let timeout = Some(Duration::from_millis(600));
    let spec = ExecSpec { timeout, ..chain(&["sleep 0.4", "sleep 0.4", "echo never"]) };
    let (status, stdout, _) = run(&session, spec).await;
    assert_eq!((status.exit, status.timed_out, stdout.as_slice()), (Exit::Signal(9), true, &b""[..]));
}

#[tokio::test]
async fn its_usage_is_that_of_all_of_it() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    let one = run(&session, chain(&[burn, "exit 0"])).await.0.usage;
    assert!(one.user + one.system >= Duration::from_millis(10), "{one:?}");
    assert!(one.max_rss > 500_000, "{one:?}");
}

#[tokio::test]
async fn staged_files_are_there_before_the_program_runs() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).into_os_string().into_encoded_bytes();
    std::fs::write(dir.path().join("old"), "what was there").unwrap();
    let file = |name, content: &[u8], mode| StagedFile { path: path(name), content: content.to_vec(), mode };
    let big = vec![b'x'; 3 << 20];
    let files = vec![
        file("old", b"new", None),
        file("run", b"#!/bin/sh\necho ran; exit 6\n", Some(0o755)),
        file("big", &big, Some(0o600)),
    ];
    let user = if rustix::process::geteuid().is_root() { "65534:65533" } else { "" };
    let spec =
        ExecSpec { argv: vec![path("run")], files, user: user.into(), cwd: b"/".to_vec(), ..shell("") };
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (status, stdout, _) = run(&session, spec).await;
    assert_eq!((status.exit, stdout.as_slice()), (Exit::Code(6), &b"ran\n"[..]));
    assert_eq!(std::fs::read(dir.path().join("old")).unwrap(), b"new");
    assert_eq!(std::fs::read(dir.path().join("big")).unwrap(), big);
    let metadata = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap();
    assert_eq!(["old", "run", "big"].map(|name| metadata(name).mode() & 0o7777), [0o644, 0o755, 0o600]);
    if !user.is_empty() {
        assert_eq!((metadata("big").uid(), metadata("big").gid()), (65534, 65533));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[tokio::test]
async fn a_file_that_has_no_place_is_named_and_leaves_nothing() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("directory")).unwrap();
    let file = |name: &str| StagedFile {
        path: dir.path().join(name).into_os_string().into_encoded_bytes(),
        content: b"x".to_vec(),
        mode: None,
    };
    for bad in ["missing/file", "directory"] {
        let spec = ExecSpec { files: vec![file("good"), file(bad)], ..shell("echo never") };
        assert_eq!(refused(&session, spec).await, (StartFailureKind::InvalidArgument, "files[1]".into()));
    }
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["directory", "good"]);
}

#[tokio::test]
async fn limits_hold_in_the_program_and_a_bad_one_is_named() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let limit = |name: &str, soft, hard| Rlimit { name: name.into(), soft, hard };
    let spec = ExecSpec {
        rlimits: vec![limit("nofile", Some(77), Some(99)), limit("core", Some(0), Some(0))],
        ..shell("ulimit -Sn; ulimit -Hn; ulimit -c")
    };
    assert_eq!(run(&session, spec).await.1, b"77\n99\n0\n");
    let spec = ExecSpec { rlimits: vec![limit("cpu", None, None), limit("speed", None, None)], ..shell("") };
    assert_eq!(refused(&session, spec).await, (StartFailureKind::InvalidArgument, "rlimits[1]".into()));
    // More than any kernel lets a process have open.
    let spec = ExecSpec { rlimits: vec![limit("nofile", None, None)], ..shell("") };
    assert_eq!(refused(&session, spec).await, (StartFailureKind::InvalidArgument, "rlimits[0]".into()));
}

#[tokio::test]
async fn programs_get_the_limit_of_open_files_that_the_agent_was_given() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let own = own.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = own.split_whitespace().nth(3).unwrap();
    assert_eq!(run(&session, shell("ulimit -Sn")).await.1.trim_ascii(), soft.as_bytes());
}
