//! Owns what the host can learn of the guest as a whole: what it uses, who runs in it, what differs from its image.

pub(crate) mod diff;
pub(crate) mod processes;
pub(crate) mod stats;

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tonic::Status;

/// How long an answer may keep its caller waiting.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Runs what may be kept waiting by what programs did, as a page of theirs that never comes, on a thread of its own.
/// `place` is the thread's until it is done, however long that takes.
pub(crate) async fn apart<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let (sender, answer) = oneshot::channel();
    on_a_thread(place, name, move || drop(sender.send(work())))?;
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Status::aborted("the thread for it ended without an answer")),
        Err(_) => Err(Status::deadline_exceeded("the kernel does not let it be known")),
    }
}

/// Starts a thread that holds `place` until it is done.
fn on_a_thread(
    place: OwnedSemaphorePermit,
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<(), Status> {
    let work = move || {
        work();
        drop(place);
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(|error| Status::resource_exhausted(format!("no thread for it: {error}")))
}
