//! Starts the machine of a sandbox: from its specification to an agent that answers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellule_engine::{
    ConfigError, ConsoleLog, CpuCount, Disk, EngineChoice, ExitReason, HostProcess, LaunchError, Machine,
    MachineConfig, MemorySize,
};
use cellule_protocol::client::{Limits, Session};
use cellule_protocol::v1;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::mpsc;

use crate::directory::LOGS;
use crate::failure::{Failure, FailureKind};
use crate::log::CONSOLE_LOG;
use crate::spec::SandboxSpec;
use crate::status::Phase;

/// How long a guest may take to boot. An emulated one on a busy host needs some 20 s at worst.
const BOOT: Duration = Duration::from_secs(120);
/// How long the agent may take to answer one call.
const ANSWER: Duration = Duration::from_secs(60);
/// How many steps of its boot a guest may tell, and how long its words may be.
const GUEST_STEPS: usize = 64;
const GUEST_WORDS: usize = 512;
/// By which name the agent finds the disk with the image.
const ROOTFS_SERIAL: &str = "rootfs";

/// How large the guest's console may become on disk before it is put aside.
const CONSOLE_FULL: u64 = 1 << 20;

/// A machine whose agent answers.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) session: Session,
}

/// A step of the start that is done.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    /// The machine's processes, with the step that made them.
    pub(crate) processes: Option<Vec<HostProcess>>,
}

/// Starts the machine. Each step that is done goes to `done`.
///
/// Dropping the future ends the machine.
pub(crate) async fn start(
    spec: Arc<SandboxSpec>,
    dir: PathBuf,
    done: mpsc::UnboundedSender<Progress>,
) -> Result<Started, Failure> {
    // Nobody needs to hear it.
    let tell = |phase, processes| drop(done.send(Progress { phase, processes }));
    let choice: EngineChoice = spec.engine.parse().map_err(|error| {
        Failure::new(FailureKind::EngineUnusable, "the sandbox's engine is unknown here", Some(&error))
    })?;
    let engine = choice.engine(spec.engine_program.clone());
    let begun = Instant::now();
    // A disk that stalls must not keep anybody from being answered.
    let of = Arc::clone(&spec);
    let config = tokio::task::spawn_blocking(move || config(&of, &dir));
    let config = config.await.map_err(|error| {
        Failure::new(FailureKind::Supervisor, "the supervisor could not prepare the machine", Some(&error))
    })??;
    let machine: Arc<dyn Machine> =
        Arc::from(engine.launch(config).await.map_err(|error| Failure::launch(&error))?);
    tell(phase("launch", begun), Some(machine.processes()));

    let begun = Instant::now();
    let session = session(&*machine).await?;
    tell(phase("boot", begun), None);

    let begun = Instant::now();
    let answer = tokio::select! {
        answer = session.handshake(Some(configuration(&spec))) => answer,
        reason = machine.wait() => return Err(ended(&*machine, &reason)),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Err(better_reason(&*machine, Failure::call(&error)).await),
    };
    if let Some(failure) = unsound(&answer) {
        return Err(failure.with_console(&machine.console()));
    }
    tell(phase("handshake", begun), None);
    for step in answer.boot_steps.iter().take(GUEST_STEPS) {
        let took = Duration::from_micros(step.took_us);
        tell(Phase { name: cut(&step.name), took, in_guest: true }, None);
    }
    Ok(Started { machine, session })
}

/// The guest's words, cut to a bounded length.
fn cut(text: &str) -> String {
    text.chars().take(GUEST_WORDS).collect()
}

fn phase(name: &str, begun: Instant) -> Phase {
    Phase { name: name.to_owned(), took: begun.elapsed(), in_guest: false }
}

fn config(spec: &SandboxSpec, dir: &Path) -> Result<MachineConfig, Failure> {
    let open = |path: &PathBuf| {
        File::open(path).map_err(|error| {
            Failure::new(FailureKind::Launch, format!("cannot open {}", path.display()), Some(&error))
        })
    };
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
    Ok(MachineConfig {
        kernel: open(&spec.kernel)?,
        initramfs: open(&spec.initramfs)?,
        cpus: CpuCount::new(u16::try_from(spec.cpus).unwrap_or(u16::MAX)).map_err(invalid)?,
        memory: MemorySize::from_mib(u32::try_from(spec.memory_mib).unwrap_or(u32::MAX)).map_err(invalid)?,
        disks: vec![Disk::read_only(rootfs, ROOTFS_SERIAL).map_err(invalid)?],
        dir: dir.to_path_buf(),
        cmdline: String::new(),
        console_log: Some(ConsoleLog { path: dir.join(LOGS).join(CONSOLE_LOG), limit: CONSOLE_FULL }),
    })
}

/// Opens the session with the agent, or says why the guest never came so far.
async fn session(machine: &dyn Machine) -> Result<Session, Failure> {
    let connect = async {
        let stream = machine.connect().await.map_err(|error| {
            Failure::new(FailureKind::AgentSilent, "the guest's agent cannot be reached", Some(&error))
        })?;
        let limits = Limits { connect: BOOT, answer: ANSWER, ..Limits::default() };
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

fn configuration(spec: &SandboxSpec) -> v1::Configuration {
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{}\n",
        spec.hostname
    );
    v1::Configuration {
        hostname: spec.hostname.clone(),
        hosts: hosts.into_bytes(),
        // There is no network yet, so no server to name; an image's own would only make look-ups slow to fail.
        resolv_conf: b"# this sandbox has no network\n".to_vec(),
        read_only: spec.read_only,
        tmpfs: spec
            .tmpfs
            .iter()
            .map(|tmpfs| v1::Tmpfs { path: tmpfs.path.clone().into_bytes(), options: tmpfs.options.clone() })
            .collect(),
    }
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
