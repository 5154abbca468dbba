//! Sandboxes whose machines run before they are asked for.
//!
//! ```text
//!   free ──admitted──▶ preparing ──▶ ready ──claimed──▶ in use ──ended──▶ free
//!                         │ failed     │ died, or nobody needs it
//!                         └────────────┴──▶ free
//! ```
//! A pool keeps as many ready as it is asked to, and one more each time that the last one was taken, up to its most. What is
//! in use counts; so a pool is a limit too. Nothing is used twice: what was a sandbox ends, and another machine takes its
//! place.

mod keeper;
mod ready;

use std::path::PathBuf;
use std::time::Duration;

use cellule_supervisor::{SandboxError, SandboxId, SandboxName};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::keeper::{Keeper, LONGEST};
use self::ready::Ready;
use crate::copy::with_id;
use crate::{Builder, Error, Prepared, Sandbox};

/// How a pool is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolOptions {
    /// How many are kept ready: at least one.
    pub min: usize,
    /// How many there are at most, those in use included.
    pub max: usize,
    /// After how long without anybody coming the pool keeps no more ready than its least.
    pub idle_timeout: Duration,
    /// How long to wait for one that is ready.
    pub acquire_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            min: 1,
            max: 16,
            idle_timeout: Duration::from_secs(300),
            acquire_timeout: Duration::from_secs(30),
        }
    }
}

/// What a pool does now.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolStats {
    /// Machines that are being started.
    pub preparing: usize,
    /// Machines that wait for somebody.
    pub ready: usize,
    /// Sandboxes that were machines of the pool, and run.
    pub in_use: usize,
    /// How many it wants to have ready.
    pub wanted: usize,
    /// How often one was taken.
    pub taken: u64,
    /// How often a machine could not be started.
    pub failed: u64,
    /// What one took of the host's memory when it was ready, in bytes; zero if that is not known yet.
    pub footprint: u64,
    /// Why no more are started now, or why the last one failed.
    pub note: Option<String>,
}

/// Machines that are ready, for sandboxes that begin at once.
///
/// Dropped, it ends those that wait; sandboxes that were acquired are their holders'.
#[derive(Debug)]
pub struct Pool {
    prepared: Prepared,
    options: PoolOptions,
    ready: Ready,
    stats: watch::Receiver<PoolStats>,
    keeping: JoinHandle<()>,
    over: watch::Sender<bool>,
}

impl Pool {
    /// Starts to keep machines as `builder` describes them; its main program and what else comes after a start count for
    /// [`acquire`](Self::acquire) alone.
    ///
    #[cfg_attr(not(cellule_guest), doc = "```no_run")]
    #[cfg_attr(cellule_guest, doc = "```")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cellule::Error> {
    /// use cellule::{Pool, PoolOptions, Sandbox};
    ///
    /// let pool = Pool::start(Sandbox::builder("base")?, PoolOptions::default()).await?;
    /// let sandbox = pool.acquire().await?;
    /// let output = sandbox.command("echo").arg("at once").output().await?;
    /// assert_eq!(output.stdout, b"at once\n");
    /// pool.release(sandbox).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As of [`Builder::prepare`].
    pub async fn start(builder: Builder, options: PoolOptions) -> Result<Self, Error> {
        Self::keep(builder.prepare().await?, options, Ready::here())
    }

    /// The same, with what is ready told in a directory, for other processes to [claim](claim).
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn start_in(prepared: Prepared, options: PoolOptions, dir: PathBuf) -> Result<Self, Error> {
        Self::keep(prepared, options, Ready::told_in(dir)?)
    }

    fn keep(prepared: Prepared, options: PoolOptions, ready: Ready) -> Result<Self, Error> {
        if options.min == 0 || options.min > options.max {
            let value = format!("{} of {}", options.min, options.max);
            let why = "at least one is kept ready, and no more than there are at most";
            return Err(Error::Option { option: "--min", value, why });
        }
        let (keeper, stats) = Keeper::new(&prepared, options.clone(), ready.clone())?;
        let over = watch::Sender::new(false);
        let keeping = tokio::spawn(keeper.keep(over.subscribe()));
        Ok(Self { prepared, options, ready, stats, keeping, over })
    }

    /// A sandbox of a machine that is ready, as soon as there is one; its main program is started, if it has one.
    ///
    /// # Errors
    /// None was ready in time.
    pub async fn acquire(&self) -> Result<Sandbox, Error> {
        let note = || self.stats.borrow().note.clone();
        claim(&self.prepared, &self.ready, None, self.options.acquire_timeout, note).await?.up().await
    }

    /// Ends a sandbox; another machine takes its place.
    ///
    /// # Errors
    /// Its directory cannot be removed.
    pub async fn release(&self, sandbox: Sandbox) -> Result<(), Error> {
        sandbox.end().await
    }

    /// Ends all machines that nobody has, and waits until they are gone.
    pub async fn end(mut self) {
        self.over.send_replace(true);
        // However it went, the pool is over.
        _ = (&mut self.keeping).await;
    }

    /// What it does now.
    pub fn stats(&self) -> PoolStats {
        self.stats.borrow().clone()
    }

    /// What it does, now and after each change.
    pub fn watch(&self) -> watch::Receiver<PoolStats> {
        self.stats.clone()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// A sandbox of a machine that is ready in another process's pool, told in this directory. It is launched:
/// [`Sandbox::ready`] waits for it.
///
/// # Errors
/// None was ready in time, or the pool's machines are others than what was prepared.
pub async fn claim_in(
    prepared: &Prepared,
    dir: PathBuf,
    name: Option<SandboxName>,
    within: Duration,
) -> Result<Sandbox, Error> {
    // Why there is none, the other process knows.
    claim(prepared, &Ready::at(dir), name, within, || None).await
}

/// `note` is what the pool says of itself where none was ready.
async fn claim(
    prepared: &Prepared,
    ready: &Ready,
    name: Option<SandboxName>,
    within: Duration,
    note: impl Fn() -> Option<String>,
) -> Result<Sandbox, Error> {
    let host = prepared.host().clone();
    let sandboxes = host.sandboxes()?;
    let until = Instant::now() + within.min(LONGEST);
    loop {
        let Ok(id) = tokio::time::timeout_at(until, ready.take()).await else {
            return Err(Error::PoolEmpty { within, note: note() });
        };
        let mut taken = Taken { ready, id: Some(id.clone()) };
        let spec = with_id(prepared.spec(), id);
        match cellule_supervisor::Sandbox::claim(&sandboxes, spec.clone(), name.clone()).await {
            Ok(link) => {
                taken.id = None;
                return Sandbox::of_link(host, spec, name, link, prepared.secrets().clone()).await;
            }
            // It died while it waited: the next one.
            Err(SandboxError::SupervisorGone { .. }) => taken.id = None,
            Err(error) => return Err(error.into()),
        }
    }
}

/// A machine that was taken and is not claimed yet. Given up, it is there for others: one that was claimed all the same, or
/// died, is no more than a place that nobody finds anything at.
struct Taken<'a> {
    ready: &'a Ready,
    id: Option<SandboxId>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            _ = self.ready.put(id);
        }
    }
}
