//! The `qemu` driver: QEMU 7.2 or later, its `microvm` machine, driven over QMP.
//!
//! The processor is always emulated (TCG) in this version, even where KVM would work: so it behaves the same on
//! every host, and needs no device and no root. The guest sees an x86-64-v2 processor, and the host must be x86-64.
//!
//! QEMU's process gets every file as an open descriptor, an empty environment, limits on memory and files, no new
//! privileges, QEMU's own system call filter and ours where its memory is shared, no network of the host's and no device that is not
//! used; and it is killed when its owner dies, however that dies.

mod balloon;
mod cmdline;
mod command;
mod filter;
mod machine;
mod memory;
mod port;
mod process;
mod program;
mod qmp;
mod restore;
mod state;
mod tsc;

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use tokio::time::timeout;

use self::command::{Begin, Channels, Hardware};
use self::machine::{Parts, QemuMachine};
use self::port::Port;
use self::process::Process;
use self::qmp::Qmp;
use self::restore::{Restored, restore, resumed};
use self::state::StateFile;
use crate::console::Console;
use crate::{
    Disk, Engine, EngineInfo, EngineProblem, Kernel, LaunchError, Machine, MachineConfig, MemorySize, Origin,
    Start, kernel,
};

/// How long a QEMU that hung up may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// QEMU, emulating the processor.
#[derive(Debug)]
pub struct QemuEngine {
    program: Option<PathBuf>,
    /// Taken early, so that little or no time is left to wait at the first launch.
    tsc: tsc::Sample,
}

impl QemuEngine {
    /// `program` names QEMU's program where it isn't to be searched for in `PATH`.
    pub fn new(program: Option<PathBuf>) -> Self {
        Self { program, tsc: tsc::Sample::now() }
    }
}

impl QemuEngine {
    async fn origin_of(&self, version: String) -> Origin {
        let (engine, machine) = (self.name().to_owned(), command::describe());
        Origin { engine, version, machine, tsc_khz: tsc::khz(self.tsc).await }
    }
}

#[async_trait]
impl Engine for QemuEngine {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn emulates_cpu(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<EngineInfo, EngineProblem> {
        program::check(self.program.as_deref()).await
    }

    async fn origin(&self) -> Result<Origin, EngineProblem> {
        Ok(self.origin_of(self.check().await?.version).await)
    }

    async fn launch(&self, config: MachineConfig) -> Result<Box<dyn Machine>, LaunchError> {
        let program = program::find(self.program.as_deref())?;
        config.check()?;
        let MachineConfig { start, cpus, memory, disks, network, dir, console_log } = config;
        let (begin, base, restored) = match start {
            Start::Boot(Kernel { kernel, initramfs, cmdline }) => {
                kernel::check(&kernel)?;
                let cmdline = cmdline::build(tsc::khz(self.tsc).await, &cmdline)?;
                (Begin::Boot { kernel, initramfs, cmdline }, no_memory(memory)?, None)
            }
            Start::Restore(saved) => {
                let restored = Restored::new(*saved, memory)?;
                let devices = restored.devices.try_clone().map_err(host("copy a descriptor"))?;
                let base = restored.base.try_clone().map_err(host("copy a descriptor"))?;
                (Begin::Restore { devices: devices.into() }, base, Some(restored))
            }
        };

        let pair = || UnixStream::pair().map_err(host("make a socket"));
        let (control, qemus_control) = pair()?;
        let (console, qemus_console) = pair()?;
        let (port, listener) = Port::listen(&dir)?;
        let (console, console_end) =
            Console::read(console, console_log).map_err(host("read the guest's console"))?;
        let state = StateFile::new().map_err(host("make a file in memory"))?;
        let channels = Channels {
            control: qemus_control.into(),
            console: qemus_console.into(),
            agent: listener.into(),
            network,
            state: state.qemus().map_err(host("copy a descriptor"))?,
        };
        let written = writable(&disks).map_err(host("copy a descriptor"))?;
        let hardware =
            Hardware { cpus, memory, base: base.try_clone().map_err(host("copy a descriptor"))?, disks, dir };
        let incoming = begin.incoming();
        let spec = command::spec(program.clone(), hardware, begin, channels)
            .map_err(host("open a disk's file for QEMU"))?;
        let process = Process::start(spec)
            .await
            .map_err(|source| EngineProblem::NotExecutable { program: program.clone(), source })?;

        control.set_nonblocking(true).map_err(host("use a socket"))?;
        let control = tokio::net::UnixStream::from_std(control).map_err(host("use a socket"))?;
        let process = Arc::new(process);
        let started = async {
            let (qmp, mut events) = Qmp::open(control).await?;
            program::check_version(&program, qmp.version().parts(), qmp.version().to_string())?;
            let mut origin = self.origin_of(qmp.version().to_string()).await;
            match (restored, incoming) {
                (Some(restored), Some(incoming)) => {
                    origin.check(&restored.origin)?;
                    origin.tsc_khz = restored.origin.tsc_khz;
                    restore(restored.changes, &process, &base, memory).await?;
                    let uri = json!({ "uri": format!("fd:{incoming}") });
                    qmp.execute_with("migrate-incoming", uri).await?;
                    resumed(&mut events).await?;
                }
                _ => drop(qmp.execute("cont").await?),
            }
            Ok((qmp, events, origin))
        };
        match started.await {
            Ok((qmp, events, origin)) => {
                let parts =
                    Parts { process, qmp, console, port, state, base, memory, origin, disks: written };
                Ok(Box::new(QemuMachine::new(parts, events, console_end)))
            }
            // If it ended, its own words say more than a closed channel.
            Err(LaunchError::Control(error)) => match timeout(GRACE, process.ended()).await {
                Ok(Some(end)) => Err(LaunchError::Exited { status: end.status, stderr: end.stderr }),
                _ => Err(LaunchError::Control(error)),
            },
            Err(error) => Err(error),
        }
    }
}

/// The disks that the guest writes to.
fn writable(disks: &[Disk]) -> std::io::Result<Vec<File>> {
    disks.iter().filter(|disk| !disk.read_only).map(|disk| disk.file.try_clone()).collect()
}

/// Memory of which nothing is written yet.
fn no_memory(size: MemorySize) -> Result<File, LaunchError> {
    let make = || {
        let file = File::from(memfd_create("cellule-memory", MemfdFlags::CLOEXEC)?);
        file.set_len(size.bytes())?;
        Ok(file)
    };
    make().map_err(host("make a file in memory"))
}

fn host(what: &'static str) -> impl Fn(std::io::Error) -> LaunchError {
    move |source| LaunchError::Host { what, source }
}
