//! What is measured of Cellule itself, through its command and through its supervisor.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cellule_boot::{AGENT, Bundle};
use cellule_image::{ImageConfig, Import, ImportFrom, Options, Store};
use cellule_protocol::client::{Exec, ExecSpec};
use cellule_supervisor::{FORMAT, Sandbox, SandboxId, SandboxSpec, Sandboxes};

use super::floor::EngineCommandLine;
use crate::Result;

/// The memory of every guest that is measured, bare or not.
const MEMORY_MIB: u64 = 512;

/// A state directory that is set up, and the program.
#[derive(Debug)]
pub(crate) struct Bench {
    home: PathBuf,
    program: PathBuf,
    bundle: Bundle,
    rootfs: PathBuf,
}

impl Bench {
    pub(crate) async fn prepare(home: &Path, program: &Path) -> Result<Self> {
        let bundle = cellule_boot::ensure(home, &AGENT, &|_| ())?;
        let store = Store::open(home.join("images"))?;
        let import = Import { name: Some("base".parse()?), config: ImageConfig::default() };
        let image =
            store.import(ImportFrom::Tar(bundle.base_tar.clone()), import, &Options::default()).await?;
        Ok(Self {
            home: home.to_path_buf(),
            program: program.to_path_buf(),
            bundle,
            rootfs: image.rootfs.path.clone(),
        })
    }

    async fn start(&self) -> Result<Sandbox> {
        let id = SandboxId::random()?;
        let spec = SandboxSpec {
            format: FORMAT,
            name: None,
            image: "base".to_owned(),
            engine: "qemu".to_owned(),
            engine_program: None,
            cpus: 1,
            memory_mib: MEMORY_MIB,
            kernel: self.bundle.kernel_path.clone(),
            initramfs: self.bundle.initramfs_path.clone(),
            rootfs: self.rootfs.clone(),
            hostname: id.to_string(),
            read_only: false,
            tmpfs: Vec::new(),
            id,
        };
        Ok(Sandbox::start(&Sandboxes::open(&self.home)?, &spec, &self.program).await?)
    }

    /// How our engine starts QEMU.
    pub(crate) async fn engine_command_line(&self) -> Result<EngineCommandLine> {
        let mut sandbox = self.start().await?;
        let status = sandbox.running().await?;
        let engine =
            status.processes.iter().find(|(role, _)| role == "engine").ok_or("there is no engine")?;
        let line = fs::read_to_string(format!("/proc/{}/cmdline", engine.1))?;
        let arguments: Vec<String> = line.split('\0').map(str::to_owned).collect();
        sandbox.end().await?;
        EngineCommandLine::of(&arguments, &self.bundle.kernel_path, &self.bundle.initramfs_path)
    }

    /// From the supervisor's start to an agent that answers.
    pub(crate) async fn boot(&self) -> Result<Duration> {
        let begun = Instant::now();
        let mut sandbox = self.start().await?;
        sandbox.running().await?;
        let took = begun.elapsed();
        sandbox.end().await?;
        Ok(took)
    }

    fn run(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["run", "--quiet"]).args(words).env("CELLULE_HOME", &self.home);
        command
    }

    /// From the start of `cellule run` to the first byte that its program writes.
    pub(crate) fn first_output(&self) -> Result<Duration> {
        let begun = Instant::now();
        let mut child =
            self.run(&["base", "echo", "x"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut byte = [0];
        child.stdout.take().ok_or("no output")?.read_exact(&mut byte)?;
        let took = begun.elapsed();
        child.wait()?;
        Ok(took)
    }

    /// Times of execs in one sandbox, and the memory of its processes before them.
    pub(crate) async fn execs(&self, count: u32) -> Result<(Vec<Duration>, Vec<(String, u64)>)> {
        let mut sandbox = self.start().await?;
        let status = sandbox.running().await?;
        let mut resident = Vec::new();
        for (role, pid) in &status.processes {
            resident.push((role.clone(), resident_kib(*pid)?));
        }
        let spec = ExecSpec { argv: vec![b"/bin/true".to_vec()], ..ExecSpec::default() };
        let mut times = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            let Exec { mut process, .. } = sandbox.exec(spec.clone()).await?;
            process.wait().await?;
            times.push(begun.elapsed());
        }
        sandbox.end().await?;
        Ok((times, resident))
    }

    /// MB/s through standard input, `cat`, and standard output of `cellule run`, from the first byte on.
    pub(crate) fn throughput(&self, megabytes: u64) -> Result<f64> {
        let mut child =
            self.run(&["-i", "base", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().ok_or("no input")?;
        let mut output = child.stdout.take().ok_or("no output")?;
        // One byte there and back: the guest has booted and `cat` runs.
        input.write_all(b"x")?;
        let mut chunk = vec![0; 128 << 10];
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
