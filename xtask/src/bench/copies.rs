//! What is measured of pools, forks and snapshots.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::time::{Duration, Instant};

use cellule::{Pool, PoolOptions, Sandbox};

use super::sandbox::{Bench, fork_in};
use crate::Result;

/// How long clones stand idle before their memory is counted.
const SETTLE: Duration = Duration::from_secs(3);

/// What idle copies of one sandbox take together, in KiB.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Family {
    copies: usize,
    /// The proportional set size of all engines.
    engines_pss_kib: u64,
    /// The part of it that is guest memory.
    guests_pss_kib: u64,
    /// The guest memory that the parent has in use, as its kernel counts it.
    in_use_kib: u64,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| kib / 1024;
        let own = self.engines_pss_kib - self.guests_pss_kib;
        let Self { copies, .. } = self;
        write!(
            f,
            "memory of {copies} idle copies: {} MiB, of which {} MiB are guest memory and {} MiB the engines' own; one guest has {} MiB in use",
            mib(self.engines_pss_kib),
            mib(self.guests_pss_kib),
            mib(own),
            mib(self.in_use_kib),
        )
    }
}

impl Bench {
    /// From the wish for a sandbox of a pool with one ready to its first program's output; and a fork, exec and end as the
    /// same guest measures it.
    pub(crate) async fn acquire(&self, count: u32) -> Result<[Vec<Duration>; 2]> {
        let options = PoolOptions { min: 2, max: 4, ..PoolOptions::default() };
        let pool = Pool::start(self.host().sandbox("base"), options).await?;
        let (mut acquired, mut inside) = (Vec::new(), Vec::new());
        for _ in 0..count {
            // What takes the former one's place is not to be paid for here.
            let mut stats = pool.watch();
            stats.wait_for(|stats| stats.ready >= 2 && stats.preparing == 0 && stats.in_use == 0).await?;
            let begun = Instant::now();
            let sandbox = pool.acquire().await?;
            let output = sandbox.command("/bin/echo").arg("x").output().await?;
            acquired.push(begun.elapsed());
            if output.stdout != b"x\n" {
                return Err("a sandbox of a pool said something else".into());
            }
            inside.push(fork_in(&sandbox, 50).await?);
            pool.release(sandbox).await?;
        }
        pool.end().await;
        Ok([acquired, inside])
    }

    /// How long the programs of a sandbox that changed 10 MiB stand still for a fork, and how long all of that takes until
    /// the copy has answered.
    pub(crate) async fn fork(&self, count: u32) -> Result<[Vec<Duration>; 2]> {
        let mut parent = self.start().await?;
        fill(&parent, 10 << 20).await?;
        let (mut paused, mut whole) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let begun = Instant::now();
            let forked = parent.fork(1).await?;
            answer(&forked.sandboxes).await?;
            whole.push(begun.elapsed());
            paused.push(forked.paused);
            for sandbox in forked.sandboxes {
                sandbox.end().await?;
            }
        }
        parent.end().await?;
        Ok([paused, whole])
    }

    /// Many forks of one sandbox: what they take together, how long until all have answered, and how long one takes.
    pub(crate) async fn family(&self, copies: usize) -> Result<(Family, Duration, Vec<Duration>)> {
        let mut parent = self.start().await?;
        let mut one = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            let forked = parent.fork(1).await?;
            answer(&forked.sandboxes).await?;
            one.push(begun.elapsed());
            for sandbox in forked.sandboxes {
                sandbox.end().await?;
            }
        }
        let begun = Instant::now();
        let mut forked = parent.fork(copies).await?.sandboxes;
        answer(&forked).await?;
        let all = begun.elapsed();
        tokio::time::sleep(SETTLE).await;
        let mut family =
            Family { copies, engines_pss_kib: 0, guests_pss_kib: 0, in_use_kib: in_use(&parent).await? };
        for sandbox in &mut forked {
            let status = sandbox.ready().await?;
            let engine =
                status.processes.iter().find(|(role, _)| role == "engine").ok_or("there is no engine")?;
            let (all, guest) = pss(engine.1)?;
            family.engines_pss_kib += all;
            family.guests_pss_kib += guest;
        }
        for sandbox in forked {
            sandbox.end().await?;
        }
        parent.end().await?;
        Ok((family, all, one))
    }

    /// A snapshot of a sandbox that changed 200 MiB, and as many bytes written to the same disk and synced.
    pub(crate) async fn snapshot(&self, count: u32) -> Result<[Vec<Duration>; 2]> {
        const CHANGED: u64 = 200 << 20;
        let mut sandbox = self.start().await?;
        fill(&sandbox, CHANGED).await?;
        let (mut snapshots, mut writes) = (Vec::new(), Vec::new());
        let bytes = vec![7; 1 << 20];
        for _ in 0..count {
            let begun = Instant::now();
            let made = sandbox.snapshot(None, BTreeMap::new()).await?;
            snapshots.push(begun.elapsed());
            if made.outcome.copied_bytes < CHANGED {
                return Err("a snapshot has less than what was changed".into());
            }
            self.host().snapshots().remove(&made.name)?;
            let path = self.host().home().join("written");
            let begun = Instant::now();
            let mut file = File::create(&path)?;
            for _ in 0..made.outcome.copied_bytes >> 20 {
                file.write_all(&bytes)?;
            }
            file.sync_all()?;
            writes.push(begun.elapsed());
            fs::remove_file(&path)?;
        }
        sandbox.end().await?;
        Ok([snapshots, writes])
    }
}

/// Has a guest change so much of its memory.
async fn fill(sandbox: &Sandbox, bytes: u64) -> Result<()> {
    let script = format!("head -c {bytes} /dev/urandom > /filled");
    sandbox.command("sh").args(["-c", &script]).status().await?;
    Ok(())
}

/// Waits for an answer of each.
async fn answer(sandboxes: &[Sandbox]) -> Result<()> {
    for sandbox in sandboxes {
        if sandbox.command("/bin/echo").arg("x").output().await?.stdout != b"x\n" {
            return Err("a copy said something else".into());
        }
    }
    Ok(())
}

/// What a guest's kernel does not count as free, in KiB.
async fn in_use(sandbox: &Sandbox) -> Result<u64> {
    let info = sandbox.command("cat").arg("/proc/meminfo").output().await?.stdout;
    let info = String::from_utf8(info)?;
    let field = |name: &str| -> Result<u64> {
        let line = info.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    Ok(field("MemTotal:")? - field("MemFree:")?)
}

/// The proportional set size of a process and of the guest memory in it, in KiB: what it shares with `n` others counts as an
/// `n`th.
fn pss(pid: u32) -> Result<(u64, u64)> {
    let (mut all, mut guest, mut is_guest) = (0, 0, false);
    for line in fs::read_to_string(format!("/proc/{pid}/smaps"))?.lines() {
        if let Some(pss) = line.strip_prefix("Pss:") {
            let kib: u64 = pss.trim().trim_end_matches(" kB").parse()?;
            all += kib;
            guest += if is_guest { kib } else { 0 };
        } else if line.split(' ').next().is_some_and(|range| range.contains('-')) {
            is_guest = line.trim_end_matches(" (deleted)").ends_with("/memory");
        }
    }
    Ok((all, guest))
}
