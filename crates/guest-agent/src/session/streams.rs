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

/// The streams of one exec.
#[derive(Debug)]
pub(crate) struct Stdio {
    pub(crate) stdin: Option<MuxStream>,
    pub(crate) stdout: MuxStream,
    pub(crate) stderr: MuxStream,
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
            StreamKind::Calls | StreamKind::Supervisor => return,
        };
        let mut waiting = self.lock();
        waiting.retain(|_, (_, since)| since.elapsed() < MEET_WITHIN);
        if waiting.len() < MAX_STREAMS {
            waiting.entry((header.exec_id, slot)).or_insert((stream, Instant::now()));
        }
        drop(waiting);
        self.came.notify_waiters();
    }

    /// Waits for the streams of one exec.
    pub(crate) async fn take(&self, exec_id: u64, stdin: bool) -> Result<Stdio, Failure> {
        let meet = async {
            loop {
                let came = self.came.notified();
                if let Some(stdio) = self.try_take(exec_id, stdin) {
                    return stdio;
                }
                came.await;
            }
        };
        tokio::time::timeout(MEET_WITHIN, meet)
            .await
            .map_err(|_| Failure::no_streams("its input and output streams did not come"))
    }

    fn try_take(&self, exec_id: u64, stdin: bool) -> Option<Stdio> {
        let mut waiting = self.lock();
        let has = |slot| waiting.contains_key(&(exec_id, slot));
        if !has(Slot::Stdout) || !has(Slot::Stderr) || (stdin && !has(Slot::Stdin)) {
            return None;
        }
        let mut take = |slot| waiting.remove(&(exec_id, slot)).map(|(stream, _)| stream);
        Some(Stdio { stdin: take(Slot::Stdin), stdout: take(Slot::Stdout)?, stderr: take(Slot::Stderr)? })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(u64, Slot), (MuxStream, Instant)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
