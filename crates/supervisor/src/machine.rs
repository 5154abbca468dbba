//! Starts the machine of a sandbox: from its specification to an agent that answers.

mod introduction;
mod steps;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellule_engine::{
    ConfigError, ConsoleLog, CpuCount, Disk, Engine, EngineChoice, ExitReason, Kernel, LaunchError, Machine,
    MachineConfig, MemorySize, SavedMachine, Start,
};
use cellule_network::OpenConnection;
use cellule_network::secrets::Secrets;
use cellule_protocol::client::{Limits, Session};
use cellule_protocol::v1;
use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

pub(crate) use self::introduction::nobodys;
use self::introduction::{configuration, mac};
use self::steps::cut;
pub(crate) use self::steps::{Progress, Steps};
use crate::directory::{LOGS, SAVED};
use crate::disk;
use crate::failure::{Failure, FailureKind};
use crate::log::CONSOLE_LOG;
use crate::network::{self, NetworkLog};
use crate::networks;
use crate::record::StartRecord;
use crate::saved::{self, SavedMain};
use crate::secrets::{self, Vault};
use crate::spec::SandboxSpec;
use crate::warm;

/// How long a guest may take to boot. An emulated one on a busy host needs some 20 s at worst.
const BOOT: Duration = Duration::from_secs(120);
/// How long a guest that goes on from where it was saved may take until its agent answers: milliseconds, unless the host is
/// very busy.
const RESTORED: Duration = Duration::from_secs(20);
/// How long the agent may take to answer one call.
const ANSWER: Duration = Duration::from_secs(60);
/// By which name the agent finds the disk with the image.
const ROOTFS_SERIAL: &str = "rootfs";
/// The same of the scratch disk, and what tells it that there is one.
const DISK_SERIAL: &str = "scratch";
const HAS_DISK: &str = "CELLULE_DISK=1";

/// How large the guest's console may become on disk before it is put aside.
const CONSOLE_FULL: u64 = 1 << 20;

/// A machine whose agent answers.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) session: Session,
    pub(crate) start: StartRecord,
    /// What its memory was at first, if that was not nothing.
    pub(crate) base: Option<File>,
    /// Its scratch disk, if it has one.
    pub(crate) disk: Option<File>,
    /// Its network.
    pub(crate) network: network::Running,
    /// The main program that it was saved with.
    pub(crate) main: Option<SavedMain>,
}

/// Starts the machine: restored, or booted where that cannot be.
///
/// Dropping the future ends the machine.
pub(crate) async fn start(
    spec: Arc<SandboxSpec>,
    dir: PathBuf,
    vault: Vault,
    steps: Steps,
) -> Result<Started, Failure> {
    let launcher = Launcher::new(Arc::clone(&spec), dir, steps.clone())?;
    let started = start_with(&launcher, &spec, &vault, &steps).await;
    if started.is_err() && spec.disk.is_some() {
        disk::clear(launcher.dir());
    }
    started
}

async fn start_with(
    launcher: &Launcher,
    spec: &SandboxSpec,
    vault: &Vault,
    steps: &Steps,
) -> Result<Started, Failure> {
    let log = NetworkLog::of(launcher.dir());
    // A command that gives a value may take as long as a machine that boots.
    let (prepared, secrets) =
        tokio::try_join!(prepare(launcher, spec), secrets::load(&spec.network.secrets, vault, &log))?;
    introduce(prepared, spec, launcher.dir(), secrets, log, steps).await
}

async fn prepare(launcher: &Launcher, spec: &SandboxSpec) -> Result<Prepared, Failure> {
    match &spec.saved {
        Some(of) if !launcher.has_used_disk => saved::start(launcher, of).await,
        _ => {
            if spec.saved.is_some() {
                // It is gone on with never again.
                _ = std::fs::remove_dir_all(launcher.dir().join(SAVED));
            }
            let (running, start) = warm::start(launcher).await?;
            Ok(Prepared { running, start, main: None, lost: Vec::new() })
        }
    }
}

/// A machine that knows nothing yet of the sandbox that it is for.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) running: Running,
    pub(crate) start: StartRecord,
    pub(crate) main: Option<SavedMain>,
    /// Connections that its guest believes to have.
    pub(crate) lost: Vec<OpenConnection>,
}

/// Makes the machine the sandbox's, whose directory is `dir` now.
pub(crate) async fn introduce(
    prepared: Prepared,
    spec: &SandboxSpec,
    dir: &Path,
    secrets: Option<Secrets>,
    log: NetworkLog,
    steps: &Steps,
) -> Result<Started, Failure> {
    let Prepared { running, start, main, lost } = prepared;
    let begun = Instant::now();
    let link = running.link.try_clone().map_err(|error| no_descriptor(&error))?;
    let configuration = configuration(spec, secrets.as_ref().map(Secrets::certificate))?;
    // A sandbox's directory is two below its home.
    let home = dir.ancestors().nth(2).unwrap_or(dir);
    let neighbourhoods = networks::of(home, &spec.id, &spec.network.networks);
    let mac = mac(spec.id.as_str());
    let network = network::start(&spec.network, link, mac, lost, secrets, neighbourhoods, log).await?;
    steps.tell("network", begun);
    let begun = Instant::now();
    let answer = running.handshake(Some(configuration)).await?;
    if running.base.is_none() {
        steps.guests(&answer);
    }
    // Before anything is written to it that somebody may miss.
    if running.disk.is_some() {
        disk::keep(dir).await?;
    }
    if let Err(error) = running.session.go_on().await {
        return Err(better_reason(&*running.machine, Failure::call(&error)).await);
    }
    steps.tell("handshake", begun);
    let Running { machine, session, base, disk, link: _ } = running;
    Ok(Started { machine, session, start, base, disk, network, main })
}

/// Launches machines for one sandbox.
#[derive(Debug)]
pub(crate) struct Launcher {
    engine: Box<dyn Engine>,
    pub(crate) spec: Arc<SandboxSpec>,
    dir: PathBuf,
    /// Whether there is a disk from an earlier start, with which no saved machine goes on.
    pub(crate) has_used_disk: bool,
    pub(crate) steps: Steps,
}

/// A machine whose agent was heard.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) session: Session,
    /// What its memory was at first, if it was restored.
    pub(crate) base: Option<File>,
    /// Its scratch disk, if it has one.
    pub(crate) disk: Option<File>,
    /// The other end of its network card.
    pub(crate) link: OwnedFd,
}

impl Launcher {
    pub(crate) fn new(spec: Arc<SandboxSpec>, dir: PathBuf, steps: Steps) -> Result<Self, Failure> {
        let choice: EngineChoice = spec.engine.parse().map_err(|error| {
            Failure::new(FailureKind::EngineUnusable, "the sandbox's engine is unknown here", Some(&error))
        })?;
        let engine = choice.engine(spec.engine_program.clone());
        let has_used_disk = spec.disk.is_some() && disk::is_used(&dir);
        Ok(Self { engine, spec, dir, has_used_disk, steps })
    }

    /// The sandbox's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Boots a machine, to an agent that answers.
    pub(crate) async fn boot(&self) -> Result<Running, Failure> {
        let begun = Instant::now();
        let disk = match self.spec.disk {
            None => None,
            Some(_) if self.has_used_disk => Some(disk::open(&self.dir).await?),
            Some(size) => {
                let disk = disk::format(&self.dir, size).await?;
                self.steps.tell("disk", begun);
                Some(disk)
            }
        };
        let begun = Instant::now();
        let (machine, link) =
            self.launch(None, disk.as_ref()).await?.map_err(|error| Failure::launch(&error))?;
        self.steps.launched("launch", begun, &*machine);
        let begun = Instant::now();
        let session = session(&*machine, BOOT).await?;
        self.steps.tell("boot", begun);
        Ok(Running { machine, session, base: None, disk, link })
    }

    /// Lets a machine go on from where one was saved, with a copy of the disk that it had then. The inner error is the saved
    /// machine's, or the engine's.
    pub(crate) async fn restore(
        &self,
        saved: SavedMachine,
        disk: Option<File>,
    ) -> Result<Result<Running, LaunchError>, Failure> {
        let begun = Instant::now();
        let disk = match disk {
            Some(disk) => {
                let disk = disk::copy(&self.dir, disk).await?;
                self.steps.tell("disk", begun);
                Some(disk)
            }
            None => None,
        };
        let begun = Instant::now();
        let base = saved.base.try_clone().map_err(|error| no_descriptor(&error))?;
        let (machine, link) = match self.launch(Some(saved), disk.as_ref()).await? {
            Ok(launched) => launched,
            Err(error) => return Ok(Err(error)),
        };
        self.steps.launched("restore", begun, &*machine);
        let begun = Instant::now();
        let session = session(&*machine, RESTORED).await?;
        self.steps.tell("agent", begun);
        Ok(Ok(Running { machine, session, base: Some(base), disk, link }))
    }

    /// Launches a machine, and gives it with the other end of its network card.
    async fn launch(
        &self,
        saved: Option<SavedMachine>,
        disk: Option<&File>,
    ) -> Result<Result<(Arc<dyn Machine>, OwnedFd), LaunchError>, Failure> {
        let (spec, dir) = (Arc::clone(&self.spec), self.dir.clone());
        let disk = disk.map(File::try_clone).transpose().map_err(|error| no_descriptor(&error))?;
        let (ours, machines) = link().map_err(|error| no_descriptor(&error))?;
        let config = apart(move || config(&spec, &dir, saved, disk, machines)).await?;
        Ok(self.engine.launch(config).await.map(|machine| (Arc::from(machine), ours)))
    }
}

impl Running {
    /// Makes the guest this host's, and then `configuration`'s.
    pub(crate) async fn handshake(
        &self,
        configuration: Option<v1::Configuration>,
    ) -> Result<v1::HandshakeResponse, Failure> {
        let answer = tokio::select! {
            answer = self.session.handshake(configuration) => answer,
            reason = self.machine.wait() => return Err(ended(&*self.machine, &reason)),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(better_reason(&*self.machine, Failure::call(&error)).await),
        };
        match unsound(&answer) {
            Some(failure) => Err(failure.with_console(&self.machine.console())),
            None => Ok(answer),
        }
    }
}

/// Does what may block on a thread of its own: a disk that stalls must not keep anybody from being answered.
pub(crate) async fn apart<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(what).await.map_err(|error| {
        Failure::new(FailureKind::Supervisor, "the supervisor could not prepare the machine", Some(&error))
    })?
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| {
        Failure::new(FailureKind::Launch, format!("cannot open {}", path.display()), Some(&error))
    })
}

fn no_descriptor(error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Supervisor, "the supervisor has no descriptor to spare", Some(error))
}

/// A network between us and a machine's card.
fn link() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn config(
    spec: &SandboxSpec,
    dir: &Path,
    saved: Option<SavedMachine>,
    disk: Option<File>,
    network: OwnedFd,
) -> Result<MachineConfig, Failure> {
    let invalid = |error: ConfigError| Failure::launch(&LaunchError::Config(error));
    let rootfs = open(&spec.rootfs).map_err(|mut failure| {
        failure.causes.insert(0, failure.message);
        failure.message =
            format!("the image {} is not here any more: get it again, and make the sandbox anew", spec.image);
        failure
    })?;
    // Whoever cleans images up leaves those alone that are locked: this one is in use for as long as we live.
    flock(&rootfs, FlockOperation::NonBlockingLockShared).map_err(|error| {
        let error = std::io::Error::from(error);
        Failure::new(FailureKind::Launch, format!("{} is being removed", spec.rootfs.display()), Some(&error))
    })?;
    let start = match saved {
        Some(saved) => Start::Restore(Box::new(saved)),
        None => Start::Boot(Kernel {
            kernel: open(&spec.kernel)?,
            initramfs: open(&spec.initramfs)?,
            cmdline: if disk.is_some() { HAS_DISK.to_owned() } else { String::new() },
        }),
    };
    let mut disks = vec![Disk::read_only(rootfs, ROOTFS_SERIAL).map_err(invalid)?];
    if let Some(disk) = disk {
        disks.push(Disk::writable(disk, DISK_SERIAL).map_err(invalid)?);
    }
    Ok(MachineConfig {
        start,
        cpus: CpuCount::new(u16::try_from(spec.cpus).unwrap_or(u16::MAX)).map_err(invalid)?,
        memory: MemorySize::from_mib(u32::try_from(spec.memory_mib).unwrap_or(u32::MAX)).map_err(invalid)?,
        disks,
        network,
        dir: dir.to_path_buf(),
        console_log: Some(ConsoleLog { path: dir.join(LOGS).join(CONSOLE_LOG), limit: CONSOLE_FULL }),
    })
}

/// Opens the session with the agent, or says why the guest never came so far.
pub(crate) async fn session(machine: &dyn Machine, within: Duration) -> Result<Session, Failure> {
    let connect = async {
        let stream = machine.connect().await.map_err(|error| {
            Failure::new(FailureKind::AgentSilent, "the guest's agent cannot be reached", Some(&error))
        })?;
        let limits = Limits { connect: within, answer: ANSWER, ..Limits::default() };
        Session::connect(stream, limits).await.map_err(|error| Failure::connect(&error))
    };
    tokio::select! {
        // The machine's own end is a better reason than the hang-up that follows from it.
        biased;
        reason = machine.wait() => Err(ended(machine, &reason)),
        session = connect => match session {
            Ok(session) => Ok(session),
            Err(failure) => Err(better_reason(machine, failure).await),
        },
    }
}

/// A stream that breaks is often the first sign of a machine that ends; its own reason follows at once.
pub(crate) async fn better_reason(machine: &dyn Machine, failure: Failure) -> Failure {
    const SETTLE: Duration = Duration::from_secs(3);
    match tokio::time::timeout(SETTLE, machine.wait()).await {
        Ok(reason) => ended(machine, &reason),
        Err(_) => failure.with_console(&machine.console()),
    }
}

/// The failure of a machine that ended.
pub(crate) fn ended(machine: &dyn Machine, reason: &ExitReason) -> Failure {
    Failure::ended(reason).with_console(&machine.console())
}

/// Whether the agent reports something without which no program should run.
fn unsound(answer: &v1::HandshakeResponse) -> Option<Failure> {
    if answer.problems.is_empty() {
        return None;
    }
    let mut failure = Failure::new(FailureKind::GuestUnsound, "the guest could not be prepared", None);
    failure.causes = answer.problems.iter().take(8).map(|problem| cut(&problem.message)).collect();
    Some(failure)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_card_takes_the_largest_packet_behind_its_header() {
        assert_eq!(cellule_engine::FRAME_MAX, 14 + cellule_protocol::network::MTU);
    }
}
