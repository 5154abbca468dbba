use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::*;

const GREETING: &str =
    r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}"#;

/// A QEMU that greets, agrees to the capabilities, and then says `lines`, one for each command that it gets.
async fn opened(lines: Vec<String>) -> (Qmp, mpsc::Receiver<Event>) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    tokio::spawn(async move {
        let (read, mut write) = theirs.into_split();
        let mut commands = BufReader::new(read).lines();
        let _ = write.write_all(format!("{GREETING}\r\n").as_bytes()).await;
        for line in std::iter::once(r#"{"return": {}}"#.to_owned()).chain(lines) {
            if let Ok(Some(_)) = commands.next_line().await {
                let _ = write.write_all(format!("{line}\r\n").as_bytes()).await;
            }
        }
        // Stays open for more commands, which get no answer.
        while let Ok(Some(_)) = commands.next_line().await {}
    });
    Qmp::open(ours).await.expect("an open channel")
}

#[tokio::test]
async fn answers_and_refusals_reach_who_asked() {
    let (qmp, _events) = opened(vec![
        r#"{"return": {"status": "running"}}"#.to_owned(),
        r#"{"error": {"class": "GenericError", "desc": "not now"}}"#.to_owned(),
    ])
    .await;
    assert_eq!(qmp.execute("query-status").await.expect("an answer")["status"], "running");
    match qmp.execute("cont").await {
        Err(ControlError::Refused { command: "cont", message }) => assert_eq!(message, "not now"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn events_are_told_and_unknown_ones_are_not() {
    let lines = [
        r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}"#,
        r#"{"timestamp": {}, "event": "OF_A_LATER_VERSION", "data": {"x": []}}"#,
        r#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
        r#"{"return": {}}"#,
    ];
    let (qmp, mut events) = opened(vec![lines.join("\r\n")]).await;
    qmp.execute("stop").await.expect("an answer");
    assert_eq!(events.recv().await, Some(Event::Stop));
    assert_eq!(events.recv().await, Some(Event::Shutdown { guest: true, reason: "guest-reset".to_owned() }));
}

#[tokio::test]
async fn rubbish_and_answers_to_nothing_end_the_channel() {
    let unasked = "{\"return\": {}}\r\n{\"return\": {}}\r\n{\"return\": {}}".to_owned();
    for line in ["rubbish".to_owned(), "{\"a\": 1}".to_owned(), "x".repeat(LINE_MAX + 1), unasked] {
        let (qmp, mut events) = opened(vec![line]).await;
        let _ = qmp.execute("stop").await;
        assert_eq!(events.recv().await, None);
        assert!(matches!(qmp.execute("stop").await, Err(ControlError::Closed)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_qemu_is_waited_for_no_longer_than_the_limit() {
    let (qmp, _events) = opened(Vec::new()).await;
    assert!(matches!(
        qmp.execute("stop").await,
        Err(ControlError::Timeout { command: "stop", limit: LIMIT })
    ));
}

#[tokio::test]
async fn whoever_does_not_greet_is_not_qemu() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    theirs.write_all(b"220 smtp.example ESMTP\r\n").await.expect("room in a socket");
    assert!(matches!(Qmp::open(ours).await, Err(ControlError::Malformed { .. })));
}
