//! Kills what belongs to sandboxes at random moments, and looks whether the next command tells the truth and whether
//! anything is left behind.
//!
//! ```text
//!   a round:  start a sandbox (attached, detached, created first …) ── do something with it ──▶ kill at a random moment
//!             ──▶ `ps` must answer within a second, and tell what /proc shows ──▶ `rm --force`
//!             ──▶ no process, directory, name, socket or control group may be left
//! ```
//! Rounds are drawn from a seed, which is printed: the same seed draws the same rounds, not the same moments.

mod leftovers;
mod random;
mod round;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::leftovers::leftovers;
use self::random::Random;
use self::round::Round;
use crate::Result;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many rounds
    #[arg(long, default_value_t = 300)]
    rounds: u32,
    /// How many at a time
    #[arg(long, default_value_t = 2)]
    parallel: u32,
    /// What the rounds are drawn from; by default the clock
    #[arg(long)]
    seed: Option<u64>,
    /// A state directory that is set up, whose boot bundle is used; by default one is made
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = crate::program()?;
    let own = tempfile::Builder::new().prefix("cellule-chaos-").tempdir()?;
    let home = own.path().to_path_buf();
    if let Some(shared) = &arguments.home {
        for part in ["bundles", "kernels", "bases"] {
            std::os::unix::fs::symlink(fs::canonicalize(shared)?.join(part), home.join(part))?;
        }
    }
    let prepared = Command::new(&program).arg("setup").arg("--quiet").env("CELLULE_HOME", &home).status()?;
    if !prepared.success() {
        return Err("cellule setup failed".into());
    }
    let seed = arguments.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now.as_secs() | 1
    });
    println!("chaos: {} rounds, {} at a time, seed {seed}", arguments.rounds, arguments.parallel);
    let begun = Instant::now();
    let next = AtomicU32::new(0);
    let failures = Mutex::new(Vec::new());
    let slowest = Mutex::new(Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..arguments.parallel {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= arguments.rounds {
                        return;
                    }
                    let mut random =
                        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (u64::from(number) + 1));
                    random.next();
                    let round = Round::draw(number, &mut random, &program, &home);
                    match round.play() {
                        Ok(truth) => {
                            if let Ok(mut slowest) = slowest.lock() {
                                *slowest = truth.max(*slowest);
                            }
                        }
                        Err(why) => {
                            println!("round {number} ({round:?}): {why}");
                            if let Ok(mut failures) = failures.lock() {
                                failures.push(number);
                            }
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner()?;
    let left = leftovers(&program, &home);
    println!(
        "chaos: {} rounds in {:.0} s: {} failed; the slowest `ps` took {} ms",
        arguments.rounds,
        begun.elapsed().as_secs_f64(),
        failures.len(),
        slowest.into_inner()?.as_millis()
    );
    if !left.is_empty() {
        return Err(format!("left behind: {left:?}").into());
    }
    if failures.is_empty() { Ok(()) } else { Err(format!("rounds {failures:?} failed").into()) }
}

fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}
