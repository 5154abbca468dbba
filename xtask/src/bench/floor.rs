//! The floor: a bare QEMU with the same kernel and a trivial init, which this builds.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cellule_engine::qemu::QemuEngine;
use cellule_engine::{CpuCount, Engine as _, Kernel, MachineConfig, MemorySize, Origin, SavedMachine, Start};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::Result;

/// How long a bare guest may take for anything.
const LIMIT: Duration = Duration::from_secs(120);

/// What is needed to start a bare guest.
#[derive(Debug)]
pub(crate) struct Floor {
    dir: PathBuf,
    /// QEMU's options that decide how fast it is, as our own engine gives them.
    options: Vec<String>,
    cmdline: String,
    kernel: PathBuf,
    memory_mib: u32,
}

/// A bare guest that was saved.
#[derive(Debug)]
pub(crate) struct Saved {
    dir: PathBuf,
    memory: MemorySize,
    machine: Option<(Vec<u8>, Origin)>,
}

impl Saved {
    fn file(&self) -> PathBuf {
        self.dir.join("memory")
    }

    fn config(&self, start: Start) -> Result<MachineConfig> {
        Ok(MachineConfig {
            start,
            cpus: CpuCount::ONE,
            memory: self.memory,
            disks: Vec::new(),
            // Nobody is at the other end.
            network: UnixStream::pair()?.0.into(),
            dir: self.dir.clone(),
            console_log: None,
        })
    }

    /// From the start of a QEMU that goes on from there to the end of the first program that the guest starts.
    pub(crate) async fn to_first_fork(&self) -> Result<Duration> {
        let (devices, origin) = self.machine.clone().ok_or("nothing was saved")?;
        let begun = Instant::now();
        let saved = Box::new(SavedMachine::whole(File::open(self.file())?, devices, origin)?);
        let machine = QemuEngine::new(None).launch(self.config(Start::Restore(saved))?).await?;
        let mut port = machine.connect().await?;
        port.write_all(b"f").await?;
        let mut micros = [0; 8];
        tokio::time::timeout(LIMIT, port.read_exact(&mut micros)).await??;
        Ok(begun.elapsed())
    }
}

/// A bare guest, killed with this value.
struct Guest {
    qemu: Child,
    port: UnixStream,
}

impl Drop for Guest {
    fn drop(&mut self) {
        _ = self.qemu.kill();
        _ = self.qemu.wait();
    }
}

impl Floor {
    /// Builds the init and its initramfs. `engine` is the command line of a QEMU that our engine started.
    pub(crate) fn prepare(dir: &Path, engine: &EngineCommandLine) -> Result<Self> {
        let init = dir.join("floor-init");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("floor-init.rs");
        let built = Command::new("rustc")
            .args([
                "--edition",
                "2024",
                "-C",
                "opt-level=3",
                "-C",
                "target-feature=+crt-static",
                "-C",
                "relocation-model=static",
            ])
            .args(["-C", "panic=abort", "-C", "strip=symbols", "-o"])
            .arg(&init)
            .arg(source)
            .status()?;
        if !built.success() {
            return Err("the init of the floor does not build".into());
        }
        // The kernel takes archives one after the other: ours comes last, and its init replaces the agent.
        let mut initramfs = fs::read(&engine.initramfs)?;
        initramfs.extend(archive("init", &fs::read(&init)?));
        fs::write(dir.join("floor-initramfs"), initramfs)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            options: engine.options.clone(),
            cmdline: engine.cmdline.clone(),
            memory_mib: engine.memory_mib,
            kernel: engine.kernel.clone(),
        })
    }

    fn start(&self) -> Result<Guest> {
        let socket = self.dir.join("floor.sock");
        _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(&self.options)
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(self.dir.join("floor-initramfs"))
            .args(["-append", &self.cmdline])
            .args(["-serial", "null", "-device", "virtio-serial-device,max_ports=2"])
            .arg("-chardev")
            .arg(format!("socket,id=port,path={}", socket.display()))
            .args(["-device", "virtserialport,chardev=port,name=floor"])
            .stdin(Stdio::null())
            .spawn()?;
        let (port, _) = listener.accept()?;
        port.set_read_timeout(Some(LIMIT))?;
        port.set_write_timeout(Some(LIMIT))?;
        Ok(Guest { qemu, port })
    }

    /// From QEMU's start to the first byte of its init.
    pub(crate) fn boot(&self) -> Result<Duration> {
        let begun = Instant::now();
        let mut guest = self.start()?;
        guest.expect(b'R')?;
        Ok(begun.elapsed())
    }

    /// The bare guest, saved where it waits for its first command.
    pub(crate) async fn saved(&self) -> Result<Saved> {
        let dir = self.dir.join("floor");
        fs::create_dir_all(&dir)?;
        let memory = MemorySize::from_mib(self.memory_mib)?;
        let saved = Saved { dir, memory, machine: None };
        let kernel = Kernel {
            kernel: File::open(&self.kernel)?,
            initramfs: File::open(self.dir.join("floor-initramfs"))?,
            cmdline: String::new(),
        };
        let machine = QemuEngine::new(None).launch(saved.config(Start::Boot(kernel))?).await?;
        let mut port = machine.connect().await?;
        let mut ready = [0];
        tokio::time::timeout(LIMIT, port.read_exact(&mut ready)).await??;
        machine.pause().await?;
        // All of it in one file, as a template has it.
        let file = File::options().read(true).write(true).create(true).truncate(true).open(saved.file())?;
        let machine = machine.save(file).await?;
        Ok(Saved { machine: Some((machine.devices, machine.origin)), ..saved })
    }

    /// Forks and execs of a program that ends at once, as the guest itself measures them.
    pub(crate) fn forks(&self, count: u32) -> Result<Vec<Duration>> {
        let mut guest = self.start()?;
        guest.expect(b'R')?;
        let mut times = Vec::new();
        for _ in 0..count {
            guest.port.write_all(b"f")?;
            let mut micros = [0; 8];
            guest.port.read_exact(&mut micros)?;
            times.push(Duration::from_micros(u64::from_le_bytes(micros)));
        }
        Ok(times)
    }

    /// MB/s of bytes that the init reads from its port and writes back.
    pub(crate) fn echo(&self, megabytes: u64) -> Result<f64> {
        let mut guest = self.start()?;
        guest.expect(b'R')?;
        guest.port.write_all(b"e")?;
        let total = megabytes * 1_000_000;
        let writing = guest.port.try_clone()?;
        let begun = Instant::now();
        let writer = super::pour(writing, total);
        let mut chunk = vec![0; 128 << 10];
        let mut left = total;
        while left > 0 {
            let read = guest.port.read(&mut chunk)?;
            if read == 0 {
                return Err("the bare guest hung up".into());
            }
            left -= read as u64;
        }
        let rate = f64::from(u32::try_from(megabytes)?) / begun.elapsed().as_secs_f64();
        writer.join().map_err(|_| "the writer to the bare guest failed")?;
        Ok(rate)
    }

    /// MB/s of bytes that the init reads from its port and drops.
    pub(crate) fn sink(&self, megabytes: u64) -> Result<f64> {
        let mut guest = self.start()?;
        guest.expect(b'R')?;
        let total = megabytes * 1_000_000;
        let begun = Instant::now();
        guest.port.write_all(&command(b's', total))?;
        let writer = super::pour(guest.port.try_clone()?, total);
        guest.expect(b'D')?;
        let rate = f64::from(u32::try_from(megabytes)?) / begun.elapsed().as_secs_f64();
        writer.join().map_err(|_| "the writer to the bare guest failed")?;
        Ok(rate)
    }

    /// MB/s of bytes that the init writes to its port.
    pub(crate) fn source(&self, megabytes: u64) -> Result<f64> {
        let mut guest = self.start()?;
        guest.expect(b'R')?;
        let total = megabytes * 1_000_000;
        let begun = Instant::now();
        guest.port.write_all(&command(b'g', total))?;
        let mut chunk = vec![0; 128 << 10];
        let mut left = total;
        while left > 0 {
            let read = guest.port.read(&mut chunk)?;
            if read == 0 {
                return Err("the bare guest hung up".into());
            }
            left -= read as u64;
        }
        Ok(f64::from(u32::try_from(megabytes)?) / begun.elapsed().as_secs_f64())
    }
}

fn command(word: u8, count: u64) -> Vec<u8> {
    [&[word][..], &count.to_le_bytes()].concat()
}

impl Guest {
    fn expect(&mut self, wanted: u8) -> Result<()> {
        let mut byte = [0];
        self.port.read_exact(&mut byte)?;
        if byte[0] == wanted { Ok(()) } else { Err(format!("the bare guest said {byte:?}").into()) }
    }
}

/// What our engine starts QEMU with, as far as a bare guest takes it over.
#[derive(Debug)]
pub(crate) struct EngineCommandLine {
    pub(crate) options: Vec<String>,
    pub(crate) cmdline: String,
    pub(crate) memory_mib: u32,
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

impl EngineCommandLine {
    /// From the arguments of a running engine.
    pub(crate) fn of(arguments: &[String], kernel: &Path, initramfs: &Path) -> Result<Self> {
        let value = |option: &str| {
            let at = arguments.iter().position(|argument| argument == option);
            let value = at.and_then(|at| arguments.get(at + 1));
            value.cloned().ok_or_else(|| format!("our engine's command line has no {option}"))
        };
        let mut options = Vec::new();
        for option in ["-machine", "-cpu", "-accel", "-smp", "-m"] {
            // The bare guest's memory is QEMU's own.
            let value = value(option)?.replace(",memory-backend=ram", "");
            options.extend([option.to_owned(), value]);
        }
        let size = value("-m")?;
        let memory_mib = size.strip_prefix("size=").and_then(|size| size.strip_suffix('M')?.parse().ok());
        Ok(Self {
            options,
            memory_mib: memory_mib.ok_or_else(|| format!("our engine's memory is {size:?}"))?,
            cmdline: value("-append")?,
            kernel: kernel.to_path_buf(),
            initramfs: initramfs.to_path_buf(),
        })
    }
}

/// A cpio archive, in the form that the kernel takes, with one program in it.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut entry = |name: &str, mode: u32, content: &[u8]| {
        let fields = [1, mode as usize, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        bytes.extend(b"070701");
        for field in fields {
            bytes.extend(format!("{field:08X}").bytes());
        }
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    };
    entry(name, 0o100_755, content);
    entry("TRAILER!!!", 0, &[]);
    bytes
}
