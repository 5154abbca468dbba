//! What is measured of Cellule itself, through its command and through its library.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cellule::{Exit, Host, ReadRange, Sandbox, WriteOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::floor::EngineCommandLine;
use crate::Result;

/// The memory of every guest that is measured, bare or not.
const MEMORY: u64 = 512 << 20;
/// How many bytes of a transfer are given at a time.
const CHUNK: usize = 128 << 10;
/// Starts the program as often as it is told, and prints the guest's clock before and after.
const LOOP: &str = "read a b </proc/uptime; i=0; while [ $i -lt $0 ]; do /bin/true; i=$((i+1)); done; \
                    read c d </proc/uptime; echo $a $c";

/// A state directory that is set up, and the program.
#[derive(Debug)]
pub(crate) struct Bench {
    home: PathBuf,
    program: PathBuf,
    host: Host,
}

/// What an idle sandbox takes of the host.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Idle {
    /// Resident memory of each process, in KiB.
    pub(crate) resident_kib: Vec<(String, u64)>,
    /// The names of the supervisor's threads.
    pub(crate) supervisor_threads: Vec<String>,
    /// Of one core, in percent, all processes together.
    pub(crate) cpu_percent: f64,
}

/// The time of one fork, exec and end of a program as the guest measures it.
pub(crate) async fn fork_in(sandbox: &Sandbox, rounds: u32) -> Result<Duration> {
    let measured = sandbox.command("sh").args(["-c", LOOP, &rounds.to_string()]).output().await?;
    let clock = String::from_utf8(measured.stdout)?;
    let mut clock = clock.split_whitespace().map(str::parse::<f64>);
    let (from, to) = (clock.next().ok_or("no clock")??, clock.next().ok_or("no clock")??);
    Ok(Duration::from_secs_f64((to - from) / f64::from(rounds)))
}

impl Bench {
    pub(crate) async fn prepare(home: &Path, program: &Path) -> Result<Self> {
        let host = Host::at(home)?.with_program(program);
        host.sandbox("base").prepare().await?;
        Ok(Self { home: home.to_path_buf(), program: program.to_path_buf(), host })
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) async fn start(&self) -> Result<Sandbox> {
        Ok(self.host.sandbox("base").memory(MEMORY)?.start().await?)
    }

    /// How our engine starts QEMU.
    pub(crate) async fn engine_command_line(&self) -> Result<EngineCommandLine> {
        let mut sandbox = self.host.sandbox("base").cold(true).memory(MEMORY)?.start().await?;
        let status = sandbox.ready().await?;
        let engine =
            status.processes.iter().find(|(role, _)| role == "engine").ok_or("there is no engine")?;
        let line = fs::read_to_string(format!("/proc/{}/cmdline", engine.1))?;
        let arguments: Vec<String> = line.split('\0').map(str::to_owned).collect();
        let (kernel, initramfs) = (sandbox.spec().kernel.clone(), sandbox.spec().initramfs.clone());
        sandbox.end().await?;
        EngineCommandLine::of(&arguments, &kernel, &initramfs)
    }

    /// From the supervisor's start to an agent that answers.
    pub(crate) async fn boot(&self) -> Result<Duration> {
        let prepared = self.host.sandbox("base").cold(true).memory(MEMORY)?.prepare().await?;
        let begun = Instant::now();
        let mut sandbox = prepared.launch().await?;
        sandbox.ready().await?;
        let took = begun.elapsed();
        sandbox.end().await?;
        Ok(took)
    }

    fn run(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["run", "--quiet"]).args(words).env("CELLULE_HOME", &self.home);
        command
    }

    /// From the library's start of a sandbox, its machine restored, to the first output of a program in it.
    pub(crate) async fn warm_to_output(&self) -> Result<Duration> {
        let prepared = self.host.sandbox("base").memory(MEMORY)?.prepare().await?;
        let begun = Instant::now();
        let mut sandbox = prepared.launch().await?;
        sandbox.ready().await?;
        let output = sandbox.command("/bin/echo").arg("x").output().await?;
        let took = begun.elapsed();
        if output.stdout != b"x\n" {
            return Err("a warm sandbox said something else".into());
        }
        sandbox.end().await?;
        Ok(took)
    }

    /// `cellule run base true`, from the start of its process to the end.
    pub(crate) fn whole_run(&self, cold: bool) -> Result<Duration> {
        let words: &[&str] = if cold { &["--cold", "base", "true"] } else { &["base", "true"] };
        let begun = Instant::now();
        let status = self.run(words).stdin(Stdio::null()).status()?;
        let took = begun.elapsed();
        if status.success() { Ok(took) } else { Err("`cellule run base true` failed".into()) }
    }

    /// From the start of `cellule run` to the first byte that its program writes, its machine booted.
    pub(crate) fn first_output(&self) -> Result<Duration> {
        let begun = Instant::now();
        let mut child =
            self.run(&["--cold", "base", "echo", "x"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut byte = [0];
        child.stdout.take().ok_or("no output")?.read_exact(&mut byte)?;
        let took = begun.elapsed();
        child.wait()?;
        Ok(took)
    }

    /// Times of execs in one sandbox, without and with their output, and the time of one fork, exec and end of the same
    /// program as the same guest measures it, in turns.
    pub(crate) async fn execs(&self, count: u32) -> Result<[Vec<Duration>; 3]> {
        const TURN: u32 = 10;
        let sandbox = self.start().await?;
        let (mut times, mut with_output, mut inside) = (Vec::new(), Vec::new(), Vec::new());
        // The first finds nothing in the guest's caches.
        sandbox.command("/bin/true").status().await?;
        while times.len() < usize::try_from(count)? {
            for _ in 0..TURN {
                let begun = Instant::now();
                sandbox.command("/bin/true").status().await?;
                times.push(begun.elapsed());
                let begun = Instant::now();
                sandbox.command("/bin/true").output().await?;
                with_output.push(begun.elapsed());
            }
            inside.push(fork_in(&sandbox, TURN * 10).await?);
        }
        sandbox.end().await?;
        Ok([times, with_output, inside])
    }

    /// How long so many execs take that all run at once; each must print its own number.
    pub(crate) async fn at_once(&self, count: u32) -> Result<Duration> {
        let sandbox = self.start().await?;
        let begun = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for number in 0..count {
            let mut command = sandbox.command("sh");
            command.args(["-c", "sleep 1; echo $0", &number.to_string()]);
            all.spawn(async move { (number, command.output().await) });
        }
        while let Some(done) = all.join_next().await {
            let (number, output) = done?;
            let output = output?;
            if output.status.exit != Exit::Code(0) || output.stdout != format!("{number}\n").as_bytes() {
                return Err(format!("exec {number} came out wrong: {output:?}").into());
            }
        }
        let took = begun.elapsed();
        sandbox.end().await?;
        Ok(took)
    }

    /// MB/s of one file into a sandbox and out of it again.
    pub(crate) async fn file(&self, megabytes: u64) -> Result<(f64, f64)> {
        let total = megabytes * 1_000_000;
        // Half of a guest's memory takes files.
        let sandbox = self.host.sandbox("base").memory(MEMORY + total * 5 / 2)?.start().await?;
        let files = sandbox.files();
        let chunk = vec![7; CHUNK];
        let begun = Instant::now();
        let mut file = files.write("/big", WriteOptions::default()).await?;
        let mut left = total;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            file.write_all(&chunk[..part]).await?;
            left -= part as u64;
        }
        file.finish().await?;
        let into = begun.elapsed();
        let begun = Instant::now();
        let mut file = files.read("/big", ReadRange::default()).await?;
        let (mut chunk, mut read) = (vec![0; CHUNK], 0);
        loop {
            let count = file.read(&mut chunk).await?;
            if count == 0 {
                break;
            }
            read += count as u64;
        }
        let out = begun.elapsed();
        if read != total {
            return Err(format!("{read} bytes came back of {total}").into());
        }
        sandbox.end().await?;
        let rate =
            |took: Duration| f64::from(u32::try_from(megabytes).unwrap_or(u32::MAX)) / took.as_secs_f64();
        Ok((rate(into), rate(out)))
    }

    /// What a sandbox takes that does nothing, over this time.
    pub(crate) async fn idle(&self, over: Duration) -> Result<Idle> {
        let mut sandbox = self.start().await?;
        let status = sandbox.ready().await?;
        // What the boot left to do is not idling.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = sandbox.stats().await?.host_cpu_us;
        tokio::time::sleep(over).await;
        // Asking costs something itself: it is counted, and little.
        let used = sandbox.stats().await?.host_cpu_us - before;
        let mut idle = Idle {
            resident_kib: Vec::new(),
            supervisor_threads: Vec::new(),
            cpu_percent: 100.0 * Duration::from_micros(used).as_secs_f64() / over.as_secs_f64(),
        };
        for (role, pid) in &status.processes {
            idle.resident_kib.push((role.clone(), resident_kib(*pid)?));
            if role == "supervisor" {
                for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
                    idle.supervisor_threads
                        .push(fs::read_to_string(thread.path().join("comm"))?.trim().to_owned());
                }
            }
        }
        sandbox.end().await?;
        Ok(idle)
    }

    /// MB/s through standard input, `cat`, and standard output of `cellule run`, from the first byte on.
    pub(crate) fn throughput(&self, megabytes: u64) -> Result<f64> {
        let mut child =
            self.run(&["-i", "base", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().ok_or("no input")?;
        let mut output = child.stdout.take().ok_or("no output")?;
        // One byte there and back: the guest has booted and `cat` runs.
        input.write_all(b"x")?;
        let mut chunk = vec![0; CHUNK];
        output.read_exact(&mut chunk[..1])?;
        let total = megabytes * 1_000_000;
        let begun = Instant::now();
        let writer = super::pour(input, total);
        let mut left = total;
        while left > 0 {
            let read = output.read(&mut chunk)?;
            if read == 0 {
                return Err("the sandbox hung up".into());
            }
            left -= read as u64;
        }
        let rate = f64::from(u32::try_from(megabytes)?) / begun.elapsed().as_secs_f64();
        writer.join().map_err(|_| "the writer failed")?;
        child.wait()?;
        Ok(rate)
    }

    /// MB/s of a tar that becomes an image, thrice.
    pub(crate) fn import(&self, tar: &Path) -> Result<Vec<f64>> {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than seven digits")]
        let megabytes = fs::metadata(tar)?.len() as f64 / 1e6;
        let mut rates = Vec::new();
        for round in 0..3 {
            let home = self.home.join(format!("import-{round}"));
            let begun = Instant::now();
            let imported = Command::new(&self.program)
                .args(["image", "import"])
                .arg(tar)
                .env("CELLULE_HOME", &home)
                .stdout(Stdio::null())
                .status()?;
            if !imported.success() {
                return Err("the import failed".into());
            }
            rates.push(megabytes / begun.elapsed().as_secs_f64());
            fs::remove_dir_all(&home)?;
        }
        Ok(rates)
    }
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("a process without memory")?;
    Ok(line.split_whitespace().nth(1).ok_or("no figure")?.parse()?)
}
