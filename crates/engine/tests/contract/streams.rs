//! Console and streams.

use std::time::Duration;

use cellule_engine::{ConnectError, ConsoleLog, Engine, MachineState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::guest::{Guest, Session, config, limited};

pub(crate) async fn a_guest_boots_and_its_console_is_heard(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    assert_eq!(guest.machine.state(), MachineState::Running);
    assert!(guest.console().contains("guest: init runs after"), "{}", guest.console());
    assert_eq!(guest.session.ask("console hello from inside").await, "ok");
    // The console is a channel of its own: its bytes may come later than the answer.
    limited(async {
        while !guest.console().contains("hello from inside") {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) async fn bytes_go_both_ways_unchanged(engine: &dyn Engine) {
    const SIZE: usize = 8 << 20;
    let guest = Guest::boot(engine).await;
    let mut session = guest.session;
    session.tell(&format!("echo {SIZE}")).await;
    // All byte values, in an order that repeats nowhere at a power of two.
    let sent: Vec<u8> = (0..SIZE).map(|n| (n % 251 + n / 65_521).to_le_bytes()[0]).collect();
    let (mut from, mut to) = tokio::io::split(session.stream);
    let mut got = vec![0; SIZE];
    let (written, read) = limited(async {
        tokio::join!(
            async {
                to.write_all(&sent).await?;
                to.flush().await
            },
            from.read_exact(&mut got)
        )
    })
    .await;
    written.expect("a guest that reads");
    read.expect("a guest that writes");
    assert!(sent == got, "the bytes came back changed");
}

pub(crate) async fn a_closed_stream_can_be_opened_again(engine: &dyn Engine) {
    let Guest { machine, session, dir: _dir } = Guest::boot(engine).await;
    let first = session.number;
    drop(session);
    let mut session = Session::open(machine.as_ref()).await;
    assert!(session.number > first);
    assert_eq!(session.ask("cpus").await, "1");
}

pub(crate) async fn a_stream_follows_another_at_once(engine: &dyn Engine) {
    let Guest { machine, mut session, dir: _dir } = Guest::boot(engine).await;
    for _ in 0..10 {
        let former = session.number;
        // Something is on its way in both directions when the session ends.
        session.tell("sleep 1").await;
        session.tell("ticks").await;
        drop(session);
        session = Session::open(machine.as_ref()).await;
        assert!(session.number > former);
        assert_eq!(session.ask("cpus").await, "1");
    }
}

pub(crate) async fn only_one_stream_is_open_at_a_time(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    assert!(matches!(guest.machine.connect().await, Err(ConnectError::Busy)));
    assert_eq!(guest.session.ask("cpus").await, "1");
}

pub(crate) async fn a_flooded_console_is_bounded(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    assert_eq!(guest.session.ask("flood 100").await, "ok");
    assert_eq!(guest.session.ask("console the last line").await, "ok");
    limited(async {
        while !guest.console().trim_end().ends_with("the last line") {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(guest.machine.console().len(), 64 << 10);
}

pub(crate) async fn a_console_log_is_bounded(engine: &dyn Engine) {
    const MOST: u64 = 20_000;
    let (mut config, dir) = config();
    let path = dir.path().join("console.log");
    config.console_log = Some(ConsoleLog { path: path.clone(), limit: MOST });
    let mut guest = Guest::boot_with(engine, config, dir).await;
    assert_eq!(guest.session.ask("flood 50").await, "ok");
    guest.session.tell("poweroff").await;
    limited(guest.machine.wait()).await;
    for part in [path, guest.dir.path().join("console.log.1")] {
        let size = part.metadata().expect("a part of the log").len();
        assert!((1..=MOST).contains(&size), "{size}");
    }
}
