//! `cellule pool …`: machines that are ready before they are asked for.

mod keep;

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use cellule::{EngineChoice, PoolStats};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;

use crate::failure::Failure;
use crate::listing::{Listing, Row};
use crate::pool::{Place, PoolDir, PoolDocument, PoolName, from_anywhere};
use crate::quantity::{parse_duration, parse_size, show_size};
use crate::{completion, host, json, library_failure};

/// How long the first machine of a pool may take, its warm-up not counted.
const FIRST: Duration = Duration::from_secs(180);
/// How long a keeper may take to end.
const END: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

/// Manage pools: machines that are ready before they are asked for
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a pool and start to keep it
    Create(Box<Create>),
    /// Keep a pool again whose keeper was killed, or after the host was started anew
    Start {
        /// The pool
        #[arg(add = completion::pool())]
        pool: PoolName,
    },
    /// List pools
    Ls {
        #[command(flatten)]
        listing: Listing,
    },
    /// Tell what pools do, as JSON
    Stats {
        /// Their names
        #[arg(required = true, value_name = "POOL", add = completion::pool())]
        pools: Vec<PoolName>,
    },
    /// Remove pools; sandboxes that were taken from them are left alone
    Rm {
        /// Their names
        #[arg(required = true, value_name = "POOL", add = completion::pool())]
        pools: Vec<PoolName>,
    },
    #[command(hide = true)]
    Keep {
        /// The pool
        pool: PoolName,
    },
}

/// What a pool is made of.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The pool's name
    name: PoolName,
    /// The image
    #[arg(long, add = completion::image())]
    image: String,
    /// Virtual processors of each machine
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    cpus: u16,
    /// Memory of each machine
    #[arg(short, long, default_value = "512m", value_name = "SIZE", value_parser = parse_size)]
    memory: u64,
    /// Scratch disk of each machine, in place of memory for what is written into the root filesystem
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    disk: Option<u64>,
    /// What executes the machines: auto or qemu
    #[arg(long, default_value = "auto")]
    engine: EngineChoice,
    /// Run this in the template of the machines before it is saved
    #[arg(long, value_name = "COMMAND")]
    warmup: Vec<String>,
    /// Start this after those, and leave it running
    #[arg(long, value_name = "COMMAND")]
    warmup_detach: Vec<String>,
    /// Save the template only when somebody listens on this port in the guest
    #[arg(long, value_name = "PORT")]
    ready_port: Vec<u16>,
    /// Save the template only when this has ended with code 0; it is tried again until it does
    #[arg(long, value_name = "COMMAND")]
    ready_cmd: Vec<String>,
    /// How many machines are kept ready, at least one
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    min: usize,
    /// How many there are at most, those in use included
    #[arg(long, default_value_t = 16, value_name = "NUMBER")]
    max: usize,
    /// After this long without anybody coming, keep no more ready than the least
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = parse_duration)]
    idle_timeout: Duration,
    /// How long `run --pool` waits for a machine that is ready
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_duration)]
    acquire_timeout: Duration,
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Create(create) => make(*create)?,
        Command::Start { pool } => start(&pool)?,
        Command::Ls { listing } => list(listing)?,
        Command::Stats { pools } => stats(&pools)?,
        Command::Rm { pools } => pools.iter().try_for_each(remove)?,
        Command::Keep { pool } => keep::keep(&pool)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn make(create: Create) -> Result<(), Failure> {
    if create.min == 0 || create.min > create.max {
        return Err(Failure::new(format!("--min {} --max {}: that is no pool", create.min, create.max))
            .hint("at least one is kept ready, and no more than there are at most"));
    }
    let image = from_anywhere(&create.image)
        .map_err(|error| Failure::because(format!("cannot find {}", create.image), &error))?;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let document = PoolDocument {
        format: PoolDocument::FORMAT,
        image,
        cpus: create.cpus,
        memory: create.memory,
        disk: create.disk,
        engine: create.engine.to_string(),
        warmup: create.warmup,
        warmup_detach: create.warmup_detach,
        ready_port: create.ready_port,
        ready_cmd: create.ready_cmd,
        min: create.min,
        max: create.max,
        idle_timeout_ms: millis(create.idle_timeout),
        acquire_timeout_ms: millis(create.acquire_timeout),
    };
    let host = host::locate()?;
    // What is wrong with the image or the engine is told here, where somebody reads it.
    let watch = std::sync::Arc::new(crate::watch::Watch::new(false));
    let on_boot = std::sync::Arc::clone(&watch);
    let builder = document.builder(&host)?;
    let builder = builder.progress(move |progress| {
        if let cellule::Progress::Boot(progress) = progress {
            on_boot.boot(*progress);
        }
    });
    let prepared = super::runtime()?.block_on(builder.prepare());
    watch.clear();
    drop(prepared.map_err(|error| library_failure::of(&error))?);
    let pool = PoolDir::make(&host, &create.name, document)?;
    if let Err(failure) = launch(&pool) {
        _ = discard(&pool.place);
        return Err(failure);
    }
    crate::answer(&format!("{}\n", pool.place.name))
}

fn start(name: &PoolName) -> Result<(), Failure> {
    let pool = PoolDir::find(&host::locate()?, name)?;
    if !pool.place.is_kept() {
        launch(&pool)?;
    }
    crate::answer(&format!("{name}\n"))
}

/// Starts a keeper, and waits until its first machine is ready, if it is to have any.
fn launch(pool: &PoolDir) -> Result<(), Failure> {
    let place = &pool.place;
    let failed = |error| Failure::because(format!("cannot keep the pool {}", place.name), &error);
    let log = File::create(place.log()).map_err(failed)?;
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0("cellule").args(["pool", "keep", &place.name]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/");
    place.forget();
    let mut keeper = command.spawn().map_err(failed)?;
    let begun = Instant::now();
    let within = FIRST + pool.document().warm_up_limit();
    loop {
        if let Some(PoolStats { ready, in_use, note, failed, .. }) = place.state().map(|state| state.stats) {
            if ready + in_use >= 1 {
                return Ok(());
            }
            if failed > 0 || (note.is_some() && begun.elapsed() > FIRST / 6) {
                let mut failure = Failure::new(format!("the pool {} has no machine", place.name));
                if let Some(note) = note {
                    failure.cause(note);
                }
                return Err(failure);
            }
        }
        let ended = keeper.try_wait().map_err(failed)?.is_some();
        // Somebody else may have been faster.
        if (ended && !place.is_kept()) || begun.elapsed() > within {
            let said = fs::read_to_string(place.log()).unwrap_or_default();
            let failure = Failure::new(format!("the keeper of the pool {} does not work", place.name));
            return Err(failure.detail("it said", &said));
        }
        std::thread::sleep(LOOK);
    }
}

fn list(listing: Listing) -> Result<(), Failure> {
    let rows: Vec<Shown> = PoolDir::all(&host::locate()?).iter().map(Shown::of).collect();
    crate::answer(&listing.render(&rows, true)?)
}

fn stats(names: &[PoolName]) -> Result<(), Failure> {
    let host = host::locate()?;
    let shown = names.iter().map(|name| Ok(Shown::of(&PoolDir::find(&host, name)?)));
    crate::answer(&json::pretty(&shown.collect::<Result<Vec<_>, Failure>>()?)?)
}

fn remove(name: &PoolName) -> Result<(), Failure> {
    discard(&Place::find(&host::locate()?, name)?)?;
    crate::answer(&format!("{name}\n"))
}

/// Ends the keeper and all machines that are nobody's, and removes the directory.
fn discard(pool: &Place) -> Result<(), Failure> {
    let failed = |error| Failure::because(format!("cannot remove the pool {}", pool.name), &error);
    let begun = Instant::now();
    let lock = loop {
        if let Some(lock) = pool.try_lock().map_err(failed)? {
            break lock;
        }
        if begun.elapsed() > END {
            return Err(Failure::new(format!("the keeper of the pool {} does not end", pool.name)));
        }
        // Its number is its own for as long as it has the lock, which it had when the number was written.
        let keeper = pool.state().and_then(|state| Pid::from_raw(state.keeper_pid.cast_signed()));
        if let Some(keeper) = keeper.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            && pool.is_kept()
        {
            _ = pidfd_send_signal(keeper, Signal::TERM);
        }
        std::thread::sleep(LOOK);
    };
    fs::remove_dir_all(&pool.path).map_err(failed)?;
    drop(lock);
    Ok(())
}

/// A pool as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    /// kept, or stopped.
    state: &'static str,
    #[serde(flatten)]
    document: PoolDocument,
    #[serde(flatten)]
    stats: PoolStats,
}

impl Shown {
    fn of(pool: &PoolDir) -> Self {
        let kept = pool.place.is_kept();
        Self {
            name: pool.place.name.clone(),
            state: if kept { "kept" } else { "stopped" },
            document: pool.document().clone(),
            stats: pool.place.state().filter(|_| kept).map(|state| state.stats).unwrap_or_default(),
        }
    }
}

impl Row<8> for Shown {
    const HEADER: [&'static str; 8] =
        ["POOL", "IMAGE", "MIN", "MAX", "READY", "IN USE", "EACH TAKES", "STATE"];

    fn id(&self) -> String {
        self.name.clone()
    }

    fn lines(&self, _full: bool) -> Vec<[String; 8]> {
        let state = match &self.stats.note {
            Some(note) => format!("{}: {note}", self.state),
            None => self.state.to_owned(),
        };
        vec![[
            self.name.clone(),
            self.document.image.clone(),
            self.document.min.to_string(),
            self.document.max.to_string(),
            self.stats.ready.to_string(),
            self.stats.in_use.to_string(),
            if self.stats.footprint == 0 { "?".to_owned() } else { show_size(self.stats.footprint) },
            state,
        ]]
    }
}
