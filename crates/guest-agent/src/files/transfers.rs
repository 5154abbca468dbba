//! Owns the meeting of a transfer's stream with its call, in whatever order they come.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cellule_protocol::mux::{MAX_STREAMS, MuxStream};
use tokio::sync::Notify;
use tonic::Code;

use super::failure::Failure;

/// How long a stream waits for its call, and a call for its stream. They are sent together.
const MEET_WITHIN: Duration = Duration::from_secs(10);

/// Streams whose call has not come.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    waiting: Mutex<HashMap<u64, (MuxStream, Instant)>>,
    came: Notify,
}

impl Transfers {
    /// Keeps a stream for its call. One too many, or a second of the same transfer, is dropped, that is reset.
    pub(crate) fn offer(&self, id: u64, stream: MuxStream) {
        let mut waiting = self.lock();
        waiting.retain(|_, (_, since)| since.elapsed() < MEET_WITHIN);
        if waiting.len() < MAX_STREAMS {
            waiting.entry(id).or_insert((stream, Instant::now()));
        }
        drop(waiting);
        self.came.notify_waiters();
    }

    /// Waits for the stream of one transfer.
    pub(super) async fn take(&self, id: u64) -> Result<MuxStream, Failure> {
        let meet = async {
            loop {
                let came = self.came.notified();
                let found = self.lock().remove(&id);
                if let Some((stream, _)) = found {
                    return stream;
                }
                came.await;
            }
        };
        tokio::time::timeout(MEET_WITHIN, meet)
            .await
            .map_err(|_| Failure::new(Code::FailedPrecondition, "the stream of the transfer did not come"))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (MuxStream, Instant)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
