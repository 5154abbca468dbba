//! Execs that nobody owns: how they are joined, how long they stay, what is kept of what they wrote.

use std::time::Duration;

use cellule_protocol::client::{
    AttachError, AttachEvent, AttachSpec, CallError, ExecError, ExecId, ExecSpec, Exit, Session,
    StartFailureKind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{AgentProcess, all_of, assert_gone, attach, exit_of, run, shell, within};

/// What a dropping ring holds, and what a lossless one holds together with a pipe.
const RING: u64 = 1 << 20;
const LOSSLESS: usize = (256 << 10) + (64 << 10);

async fn ended(session: &Session, id: ExecId) {
    let mut one = within(session.attach(id, AttachSpec::default())).await.unwrap();
    exit_of(&mut one).await;
}

#[tokio::test]
async fn it_outlives_its_session_and_is_joined_in_another() {
    let agent = AgentProcess::start();
    let id = ExecId::random();
    let session = agent.session().await;
    let script = "echo out; echo err >&2; sleep 0.3; echo more; exit 7";
    let pid = session.exec_detached(id, shell(script)).await.unwrap();
    drop(session);
    let session = agent.session().await;
    let mut first = attach(&session, id).await;
    assert_eq!((first.pid, first.stdout_from, first.stderr_from), (pid, 0, 0));
    let mut second = attach(&session, id).await;
    for joined in [&mut first, &mut second] {
        assert_eq!(all_of(joined.stdout.as_mut()).await, b"out\nmore\n");
        assert_eq!(all_of(joined.stderr.as_mut()).await, b"err\n");
        let (status, missed) = exit_of(joined).await;
        assert_eq!((status.exit, missed), (Exit::Code(7), Vec::new()));
        // And ever again.
        assert_eq!(joined.next().await.unwrap(), AttachEvent::Exited(status));
    }
}

#[tokio::test]
async fn its_output_is_there_after_its_exit_from_any_offset_until_it_is_forgotten() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let id = ExecId::random();
    session.exec_detached(id, shell("printf 0123456789; exit 3")).await.unwrap();
    ended(&session, id).await;
    for (offset, from, rest) in
        [(0, 0, &b"0123456789"[..]), (4, 4, b"456789"), (10, 10, b""), (u64::MAX, 10, b""), (99, 10, b"")]
    {
        let spec = AttachSpec { stdout: Some(offset), ..AttachSpec::default() };
        let mut joined = session.attach(id, spec).await.unwrap();
        assert_eq!(joined.stdout_from, from);
        assert_eq!(all_of(joined.stdout.as_mut()).await, rest);
        assert_eq!(exit_of(&mut joined).await.0.exit, Exit::Code(3));
    }
    let [listed] = session.execs().await.unwrap().try_into().unwrap();
    assert_eq!((listed.id, listed.detached, listed.terminal), (id, true, false));
    assert_eq!(listed.argv[..2], [b"sh".to_vec(), b"-c".to_vec()]);
    assert_eq!(listed.exited.unwrap().exit, Exit::Code(3));
    assert_eq!((listed.stdout_bytes, listed.stdout_dropped, listed.stderr_bytes), (10, 0, 0));
    assert!(session.forget(id).await.unwrap());
    assert!(!session.forget(id).await.unwrap());
    assert!(session.execs().await.unwrap().is_empty());
    let gone = session.attach(id, AttachSpec::default()).await;
    assert!(matches!(gone, Err(AttachError::NoSuchExec)), "{gone:?}");
}

#[tokio::test]
async fn one_that_runs_is_not_forgotten_and_can_be_signalled_by_its_id() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    session.exec_detached(ExecId::MAIN, shell("exec sleep 1000")).await.unwrap();
    let refused = session.forget(ExecId::MAIN).await;
    assert!(
        matches!(refused, Err(CallError::Refused { code: tonic::Code::FailedPrecondition, .. })),
        "{refused:?}"
    );
    let mut joined = attach(&session, ExecId::MAIN).await;
    assert!(session.signal(ExecId::MAIN, 15, false).await.unwrap());
    assert_eq!(exit_of(&mut joined).await.0.exit, Exit::Signal(15));
    assert!(!session.signal(ExecId::MAIN, 15, false).await.unwrap());
    assert!(!session.signal(ExecId::MAIN, 9, true).await.unwrap());
}

#[tokio::test]
async fn two_of_one_id_do_not_exist() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    session.exec_detached(ExecId::MAIN, shell("exec sleep 1000")).await.unwrap();
    match session.exec_detached(ExecId::MAIN, shell("exit 0")).await {
        Err(ExecError::Failed(failure)) => {
            assert_eq!((failure.kind, &*failure.field), (StartFailureKind::InvalidArgument, "exec_id"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_that_cannot_start_leaves_nothing_behind() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let spec = ExecSpec { argv: vec![b"/no/such".to_vec()], ..shell("") };
    assert!(session.exec_detached(ExecId::MAIN, spec).await.is_err());
    assert!(session.execs().await.unwrap().is_empty());
    session.exec_detached(ExecId::MAIN, shell("exit 0")).await.unwrap();
}

#[tokio::test]
async fn old_output_is_dropped_counted_and_said() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let id = ExecId::random();
    let written = RING + 5000;
    let script = format!("head -c {written} /dev/zero; printf end");
    session.exec_detached(id, shell(&script)).await.unwrap();
    ended(&session, id).await;
    let mut joined = attach(&session, id).await;
    assert_eq!(joined.stdout_from, 5003);
    let kept = all_of(joined.stdout.as_mut()).await;
    assert_eq!(kept.len() as u64, RING);
    assert!(kept.ends_with(b"\0end"));
    let [listed] = session.execs().await.unwrap().try_into().unwrap();
    assert_eq!((listed.stdout_bytes, listed.stdout_dropped), (written + 3, 5003));
}

#[tokio::test]
async fn a_slow_reader_is_told_which_bytes_it_missed() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let id = ExecId::random();
    let spec =
        ExecSpec { stdin: true, ..shell("read go; head -c 8000000 /dev/zero; printf end; exec >&-; read x") };
    session.exec_detached(id, spec).await.unwrap();
    let what = AttachSpec { stdin: true, stdout: Some(0), stderr: None };
    let mut joined = session.attach(id, what).await.unwrap();
    joined.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    // The program does not wait for this reader.
    let begun = std::time::Instant::now();
    while session.execs().await.unwrap()[0].stdout_bytes < 8_000_003 {
        assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", session.execs().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut stdout = joined.stdout.take().unwrap();
    let bytes = within(all_of(Some(&mut stdout))).await;
    assert!(bytes.ends_with(b"\0end"));
    drop(joined.stdin.take());
    session.signal(id, 9, false).await.unwrap();
    let (status, missed) = exit_of(&mut joined).await;
    assert_eq!(status.exit, Exit::Signal(9));
    let mut missing = 0;
    for event in &missed {
        let AttachEvent::Dropped { stderr: false, offset, bytes } = event else { panic!("{missed:?}") };
        assert!(*offset < 8_000_003 && *bytes > 0);
        missing += bytes;
    }
    assert!(missing > 0);
    assert_eq!(bytes.len() as u64 + missing, 8_000_003);
}

#[tokio::test]
async fn a_lossless_one_waits_for_a_reader_and_loses_nothing() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let id = ExecId::random();
    let spec = ExecSpec { lossless: true, ..shell("head -c 3000000 /dev/zero; printf end") };
    session.exec_detached(id, spec).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let [listed] = session.execs().await.unwrap().try_into().unwrap();
    assert!(listed.exited.is_none() && listed.stdout_bytes <= LOSSLESS as u64, "{listed:?}");
    let mut joined = attach(&session, id).await;
    let bytes = within(all_of(joined.stdout.as_mut())).await;
    assert_eq!(bytes.len(), 3_000_003);
    assert!(bytes.ends_with(b"end"));
    assert_eq!(exit_of(&mut joined).await, (joined_status(&session, id).await, Vec::new()));
}

async fn joined_status(session: &Session, id: ExecId) -> cellule_protocol::client::ExitStatus {
    let mut joined = within(session.attach(id, AttachSpec::default())).await.unwrap();
    exit_of(&mut joined).await.0
}

#[tokio::test]
async fn a_reader_that_leaves_takes_nothing_from_the_program() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let id = ExecId::random();
    session.exec_detached(id, shell("echo a; sleep 0.5; echo b; exit 5")).await.unwrap();
    let joined = attach(&session, id).await;
    drop(joined);
    let mut joined = attach(&session, id).await;
    assert_eq!(all_of(joined.stdout.as_mut()).await, b"a\nb\n");
    assert_eq!(exit_of(&mut joined).await.0.exit, Exit::Code(5));
}

#[tokio::test]
async fn readers_of_a_silent_exec_that_leave_hold_no_streams() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    session.exec_detached(ExecId::MAIN, shell("exec sleep 1000")).await.unwrap();
    // More than yamux lets a session have at a time.
    for _ in 0..2500 {
        drop(attach(&session, ExecId::MAIN).await);
    }
    assert_eq!(run(&session, shell("exit 4")).await.0.exit, Exit::Code(4));
}

#[tokio::test]
async fn input_survives_those_who_vanish_and_ends_with_whoever_ends_it() {
    let agent = AgentProcess::start();
    let id = ExecId::random();
    let session = agent.session().await;
    session.exec_detached(id, ExecSpec { stdin: true, ..shell("exec cat") }).await.unwrap();
    let what = AttachSpec { stdin: true, stdout: Some(0), stderr: None };
    let mut joined = session.attach(id, what).await.unwrap();
    joined.stdin.as_mut().unwrap().write_all(b"one ").await.unwrap();
    let mut four = [0; 4];
    within(joined.stdout.as_mut().unwrap().read_exact(&mut four)).await.unwrap();
    drop(joined);
    drop(session);
    let session = agent.session().await;
    let mut joined = session.attach(id, what).await.unwrap();
    let mut stdin = joined.stdin.take().unwrap();
    stdin.write_all(b"two").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(within(all_of(joined.stdout.as_mut())).await, b"one two");
    assert_eq!(exit_of(&mut joined).await.0.exit, Exit::Code(0));
}

#[tokio::test]
async fn a_program_without_input_breaks_the_pipe_of_whoever_writes() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    session.exec_detached(ExecId::MAIN, shell("exec sleep 1000")).await.unwrap();
    let joined = session.attach(ExecId::MAIN, AttachSpec { stdin: true, ..AttachSpec::default() }).await;
    let mut stdin = joined.unwrap().stdin.unwrap();
    let error = within(async {
        loop {
            if let Err(error) = stdin.write_all(&[0; 1000]).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(error.await.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn an_owned_one_that_is_let_go_outlives_its_owner() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(shell("echo before; sleep 0.5; echo after; exit 6")).await.unwrap();
    let id = exec.process.id();
    let mut before = [0; 7];
    within(exec.stdout.read_exact(&mut before)).await.unwrap();
    assert!(session.detach(id).await.unwrap());
    drop((exec, session));
    let session = agent.session().await;
    let mut joined = attach(&session, id).await;
    assert_eq!(within(all_of(joined.stdout.as_mut())).await, b"before\nafter\n");
    assert_eq!(exit_of(&mut joined).await.0.exit, Exit::Code(6));
}

#[tokio::test]
async fn an_owned_one_can_be_joined_and_dies_with_its_owner_all_the_same() {
    let agent = AgentProcess::start();
    let owner = agent.session().await;
    let exec = owner.exec(shell("echo here; exec sleep 1000")).await.unwrap();
    let mut joined = attach(&owner, exec.process.id()).await;
    let mut here = [0; 5];
    within(joined.stdout.as_mut().unwrap().read_exact(&mut here)).await.unwrap();
    let pid = exec.process.pid().to_string();
    drop(exec);
    assert_eq!(exit_of(&mut joined).await.0.exit, Exit::Signal(9));
    assert_gone(&pid).await;
    assert!(owner.execs().await.unwrap().is_empty());
}

#[tokio::test]
async fn of_those_that_ended_the_oldest_give_way() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    for id in 100..170 {
        session.exec_detached(ExecId(id), shell("exit 0")).await.unwrap();
        ended(&session, ExecId(id)).await;
    }
    let kept: Vec<_> = session.execs().await.unwrap().iter().map(|exec| exec.id.0).collect();
    assert_eq!(kept, (106..170).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_kept_of_those_that_ended_is_bounded() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    for id in 100..130 {
        session.exec_detached(ExecId(id), shell("head -c 2000000 /dev/zero")).await.unwrap();
        ended(&session, ExecId(id)).await;
    }
    let kept = session.execs().await.unwrap();
    assert!((8..=16).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().unwrap().id, ExecId(129));
}

#[tokio::test]
async fn an_output_that_nobody_will_read_is_a_closed_pipe_once_its_reader_is_gone() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let id = ExecId::random();
    let spec = ExecSpec { lossless: true, ..shell("yes; echo $? >&2") };
    session.exec_detached(id, spec).await.unwrap();
    let mut reader = attach(&session, id).await;
    let mut some = [0; 16];
    within(reader.stdout.as_mut().unwrap().read_exact(&mut some)).await.unwrap();
    assert!(within(session.close_output(id, false)).await.unwrap());
    drop(reader.stdout.take());
    assert_eq!(within(all_of(reader.stderr.as_mut())).await, b"141\n");
    let (exit, _) = exit_of(&mut reader).await;
    assert_eq!(exit.exit, Exit::Code(0));
    assert!(!within(session.close_output(ExecId::random(), true)).await.unwrap(), "there is no such exec");
}
