//! Owns the meeting of an exec's streams with its call, in whatever order they come.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cellule_protocol::mux::{MAX_STREAMS, MuxStream};
use cellule_protocol::stream::{StreamHeader, StreamKind};
use tokio::sync::Notify;

use crate::exec::Failure;

/// How long a stream waits for its call, and a call for its streams. They are sent together.
const MEET_WITHIN: Duration = Duration::from_secs(10);

/// Streams whose call has not come.
#[derive(Debug, Default)]
pub(crate) struct ExecStreams {
    waiting: Mutex<HashMap<(u64, Slot), (MuxStream, Instant)>>,
    came: Notify,
}

/// The streams of one exec, or of one attachment to it.
#[derive(Debug)]
pub(crate) struct Stdio {
    pub(crate) stdin: Option<MuxStream>,
    pub(crate) stdout: Option<MuxStream>,
    pub(crate) stderr: Option<MuxStream>,
}

/// Which of them come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Slot {
    Stdin,
    Stdout,
    Stderr,
}

impl ExecStreams {
    /// Keeps a stream for its call. One too many, or a second for the same purpose, is dropped, that is reset.
    pub(super) fn offer(&self, header: StreamHeader, stream: MuxStream) {
        let slot = match header.kind {
            StreamKind::Stdin => Slot::Stdin,
            StreamKind::Stdout => Slot::Stdout,
            StreamKind::Stderr => Slot::Stderr,
            StreamKind::Calls | StreamKind::Data | StreamKind::Port | StreamKind::Supervisor => return,
        };
        let mut waiting = self.lock();
        waiting.retain(|_, (_, since)| since.elapsed() < MEET_WITHIN);
        if waiting.len() < MAX_STREAMS {
            waiting.entry((header.id, slot)).or_insert((stream, Instant::now()));
        }
        drop(waiting);
        self.came.notify_waiters();
    }

    /// Waits for the streams that name `id`.
    pub(crate) async fn take(&self, id: u64, wanted: Wanted) -> Result<Stdio, Failure> {
        let meet = async {
            loop {
                let came = self.came.notified();
                if let Some(stdio) = self.try_take(id, wanted) {
                    return stdio;
                }
                came.await;
            }
        };
        tokio::time::timeout(MEET_WITHIN, meet)
            .await
            .map_err(|_| Failure::no_streams("its input and output streams did not come"))
    }

    fn try_take(&self, id: u64, wanted: Wanted) -> Option<Stdio> {
        let mut waiting = self.lock();
        let slots =
            [(wanted.stdin, Slot::Stdin), (wanted.stdout, Slot::Stdout), (wanted.stderr, Slot::Stderr)];
        if slots.iter().any(|(wanted, slot)| *wanted && !waiting.contains_key(&(id, *slot))) {
            return None;
        }
        let [stdin, stdout, stderr] = slots.map(|(wanted, slot)| {
            let taken = waiting.remove(&(id, slot)).map(|(stream, _)| stream);
            taken.filter(|_| wanted)
        });
        Some(Stdio { stdin, stdout, stderr })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(u64, Slot), (MuxStream, Instant)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
