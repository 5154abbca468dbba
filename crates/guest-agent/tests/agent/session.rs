//! How sessions begin and end, and what a broken one does.

use std::time::Duration;

use cellule_protocol::client::{ConnectError, Exit, Limits, Lost, Session};
use cellule_protocol::preface::{PREFACE_LEN, Preface, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{AgentProcess, LIMIT, run, shell};

#[tokio::test]
async fn a_session_follows_a_session() {
    let agent = AgentProcess::start();
    for round in 0..5 {
        let session = agent.session().await;
        assert_eq!(run(&session, shell(&format!("exit {round}"))).await.0.exit, Exit::Code(round));
    }
}

#[tokio::test]
async fn stale_bytes_before_the_preface_are_passed_over() {
    let agent = AgentProcess::start();
    let mut port = agent.port().await;
    port.write_all(&[0x5A; 10_000]).await.unwrap();
    port.write_all(b"\xCE\x11ULE").await.unwrap();
    let session = Session::connect(port, Limits::default()).await.unwrap();
    session.handshake(None).await.unwrap();
}

#[tokio::test]
async fn a_host_that_begins_anew_on_the_same_port_is_heard() {
    let agent = AgentProcess::start();
    let mut port = agent.port().await;
    // A former host's preface, answered to nobody; and half a frame of its session.
    let former = Preface { versions: 1..=1, nonce: [7; 16] };
    port.write_all(&former.encode(Side::Host)).await.unwrap();
    let session = Session::connect(port, Limits::default()).await.unwrap();
    session.handshake(None).await.unwrap();
}

#[tokio::test]
async fn a_host_that_begins_anew_inside_a_frame_is_heard_on_its_second_greeting() {
    let agent = AgentProcess::start();
    let mut port = agent.port().await;
    let former = Preface { versions: 1..=1, nonce: [7; 16] };
    port.write_all(&former.encode(Side::Host)).await.unwrap();
    // The header of a frame that carries 100 KiB and never comes.
    port.write_all(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0x90, 0]).await.unwrap();
    let session =
        tokio::time::timeout(LIMIT, Session::connect(port, Limits::default())).await.unwrap().unwrap();
    session.handshake(None).await.unwrap();
}

#[tokio::test]
async fn on_a_connection_of_its_own_a_host_greets_once() {
    let (host, mut agent) = tokio::io::duplex(1 << 16);
    // Longer than it would wait before it greeted again.
    let limits = Limits { connect: Duration::from_secs(11), repeat_preface: false, ..Limits::default() };
    assert!(matches!(Session::connect(host, limits).await, Err(ConnectError::NoAnswer { .. })));
    let mut greeting = Vec::new();
    agent.read_to_end(&mut greeting).await.unwrap();
    assert_eq!(greeting.len(), PREFACE_LEN);
}

#[tokio::test]
async fn an_agent_of_other_versions_is_named_incompatible() {
    let (host, mut agent) = tokio::io::duplex(1 << 16);
    let peer = tokio::spawn(async move {
        let mut greeting = [0; PREFACE_LEN];
        agent.read_exact(&mut greeting).await.unwrap();
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&greeting[12..]);
        agent.write_all(&Preface { versions: 40..=41, nonce }.encode(Side::Agent)).await.unwrap();
        agent
    });
    match Session::connect(host, Limits::default()).await {
        Err(ConnectError::Incompatible { agent, .. }) => assert_eq!(agent, 40..=41),
        other => panic!("{other:?}"),
    }
    peer.await.unwrap();
}

#[tokio::test]
async fn a_host_of_other_versions_is_told_ours_and_the_next_is_served() {
    let agent = AgentProcess::start();
    let mut port = agent.port().await;
    let theirs = Preface { versions: 40..=41, nonce: [7; 16] };
    port.write_all(&theirs.encode(Side::Host)).await.unwrap();
    let mut answer = [0; PREFACE_LEN];
    tokio::time::timeout(LIMIT, port.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer[8..12], [1, 0, 1, 0]);
    Session::connect(port, Limits::default()).await.unwrap().handshake(None).await.unwrap();
}

#[tokio::test]
async fn silence_is_an_error_with_its_limit() {
    let (host, _agent) = tokio::io::duplex(1 << 16);
    let limits = Limits { connect: Duration::from_millis(100), ..Limits::default() };
    assert!(matches!(Session::connect(host, limits).await, Err(ConnectError::NoAnswer { discarded: 0, .. })));
}

#[tokio::test]
async fn a_port_that_is_closed_at_once_is_a_hang_up() {
    let (host, agent) = tokio::io::duplex(1 << 16);
    drop(agent);
    let error = Session::connect(host, Limits::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::HungUp | ConnectError::Io(_)), "{error:?}");
}

#[tokio::test]
async fn endless_noise_is_refused() {
    let (host, mut agent) = tokio::io::duplex(1 << 20);
    let noise = tokio::spawn(async move { while agent.write_all(&[0x5A; 1 << 14]).await.is_ok() {} });
    let connected = tokio::time::timeout(LIMIT, Session::connect(host, Limits::default())).await.unwrap();
    assert!(matches!(connected, Err(ConnectError::NotAnAgent { .. })), "{connected:?}");
    noise.await.unwrap();
}

#[tokio::test]
async fn an_agent_that_vanishes_leaves_no_exit_code() {
    let mut agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(shell("exec sleep 3")).await.unwrap();
    agent.kill();
    let lost = tokio::time::timeout(LIMIT, exec.process.wait()).await.unwrap().unwrap_err();
    assert!(matches!(lost, Lost::HungUp), "{lost:?}");
    // Nor does its output look finished.
    let mut rest = Vec::new();
    exec.stdout.read_to_end(&mut rest).await.unwrap_err();
    session.status().await.unwrap_err();
}

#[tokio::test]
async fn a_hang_up_kills_what_was_running() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let exec = session.exec(shell("exec sleep 1000")).await.unwrap();
    let path = format!("/proc/{}/exe", exec.process.pid());
    drop((exec, session));
    let begun = std::time::Instant::now();
    while std::fs::read_link(&path).is_ok() {
        assert!(begun.elapsed() < LIMIT, "it lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn garbage_in_the_midst_of_a_session_ends_it_and_only_it() {
    let agent = AgentProcess::start();
    for garbage in
        [&[0xFF; 64][..], &[0; 5000], b"\0\x03\0\0\0\0\0\0\0\0\0\0", b"\0\0\0\x01\0\0\0\x02\xFF\xFF\xFF\xFF"]
    {
        let mut port = agent.port().await;
        let greeting = Preface { versions: 1..=1, nonce: [1; 16] };
        port.write_all(&greeting.encode(Side::Host)).await.unwrap();
        port.write_all(garbage).await.unwrap();
        drop(port);
        agent.session().await.handshake(None).await.unwrap();
    }
    assert!(std::path::Path::new("/proc").join(agent.pid().to_string()).exists());
}
