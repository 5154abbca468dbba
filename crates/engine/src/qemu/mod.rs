//! The `qemu` driver: QEMU 7.2 or later, its `microvm` machine, driven over QMP.
//!
//! The processor is always emulated (TCG) in this version, even where KVM would work: so it behaves the same on
//! every host, and needs no device and no root. The guest sees an x86-64-v2 processor, and the host must be x86-64.
//!
//! QEMU's process gets every file as an open descriptor, an empty environment, limits on memory and files, no new
//! privileges, QEMU's own system call filter, no network and no device that is not used; and it is killed when its
//! owner dies, however that dies.

mod cmdline;
mod command;
mod machine;
mod port;
mod process;
mod program;
mod qmp;
mod tsc;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use self::command::Channels;
use self::machine::QemuMachine;
use self::port::Port;
use self::process::Process;
use self::qmp::Qmp;
use crate::console::Console;
use crate::{Engine, EngineInfo, EngineProblem, LaunchError, Machine, MachineConfig, kernel};

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

    async fn launch(&self, mut config: MachineConfig) -> Result<Box<dyn Machine>, LaunchError> {
        let program = program::find(self.program.as_deref())?;
        config.check()?;
        kernel::check(&config.kernel)?;
        let cmdline = cmdline::build(tsc::khz(self.tsc).await, &config.cmdline)?;

        let pair = || UnixStream::pair().map_err(host("make a socket"));
        let (control, qemus_control) = pair()?;
        let (console, qemus_console) = pair()?;
        let (port, listener) = Port::listen(&config.dir)?;
        let console_log = config.console_log.take();
        let (console, console_end) =
            Console::read(console, console_log).map_err(host("read the guest's console"))?;

        let channels =
            Channels { control: qemus_control.into(), console: qemus_console.into(), agent: listener.into() };
        let spec = command::spec(program.clone(), config, channels, &cmdline)
            .map_err(host("open a disk's file for QEMU"))?;
        let process =
            Process::start(spec).await.map_err(|source| EngineProblem::NotExecutable { program, source })?;

        control.set_nonblocking(true).map_err(host("use a socket"))?;
        let control = tokio::net::UnixStream::from_std(control).map_err(host("use a socket"))?;
        let started = async {
            let (qmp, events) = Qmp::open(control).await?;
            qmp.execute("cont").await?;
            Ok((qmp, events))
        };
        match started.await {
            Ok((qmp, events)) => {
                Ok(Box::new(QemuMachine::new(process, qmp, events, console, console_end, port)))
            }
            // If it ended, its own words say more than a closed channel.
            Err(error) => match timeout(GRACE, process.ended()).await {
                Ok(Some(end)) => Err(LaunchError::Exited { status: end.status, stderr: end.stderr }),
                _ => Err(LaunchError::Control(error)),
            },
        }
    }
}

fn host(what: &'static str) -> impl Fn(std::io::Error) -> LaunchError {
    move |source| LaunchError::Host { what, source }
}
