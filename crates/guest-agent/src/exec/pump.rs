//! Owns the moving of bytes: from pipes to rings, from rings to streams, from streams to pipes.
//!
//! Nothing is queued but in rings: whoever reads slower than the other writes makes it wait, or loses, as the ring's
//! policy says.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use cellule_protocol::mux::{MuxStream, WRITE_SIZE};
use cellule_protocol::v1::exec_event::Event;
use cellule_protocol::v1::{Dropped, ExecEvent};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::channel::Channel;
use super::ring::{Reader, Ring, Step};

/// Fills one frame.
const BUFFER: usize = WRITE_SIZE;

/// Whether the program has ended, and what is to be added to its output then.
pub(super) type End = watch::Receiver<Option<Arc<[u8]>>>;

/// Moves what the program writes into its ring, until the last writer closed the pipe; or, once the program has ended,
/// until what lay in the pipe then is moved. Where messages go, the last words follow.
pub(super) async fn output(source: Arc<Channel>, ring: Arc<Ring>, mut end: End, takes_messages: bool) {
    loop {
        let filled = tokio::select! {
            // Survivors that never stop writing do not keep it from its end.
            biased;
            last_words = last_words(&mut end) => {
                rest(&source, &ring).await;
                if takes_messages {
                    ring.append(&last_words).await;
                }
                break;
            }
            filled = poll_fn(|cx| ring.poll_fill(cx, &source)) => filled,
        };
        if !filled.is_ok_and(|count| count > 0) {
            break;
        }
        if ring.races() {
            // Readers get their turn before the next bytes push out what they have not taken.
            tokio::task::yield_now().await;
        }
    }
    ring.close();
}

async fn last_words(end: &mut End) -> Arc<[u8]> {
    match end.wait_for(Option::is_some).await {
        Ok(words) => words.clone().unwrap_or_default(),
        // Whoever watched over the program is gone, and the program with it.
        Err(_) => Arc::default(),
    }
}

/// Moves what lies in the pipe now.
async fn rest(source: &Channel, ring: &Ring) {
    let mut left = source.holds().unwrap_or(0);
    while left > 0 {
        match poll_fn(|cx| ring.poll_fill_now(cx, source)).await {
            Ok(Some(count)) if count > 0 => left = left.saturating_sub(count),
            Ok(_) | Err(_) => return,
        }
    }
}

/// Moves what is in a ring to the host, until the end of either. What was missed is told to `events`, if they still are
/// of interest. Returns whether the host took all of it.
pub(super) async fn forward(
    reader: Arc<Reader>,
    mut stream: MuxStream,
    events: mpsc::WeakSender<Result<ExecEvent, Status>>,
    stderr: bool,
) -> bool {
    let all = loop {
        let step = poll_fn(|cx| {
            // Without this, the host's leaving would only show at the next byte, which may never come.
            if is_cut(&mut stream, cx) {
                return Poll::Ready(Step::Gone);
            }
            reader.poll_step(cx, Pin::new(&mut stream))
        });
        match step.await {
            Step::Sent => {}
            Step::Gap(gap) => {
                if let Some(events) = events.upgrade() {
                    let dropped = Dropped { stderr, offset: gap.offset, bytes: gap.bytes };
                    let event = ExecEvent { event: Some(Event::Dropped(dropped)) };
                    let _nobody_asks = events.send(Ok(event)).await;
                }
            }
            Step::End => break true,
            Step::Gone => break false,
        }
    };
    reader.leave();
    if all {
        let _session_over = stream.shutdown().await;
    }
    all
}

/// Whether the host has cut the stream, on which it has nothing to say.
fn is_cut(stream: &mut MuxStream, cx: &mut Context<'_>) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
        Poll::Pending => false,
        // A host may have closed its own half, and still read.
        Poll::Ready(Ok(())) if buffer.filled().is_empty() => stream.is_reset(),
        Poll::Ready(Ok(()) | Err(_)) => true,
    }
}

/// A program's standard input, for as long as anybody may write to it.
#[derive(Debug)]
pub(super) struct Input {
    channel: Mutex<Option<Arc<Channel>>>,
    closed: watch::Sender<bool>,
}

impl Input {
    pub(super) fn new(channel: Arc<Channel>) -> Self {
        Self { channel: Mutex::new(Some(channel)), closed: watch::Sender::new(false) }
    }

    /// Ends it for all: those who are writing stop.
    pub(super) fn close(&self) {
        drop(self.channel.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.closed.send_replace(true);
    }

    /// Moves what the host writes to the program, until either is done or the input is closed. Returns whether the host
    /// said that this was all, rather than vanish or find nobody reading.
    pub(super) async fn feed(&self, mut stream: MuxStream) -> bool {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut closed = self.closed.subscribe();
        let Some(channel) = channel else { return false };
        let moving = async {
            let mut buffer = vec![0; BUFFER];
            loop {
                let count = stream.read(&mut buffer).await?;
                if count == 0 {
                    return Ok::<_, io::Error>(!stream.is_reset());
                }
                channel.write_all(&buffer[..count]).await?;
            }
        };
        tokio::select! {
            // A program that closed its input, or a session that ended: either way the stream is dropped.
            done = moving => done.unwrap_or(false),
            _closed = closed.wait_for(|closed| *closed) => false,
        }
    }
}
