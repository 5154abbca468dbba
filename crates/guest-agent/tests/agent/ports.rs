//! Connections to ports on the guest's loopback.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use cellule_protocol::client::PortError;
use cellule_protocol::stream::{StreamHeader, StreamKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use crate::support::{AgentProcess, within};

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let (listener, port) = listener().await;
    let mut ours = within(session.open_port(port)).await.unwrap();
    let (mut theirs, _) = listener.accept().await.unwrap();
    // Far more than is read ahead, so that both sides wait for each other.
    let question: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    let (sent, got) = within(async {
        let ask = async {
            ours.write_all(&question).await.unwrap();
            ours.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let ((), read) = tokio::join!(ask, theirs.read_to_end(&mut got));
        (read.unwrap(), got)
    })
    .await;
    assert_eq!((sent, got == question), (question.len(), true));
    theirs.write_all(b"answer").await.unwrap();
    drop(theirs);
    let mut answer = String::new();
    within(ours.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn the_other_sides_end_leaves_ours_open() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let (listener, port) = listener().await;
    let mut ours = within(session.open_port(port)).await.unwrap();
    let (mut theirs, _) = listener.accept().await.unwrap();
    theirs.write_all(b"first").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut text = String::new();
    within(ours.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "first");
    ours.write_all(b"last").await.unwrap();
    ours.shutdown().await.unwrap();
    text.clear();
    within(theirs.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "last");
}

#[tokio::test]
async fn a_cut_is_a_cut_on_either_side() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let (listener, port) = listener().await;
    let mut ours = within(session.open_port(port)).await.unwrap();
    let (theirs, _) = listener.accept().await.unwrap();
    // What is unread when it is dropped makes it a reset.
    ours.write_all(b"unread").await.unwrap();
    ours.flush().await.unwrap();
    within(theirs.peek(&mut [0])).await.unwrap();
    drop(theirs);
    let error = within(ours.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);

    let ours = within(session.open_port(port)).await.unwrap();
    let (mut theirs, _) = listener.accept().await.unwrap();
    drop(ours);
    // Whether by an end or a reset, it is over in both directions.
    let mut nothing = [0];
    assert_ne!(within(theirs.read(&mut nothing)).await.ok(), Some(1));
    let written = within(async {
        loop {
            if let Err(error) = theirs.write_all(&[0; 1024]).await {
                break error;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(matches!(written.await.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_refused_by_its_number() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    // Bound and not listened on, so that nobody else has it.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let error = within(session.open_port(port)).await.unwrap_err();
    assert!(matches!(error, PortError::Refused { port: refused } if refused == port), "{error}");
    assert!(error.to_string().contains(&port.to_string()));
}

#[tokio::test]
async fn a_program_that_listens_on_ipv6_alone_is_found() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    // A host without IPv6 has nothing to show.
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else { return };
    let mut ours = within(session.open_port(listener.local_addr().unwrap().port())).await.unwrap();
    let (mut theirs, _) = listener.accept().await.unwrap();
    theirs.write_all(b"6").await.unwrap();
    assert_eq!(within(ours.read_u8()).await.unwrap(), b'6');
}

#[tokio::test]
async fn a_number_that_is_no_port_is_refused_and_the_session_goes_on() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let header = StreamHeader { kind: StreamKind::Port, id: 65_536 };
    let mut stream = session.open(header).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, [22]);
    session.status().await.unwrap();
}

#[tokio::test]
async fn more_connections_than_there_may_be_are_refused_and_those_that_end_make_room() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let (listener, port) = listener().await;
    let accepting = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            all.push(connection);
        }
    });
    let mut connections = Vec::new();
    let refused = within(async {
        loop {
            match session.open_port(port).await {
                Ok(connection) => connections.push(connection),
                Err(error) => break error,
            }
        }
    });
    assert!(matches!(refused.await, PortError::TooMany));
    assert_eq!(connections.len(), 256);
    connections.truncate(250);
    let again = within(async {
        loop {
            match session.open_port(port).await {
                Ok(connection) => break connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    drop(again.await);
    accepting.abort();
}
