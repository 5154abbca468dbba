//! Owns the threads that touch disks, so that the agent's one thread never waits for one.
//!
//! Work comes in two sizes. A *step* is bounded: a piece of a file, a look at a name, a batch of a directory. A *job* takes
//! as long as a tree is large, and asks between its pieces whether anybody still waits. Each has threads of its own, so
//! that removing four trees does not keep a fifth caller from a look at a file. A transfer whose peer does not read holds
//! buffers, and no thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tonic::Code;

use super::failure::Failure;

/// Threads for steps: enough to keep a disk busy.
const STEPS: usize = 8;
/// Threads for jobs.
const JOBS: usize = 4;

/// The threads' bounds; the threads themselves come and go.
#[derive(Debug)]
pub(crate) struct Workers {
    steps: Arc<Semaphore>,
    jobs: Arc<Semaphore>,
}

impl Default for Workers {
    fn default() -> Self {
        Self { steps: Arc::new(Semaphore::new(STEPS)), jobs: Arc::new(Semaphore::new(JOBS)) }
    }
}

/// Whether a job's caller has gone.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Fails once the caller has gone.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Relaxed) { Err(Failure::cancelled()) } else { Ok(()) }
    }
}

struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

impl Workers {
    /// Runs what takes a bounded time. Given up, it runs to its end all the same.
    pub(super) async fn step<T, W>(&self, work: W) -> Result<T, Failure>
    where
        T: Send + 'static,
        W: FnOnce() -> Result<T, Failure> + Send + 'static,
    {
        run(&self.steps, work).await
    }

    /// Runs what may take long. Given up, it ends at its next look at its [`Stop`].
    pub(super) async fn job<T, W>(&self, work: W) -> Result<T, Failure>
    where
        T: Send + 'static,
        W: FnOnce(&Stop) -> Result<T, Failure> + Send + 'static,
    {
        let stop = StopOnDrop(Stop::default());
        let theirs = stop.0.clone();
        run(&self.jobs, move || work(&theirs)).await
    }
}

async fn run<T, W>(places: &Arc<Semaphore>, work: W) -> Result<T, Failure>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T, Failure> + Send + 'static,
{
    let place = Arc::clone(places).acquire_owned().await.map_err(|_| Failure::cancelled())?;
    let ran = spawn_blocking(move || {
        let result = work();
        drop(place);
        result
    });
    // It panicked, and the console has the words of that; or the runtime is at its end.
    ran.await.unwrap_or_else(|_| Err(Failure::new(Code::Aborted, "the agent's work on files broke off")))
}

/// Something whose end may touch a disk, as that of a temporary file: dropped on another thread.
#[derive(Debug)]
pub(super) struct Aside<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Aside<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Takes it out, if it still is in.
    pub(super) fn take(&mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T: Send + 'static> Drop for Aside<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            drop(runtime.spawn_blocking(move || drop(value)));
        }
    }
}
