//! Execs with a terminal of their own.

use std::time::Duration;

use cellule_protocol::client::{AttachSpec, CallError, Exec, ExecId, ExecSpec, Exit, Output, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{AgentProcess, all_of, assert_gone, exit_of, finish, run, shell, within};

const SIZE: TerminalSize = TerminalSize { rows: 33, columns: 101 };

fn on_a_terminal(script: &str) -> ExecSpec {
    ExecSpec { stdin: true, terminal: Some(SIZE), ..shell(script) }
}

/// Reads until what came ends with `wanted`.
async fn until(output: &mut Output, wanted: &str) -> String {
    let mut text = Vec::new();
    within(async {
        while !text.ends_with(wanted.as_bytes()) {
            let mut byte = [0];
            let count = output.read(&mut byte).await.unwrap();
            assert!(count > 0, "ended after {:?}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
    })
    .await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn it_is_input_output_error_and_controlling_terminal_of_the_size_asked_for() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let script =
        "test -t 0 && test -t 1 && test -t 2 && echo three; stty size < /dev/tty; echo err >&2; exit 4";
    let exec = session.exec(on_a_terminal(script)).await.unwrap();
    assert!(exec.stderr.is_none());
    let (status, output, _) = finish(exec).await;
    assert_eq!(String::from_utf8_lossy(&output), "three\r\n33 101\r\nerr\r\n");
    assert_eq!(status.exit, Exit::Code(4));
}

#[tokio::test]
async fn a_child_on_a_terminal_gets_no_other_descriptors() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    for spec in [on_a_terminal("ls /proc/self/fd | tr '\\n' ' '"), shell("ls /proc/self/fd | tr '\\n' ' '")] {
        let exec = session.exec(spec).await.unwrap();
        // The fourth is the directory that `ls` reads.
        assert_eq!(finish(exec).await.1, b"0 1 2 3 ");
    }
}

#[tokio::test]
async fn it_belongs_to_its_user_and_nobody_else_reads_it() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let owner = if rustix::process::geteuid().is_root() { "65534" } else { "" };
    let spec = ExecSpec { user: owner.into(), ..on_a_terminal("stat -c '%u %a' $(tty); echo x > /dev/tty") };
    let (status, output, _) = run(&session, spec).await;
    let uid =
        if owner.is_empty() { rustix::process::geteuid().as_raw().to_string() } else { owner.to_owned() };
    assert_eq!(String::from_utf8_lossy(&output), format!("{uid} 620\r\nx\r\n"));
    assert_eq!(status.exit, Exit::Code(0));
}

#[tokio::test]
async fn typing_reaches_the_program_and_control_c_its_foreground() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(on_a_terminal("read line; echo got $line; exec sleep 1000")).await.unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    stdin.write_all(b"hello\n").await.unwrap();
    until(&mut exec.stdout, "got hello\r\n").await;
    stdin.write_all(b"\x03").await.unwrap();
    assert_eq!(within(exec.process.wait()).await.unwrap().exit, Exit::Signal(2));
}

#[tokio::test]
async fn the_end_of_the_hosts_input_ends_nothing() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(on_a_terminal("read line; echo got $line")).await.unwrap();
    let id = exec.process.id();
    exec.stdin.take().unwrap().shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let joined = session.attach(id, AttachSpec { stdin: true, ..AttachSpec::default() }).await.unwrap();
    joined.stdin.unwrap().write_all(b"later\n").await.unwrap();
    until(&mut exec.stdout, "got later\r\n").await;
}

#[tokio::test]
async fn a_new_size_is_told_to_the_program_whatever_its_input_waits_for() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let script = "trap 'stty size' WINCH; stty -icanon; echo ready; while :; do sleep 0.05; done";
    let mut exec = session.exec(on_a_terminal(script)).await.unwrap();
    until(&mut exec.stdout, "ready\r\n").await;
    // The program reads none of it.
    let mut stdin = exec.stdin.take().unwrap();
    let writer = tokio::spawn(async move { while stdin.write_all(&[b'x'; 1 << 14]).await.is_ok() {} });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let size = TerminalSize { rows: 7, columns: 9 };
    assert!(within(session.resize(exec.process.id(), size)).await.unwrap());
    until(&mut exec.stdout, "7 9\r\n").await;
    assert!(within(session.signal(exec.process.id(), 9, true)).await.unwrap());
    assert_eq!(within(exec.process.wait()).await.unwrap().exit, Exit::Signal(9));
    within(writer).await.unwrap();
    assert!(!session.resize(exec.process.id(), size).await.unwrap());
}

#[tokio::test]
async fn an_exec_without_a_terminal_has_no_size() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    session.exec_detached(ExecId::MAIN, shell("exec sleep 1000")).await.unwrap();
    let refused = session.resize(ExecId::MAIN, SIZE).await;
    assert!(
        matches!(refused, Err(CallError::Refused { code: tonic::Code::FailedPrecondition, .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_time_limit_holds_on_a_terminal_too() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let spec = ExecSpec { timeout: Some(Duration::from_millis(300)), ..on_a_terminal("exec sleep 1000") };
    let (status, ..) = run(&session, spec).await;
    assert_eq!((status.exit, status.timed_out), (Exit::Signal(9), true));
}

#[tokio::test]
async fn a_host_that_vanishes_leaves_no_shell_behind() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let exec =
        session.exec(on_a_terminal("trap '' HUP; echo $$; while :; do sleep 0.1; done")).await.unwrap();
    let pid = exec.process.pid().to_string();
    drop((exec, session));
    assert_gone(&pid).await;
}

#[tokio::test]
async fn a_terminal_that_is_left_and_taken_again_keeps_the_agent_from_nothing() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    // Nobody holds it for a moment, again and again, while the host's input fills it up.
    let script =
        "name=$(tty); exec <&- >&- 2>&-; i=0; while [ $i -lt 200 ]; do : <$name; i=$((i+1)); done; exit 8";
    for _ in 0..10 {
        let mut exec = session.exec(on_a_terminal(script)).await.unwrap();
        let mut stdin = exec.stdin.take().unwrap();
        let writer = tokio::spawn(async move { while stdin.write_all(&[b'x'; 1 << 14]).await.is_ok() {} });
        assert_eq!(within(exec.process.wait()).await.unwrap().exit, Exit::Code(8));
        within(session.status()).await.unwrap();
        within(writer).await.unwrap();
    }
}

#[tokio::test]
async fn a_survivor_that_holds_the_terminal_does_not_hold_the_exec() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let exec = session.exec(on_a_terminal("trap '' HUP; sleep 100 & echo out; exit 3")).await.unwrap();
    let (status, output, _) = finish(exec).await;
    assert_eq!((status.exit, output.as_slice()), (Exit::Code(3), &b"out\r\n"[..]));
}

#[tokio::test]
async fn all_that_was_written_to_it_comes() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let exec =
        session.exec(on_a_terminal("stty -opost; head -c 3000000 /dev/zero | tr '\\0' x; printf end")).await;
    let (status, output, _) = finish(exec.unwrap()).await;
    assert_eq!((status.exit, output.len()), (Exit::Code(0), 3_000_003));
    assert!(output.ends_with(b"end"));
}

#[tokio::test]
async fn a_detached_shell_is_left_and_joined_again() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let Exec { stdin, mut stdout, process, .. } =
        session.exec(on_a_terminal("while read line; do echo got $line; done")).await.unwrap();
    let mut stdin = stdin.unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    until(&mut stdout, "got one\r\n").await;
    let id = process.id();
    assert!(session.detach(id).await.unwrap());
    drop((stdin, stdout, process, session));
    let session = agent.session().await;
    let what = AttachSpec { stdin: true, stdout: Some(u64::MAX), stderr: Some(0) };
    let mut joined = session.attach(id, what).await.unwrap();
    assert!(joined.stdout_from > 0);
    assert!(within(all_of(joined.stderr.as_mut())).await.is_empty());
    joined.stdin.as_mut().unwrap().write_all(b"two\n\x04").await.unwrap();
    let rest = within(all_of(joined.stdout.as_mut())).await;
    assert!(String::from_utf8_lossy(&rest).contains("got two\r\n"), "{rest:?}");
    assert_eq!(exit_of(&mut joined).await.0.exit, Exit::Code(0));
}

#[tokio::test]
async fn what_cannot_start_on_a_terminal_says_why() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let spec = ExecSpec { cwd: b"/no/such".to_vec(), ..on_a_terminal("") };
    let failed = session.exec(spec).await.unwrap_err();
    assert!(format!("{failed:?}").contains("BadWorkingDirectory"), "{failed:?}");
    let spec = ExecSpec { argv: vec![b"/no/such".to_vec()], ..on_a_terminal("") };
    let failed = session.exec(spec).await.unwrap_err();
    assert!(format!("{failed:?}").contains("NotFound"), "{failed:?}");
    assert!(session.execs().await.unwrap().is_empty());
}
