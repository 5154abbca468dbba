//! What the host learns of the guest as a whole.

use std::time::Duration;

use cellule_protocol::client::{CallError, ExecId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{AgentProcess, shell, within};

#[tokio::test]
async fn processes_are_listed_with_what_they_were_started_as() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let pid = session.exec_detached(ExecId::MAIN, shell("exec sleep 12345")).await.unwrap();
    // The shell has started by now; when it becomes what it was told to be, and rests, is its own affair.
    let (found, processes) = within(async {
        loop {
            let processes = session.processes().await.unwrap();
            let found = processes.iter().find(|process| process.pid == pid).unwrap().clone();
            if found.command == b"sleep 12345" && found.state == "S" {
                return (found, processes);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!((found.parent, found.uid), (agent.pid(), rustix::process::geteuid().as_raw()));
    assert!(processes.iter().all(|process| process.pid != agent.pid()));
}

#[tokio::test]
async fn what_is_used_is_told() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let stats = session.stats().await.unwrap();
    assert!(stats.memory_total_bytes > stats.memory_used_bytes && stats.processes > 0);
}

#[tokio::test]
async fn an_agent_without_an_image_refuses_to_compare() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let refused = session.diff().await.unwrap_err();
    assert!(
        matches!(refused, CallError::Refused { code: tonic::Code::FailedPrecondition, .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_the_agent_said_is_kept_and_what_it_says_comes() {
    let agent = AgentProcess::start();
    // A session that ends by nonsense is something to speak of.
    let offend = async || {
        let mut port = agent.port().await;
        let greeting = cellule_protocol::preface::Preface { versions: 1..=1, nonce: [1; 16] };
        port.write_all(&greeting.encode(cellule_protocol::preface::Side::Host)).await.unwrap();
        within(port.read_exact(&mut [0; cellule_protocol::preface::PREFACE_LEN])).await.unwrap();
        port.write_all(&[0xFF; 64]).await.unwrap();
        // It says so, and goes on looking for a host.
        let _what_else = tokio::time::timeout(Duration::from_millis(200), port.read(&mut [0; 64])).await;
    };
    offend().await;
    let mut log = agent.session().await.log().await.unwrap();
    let line = within(log.next()).await.unwrap().unwrap();
    assert!(line.text.contains("a session ended") && line.time_ns > 0, "{line:?}");
    drop(log);
    offend().await;
    let mut log = agent.session().await.log().await.unwrap();
    for _ in 0..2 {
        assert!(within(log.next()).await.unwrap().unwrap().text.contains("a session ended"));
    }
}
