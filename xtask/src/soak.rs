//! Boots many cold guests, several at a time, and counts the failures.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::bench::Percentiles;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many guests
    #[arg(long, default_value_t = 200)]
    boots: u32,
    /// How many at a time
    #[arg(long, default_value_t = 4)]
    parallel: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = crate::program()?;
    let home = tempfile::Builder::new().prefix("cellule-soak-").tempdir()?;
    let prepared = Command::new(&program).arg("setup").env("CELLULE_HOME", home.path()).status()?;
    if !prepared.success() {
        return Err("cellule setup failed".into());
    }
    let next = AtomicU32::new(0);
    let times = Mutex::new(Vec::new());
    let failures = Mutex::new(Vec::new());
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..arguments.parallel {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < arguments.boots {
                    match boot(&program, home.path()) {
                        Ok(took) => push(&times, took),
                        Err(why) => push(&failures, why),
                    }
                }
            });
        }
    });
    let (times, failures) = (times.into_inner()?, failures.into_inner()?);
    for why in &failures {
        println!("failed: {why}");
    }
    println!(
        "{} cold boots, {} at a time, in {:.0} s: {} failed; {}",
        arguments.boots,
        arguments.parallel,
        begun.elapsed().as_secs_f64(),
        failures.len(),
        Percentiles::of(&times).in_ms()
    );
    let left = std::fs::read_dir(home.path().join("sandboxes"))?.count();
    if left > 0 {
        return Err(format!("{left} sandboxes were left behind").into());
    }
    if failures.is_empty() { Ok(()) } else { Err(format!("{} boots failed", failures.len()).into()) }
}

fn push<T>(list: &Mutex<Vec<T>>, item: T) {
    if let Ok(mut list) = list.lock() {
        list.push(item);
    }
}

/// One guest: it must print what it is told, and nothing else.
fn boot(program: &std::path::Path, home: &std::path::Path) -> std::result::Result<Duration, String> {
    let begun = Instant::now();
    let output = Command::new(program)
        .args(["run", "--quiet", "--cold", "base", "echo", "alive"])
        .env("CELLULE_HOME", home)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() && output.stdout == b"alive\n" {
        return Ok(begun.elapsed());
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
