use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, DuplexStream, ReadBuf, duplex};

use super::*;
use crate::log::{LogReader, LogStart};

const HANG: Duration = Duration::from_secs(20);

/// One end of a pipe as a client's stream; that it is dropped looks like an end here, and is told by `cut`.
struct Stream {
    io: DuplexStream,
    cut: bool,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What a client sees of a clean end, and not of a cut.
        match Pin::new(&mut self.io).poll_write(cx, b".") {
            Poll::Ready(_) => Pin::new(&mut self.io).poll_shutdown(cx),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Passable for Stream {
    fn is_closed(&self) -> bool {
        self.cut
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    hub: Hub,
}

impl Fixture {
    fn new(stdin: MainStdin) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hub = Hub::new(LogWriter::new(&dir.path().join("main.log")), stdin, Activity::new());
        Self { dir, hub }
    }

    /// A client of standard output, or error, and its own end.
    fn client(&self, stderr: bool, room: usize) -> DuplexStream {
        let (ours, theirs) = duplex(room);
        self.hub.join_output(stderr, Stream { io: theirs, cut: false });
        ours
    }

    fn input(&self, cut: bool) -> DuplexStream {
        let (ours, theirs) = duplex(1024);
        self.hub.join_input(Stream { io: theirs, cut });
        ours
    }

    /// Starts a program: its output, error and input as the program has them.
    async fn program(&self) -> (DuplexStream, DuplexStream, DuplexStream, JoinHandle<io::Result<()>>) {
        let (stdout, out) = duplex(1024);
        let (stderr, err) = duplex(1024);
        let (stdin, input) = duplex(1024);
        let read = self.hub.begin(Some(input), out, Some(err), |stderr| assert!(!stderr)).await;
        (stdout, stderr, stdin, read)
    }

    fn log(&self) -> Vec<(bool, String)> {
        let mut reader = LogReader::open(&self.dir.path().join("main.log"), LogStart::Oldest, None).unwrap();
        let next = || reader.next().unwrap();
        std::iter::from_fn(next)
            .map(|record| (record.stderr, String::from_utf8_lossy(&record.bytes).into_owned()))
            .collect()
    }
}

async fn all(mut stream: DuplexStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(HANG, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

async fn exactly(stream: &mut DuplexStream, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    tokio::time::timeout(HANG, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), expected);
}

#[tokio::test]
async fn everyone_there_from_the_start_gets_all_and_so_does_the_log() {
    let fixture = Fixture::new(MainStdin::None);
    let (one, two, err) = (fixture.client(false, 64), fixture.client(false, 64), fixture.client(true, 64));
    let (mut stdout, mut stderr, _stdin, read) = fixture.program().await;
    stdout.write_all(b"hello\nworld\n").await.unwrap();
    stderr.write_all(b"oops\n").await.unwrap();
    drop((stdout, stderr));
    tokio::time::timeout(HANG, read).await.unwrap().unwrap().unwrap();
    assert_eq!(all(one).await, "hello\nworld\n.");
    assert_eq!(all(two).await, "hello\nworld\n.");
    assert_eq!(all(err).await, "oops\n.");
    tokio::time::timeout(HANG, fixture.hub.delivered()).await.unwrap();
    let log = fixture.log();
    assert!(
        log.contains(&(false, "world".to_owned())) && log.contains(&(true, "oops".to_owned())),
        "{log:?}"
    );
}

#[tokio::test]
async fn one_who_comes_late_gets_what_comes_then() {
    let fixture = Fixture::new(MainStdin::None);
    let mut early = fixture.client(false, 64);
    let (mut stdout, _stderr, _stdin, _read) = fixture.program().await;
    stdout.write_all(b"before\n").await.unwrap();
    exactly(&mut early, "before\n").await;
    let late = fixture.client(false, 64);
    stdout.write_all(b"after\n").await.unwrap();
    drop(stdout);
    assert_eq!(all(late).await, "after\n.");
    assert_eq!(all(fixture.client(false, 64)).await, ".", "after the end it is at its end");
}

#[tokio::test]
async fn a_client_that_does_not_read_makes_the_program_wait_and_one_that_goes_lets_it_go_on() {
    let fixture = Fixture::new(MainStdin::None);
    fixture.hub.release();
    let slow = fixture.client(false, 1);
    let (mut stdout, _stderr, _stdin, _read) = fixture.program().await;
    let flood = tokio::spawn(async move {
        stdout.write_all(&vec![b'x'; 64 << 10]).await.unwrap();
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!flood.is_finished(), "nobody set its pace");
    drop(slow);
    tokio::time::timeout(HANG, flood).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_program_that_belongs_to_somebody_finds_a_closed_pipe_once_its_reader_is_gone() {
    let fixture = Fixture::new(MainStdin::None);
    let (reader, other) = (fixture.client(false, 64), fixture.client(true, 64));
    let (mut stdout, mut stderr, _stdin, _read) = fixture.program().await;
    drop(reader);
    let flood = tokio::spawn(async move { stdout.write_all(&vec![b'x'; 1 << 20]).await });
    let flooded = tokio::time::timeout(HANG, flood).await.unwrap().unwrap();
    assert_eq!(flooded.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    // The other stream has its reader still.
    stderr.write_all(b"oops\n").await.unwrap();
    drop(stderr);
    assert_eq!(all(other).await, "oops\n.");
}

#[tokio::test]
async fn once_the_program_has_ended_its_rest_is_read_and_a_slow_client_still_gets_it() {
    let fixture = Fixture::new(MainStdin::None);
    let slow = fixture.client(false, 1);
    let (mut stdout, stderr, _stdin, read) = fixture.program().await;
    let flood = tokio::spawn(async move { stdout.write_all(&vec![b'x'; 64 << 10]).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(stderr);
    fixture.hub.drain();
    tokio::time::timeout(HANG, flood).await.unwrap().unwrap();
    tokio::time::timeout(HANG, read).await.unwrap().unwrap().unwrap();
    assert!(fixture.hub.has_clients());
    fixture.hub.close().await;
    assert_eq!(all(slow).await.len(), (64 << 10) + 1);
    tokio::time::timeout(HANG, fixture.hub.delivered()).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_is_lost_is_no_end() {
    let fixture = Fixture::new(MainStdin::None);
    let client = fixture.client(false, 64);
    let (mut stdout, _stderr, _stdin, _read) = fixture.program().await;
    stdout.write_all(b"half").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    fixture.hub.close().await;
    assert_eq!(all(client).await, "half");
    assert_eq!(all(fixture.client(false, 64)).await, "");
    assert_eq!(fixture.log(), [(false, "half".to_owned())], "what came is in the log");
}

#[tokio::test]
async fn a_program_that_never_started_ends_nobodys_stream_well() {
    let fixture = Fixture::new(MainStdin::Once);
    let (output, mut input) = (fixture.client(false, 64), fixture.input(false));
    fixture.hub.close().await;
    assert_eq!(all(output).await, "");
    assert_eq!(tokio::time::timeout(HANG, input.read(&mut [0])).await.unwrap().unwrap(), 0);
    tokio::time::timeout(HANG, fixture.hub.delivered()).await.unwrap();
}

#[tokio::test]
async fn input_from_before_the_start_is_not_lost_and_its_end_is_the_inputs_once() {
    let fixture = Fixture::new(MainStdin::Once);
    let mut client = fixture.input(false);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let (_stdout, _stderr, stdin, _read) = fixture.program().await;
    assert_eq!(all(stdin).await, "question");
    let mut late = fixture.input(false);
    late.write_all(b"more").await.unwrap();
    assert_eq!(tokio::time::timeout(HANG, late.read(&mut [0])).await.unwrap().unwrap(), 0, "it is told");
}

#[tokio::test]
async fn an_open_input_outlives_its_clients_and_so_does_any_that_was_cut_off() {
    for (stdin, cut) in [(MainStdin::Open, false), (MainStdin::Once, true)] {
        let fixture = Fixture::new(stdin);
        let (_stdout, _stderr, mut input, _read) = fixture.program().await;
        let mut first = fixture.input(cut);
        first.write_all(b"one").await.unwrap();
        exactly(&mut input, "one").await;
        drop(first);
        let mut second = fixture.input(false);
        second.write_all(b"two").await.unwrap();
        exactly(&mut input, "two").await;
    }
}

#[tokio::test]
async fn a_program_without_input_takes_none() {
    let fixture = Fixture::new(MainStdin::None);
    let mut client = fixture.input(false);
    assert_eq!(tokio::time::timeout(HANG, client.read(&mut [0])).await.unwrap().unwrap(), 0);
    assert!(!fixture.hub.has_clients());
}

#[tokio::test]
async fn a_client_is_a_use_until_it_goes() {
    let activity = Activity::new();
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::new(LogWriter::new(&dir.path().join("main.log")), MainStdin::Open, activity.clone());
    let (ours, theirs) = duplex(64);
    hub.join_output(false, Stream { io: theirs, cut: true });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(activity.idle_for(), Duration::ZERO);
    drop(ours);
    tokio::time::timeout(HANG, hub.delivered()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(activity.idle_for() > Duration::ZERO);
}
