//! Arbitrary bytes from either side: an end in bounded time, never a panic.

use std::time::Duration;

use cellule_protocol::client::{ExecSpec, Limits, Session};
use cellule_protocol::preface::{PREFACE_LEN, Preface, Side};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{AgentProcess, LIMIT};

/// Bytes that often look like frames: version 0, a known type, few flags, small numbers.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let frame = (0..4_u8, 0..16_u8, 0..6_u32, prop_oneof![0..64_u32, any::<u32>()], any::<Vec<u8>>());
    let frame = frame.prop_map(|(kind, flags, stream, len, body)| {
        let mut bytes = vec![0, kind, 0, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(body);
        bytes
    });
    prop_oneof![any::<Vec<u8>>(), prop::collection::vec(frame, 0..20).prop_map(|frames| frames.concat())]
}

fn for_each(cases: u32, check: impl Fn(Vec<u8>)) {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) });
    runner
        .run(&frames(), |bytes| {
            check(bytes);
            Ok(())
        })
        .unwrap();
}

#[test]
fn no_bytes_of_a_host_keep_the_agent_from_the_next() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let agent = AgentProcess::start();
    for_each(100, |bytes| {
        runtime.block_on(async {
            let mut port = agent.port().await;
            let greeting = Preface { versions: 1..=1, nonce: [1; 16] };
            port.write_all(&greeting.encode(Side::Host)).await.unwrap();
            // The agent may have hung up in the midst of it.
            let _sent = port.write_all(&bytes).await;
            drop(port);
            let session = tokio::time::timeout(LIMIT, agent.session()).await.unwrap();
            session.handshake(None).await.unwrap();
        });
    });
}

#[test]
fn no_bytes_of_a_guest_make_an_exit_code_or_a_hang() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for_each(100, |bytes| {
        runtime.block_on(async {
            let (host, mut guest) = tokio::io::duplex(1 << 16);
            let guest = tokio::spawn(async move {
                let mut greeting = [0; PREFACE_LEN];
                guest.read_exact(&mut greeting).await.unwrap();
                let mut nonce = [0; 16];
                nonce.copy_from_slice(&greeting[12..]);
                guest.write_all(&Preface { versions: 1..=1, nonce }.encode(Side::Agent)).await.unwrap();
                let _sent = guest.write_all(&bytes).await;
                let mut sink = vec![0; 1 << 12];
                while guest.read(&mut sink).await.is_ok_and(|count| count > 0) {}
            });
            let limits = Limits { answer: Duration::from_millis(200), ..Limits::default() };
            let outcome = tokio::time::timeout(LIMIT, async {
                let session = Session::connect(host, limits).await?;
                drop(session.handshake(None).await);
                assert!(session.exec(ExecSpec::default()).await.is_err());
                Ok::<_, cellule_protocol::client::ConnectError>(())
            });
            drop(outcome.await.unwrap());
            tokio::time::timeout(LIMIT, guest).await.unwrap().unwrap();
        });
    });
}
