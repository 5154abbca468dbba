//! What can go wrong with a sandbox. Every kind keeps its cause typed, so that a program can tell them apart.

use std::path::PathBuf;

use cellule_engine::{ConfigError, EngineProblem, Mismatch};
use cellule_network::policy::PolicyError;
use cellule_network::secrets::ValueError;
use cellule_protocol::client::files::FileError;
use cellule_protocol::client::{AttachError, CallError, ExecError, Lost, PortError, StartFailure};
use cellule_supervisor::{
    DirectoryError, DocumentError, Failure, FindError, InvalidDiskSize, NetworksError, SandboxError, State,
};

use crate::{InvalidVariable, RelativeWorkingDir};

/// Why something could not be done with a sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no place for the state.
    #[error("there is no place for the state: neither CELLULE_HOME nor HOME is set")]
    NoHome,
    /// The state directory is a relative path.
    #[error("the state directory {} is not an absolute path", path.display())]
    RelativeHome {
        /// The path.
        path: PathBuf,
    },
    /// The program that supervises sandboxes is not there.
    #[error("the program `cellule`, which supervises sandboxes, is not in PATH")]
    NoProgram,
    /// The boot bundle could not be made.
    #[error("the boot bundle cannot be set up")]
    Setup(#[source] Box<cellule_boot::Error>),
    /// The image store cannot be opened.
    #[error("the image store cannot be opened")]
    Images {
        /// Why.
        source: Box<cellule_image::Error>,
    },
    /// The image cannot be had.
    #[error("cannot get the image {name}")]
    Image {
        /// Its name.
        name: String,
        /// Why.
        source: Box<cellule_image::Error>,
    },
    /// No machine can run on this host.
    #[error("no microVM can run on this host")]
    Engine(#[source] EngineProblem),
    /// The machine cannot be as asked.
    #[error("the machine cannot be as asked")]
    Machine(#[source] ConfigError),
    /// A scratch disk that cannot be.
    #[error("the scratch disk cannot be as asked")]
    Disk(#[source] InvalidDiskSize),
    /// The guest was to have more memory than its machine has.
    #[error("{asked_mib} MiB of memory are asked for; the sandbox's machine has {all_mib} MiB")]
    TooMuchMemory {
        /// How much was asked for, in MiB.
        asked_mib: u64,
        /// What the machine has, in MiB.
        all_mib: u64,
    },
    /// Neither the image nor the caller names a program to run.
    #[error("there is no command to run, and the image names none")]
    NoCommand,
    /// The working directory is a relative path.
    #[error(transparent)]
    WorkingDir(#[from] RelativeWorkingDir),
    /// A text that is no variable.
    #[error(transparent)]
    Variable(#[from] InvalidVariable),
    /// A value that an option cannot have.
    #[error("{option} {value:?}: {why}")]
    Option {
        /// The option, as the command line calls it.
        option: &'static str,
        /// What it was given.
        value: String,
        /// What it can be.
        why: &'static str,
    },
    /// The sandbox's directory cannot be made, read or removed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// No sandbox, or more than one, is meant.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The sandbox did not start, is no more, or refuses.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A snapshot cannot be had, kept or used.
    #[error(transparent)]
    Snapshot(#[from] cellule_snapshot::Error),
    /// A snapshot's text is none of this version's.
    #[error("the snapshot {name} cannot be used")]
    SnapshotText {
        /// Its name.
        name: String,
        /// Why not.
        source: DocumentError,
    },
    /// A snapshot was made where machines are others.
    #[error("this host cannot go on with the snapshot")]
    SnapshotElsewhere(#[source] Mismatch),
    /// The image of a snapshot's sandbox is not here as it was then: its machine reads from it.
    #[error("the snapshot {name} needs the image {image} ({id}), which is not here")]
    SnapshotImage {
        /// The snapshot's name.
        name: String,
        /// The image as it was called.
        image: String,
        /// The id that it must have.
        id: String,
    },
    /// There is no connection to a port of the guest's.
    #[error(transparent)]
    Port(PortError),
    /// Rules that make no policy.
    #[error("the network's rules cannot be")]
    Policy(#[source] PolicyError),
    /// A named network is not there, or cannot be changed.
    #[error(transparent)]
    Networks(#[from] NetworksError),
    /// The value of a secret cannot be had.
    #[error("cannot get the secret {name}")]
    Secret {
        /// Which one.
        name: String,
        /// Why not.
        source: ValueError,
    },
    /// The value of a secret was said once and is kept nowhere.
    #[error("the secret {name} was given with value:, which is kept nowhere")]
    SecretLost {
        /// Which one.
        name: String,
    },
    /// No machine of a pool was ready in time.
    #[error("no machine of the pool was ready within {} s", within.as_secs_f64())]
    PoolEmpty {
        /// How long was waited.
        within: std::time::Duration,
        /// What the pool says of it.
        note: Option<String>,
    },
    /// Something was asked that needs a running sandbox.
    #[error("the sandbox {name} is {state}, not running")]
    NotRunning {
        /// Its name, or its id.
        name: String,
        /// Its state.
        state: State,
    },
    /// Something was asked that needs a sandbox that does not run.
    #[error("the sandbox {name} is {state}")]
    Running {
        /// Its name, or its id.
        name: String,
        /// Its state.
        state: State,
    },
    /// The program cannot be started.
    #[error("cannot run {program:?}")]
    Start {
        /// The program.
        program: String,
        /// The guest's reason.
        source: StartFailure,
    },
    /// The guest did not answer, or refused.
    #[error("the sandbox does not do what it was asked")]
    Call(#[source] CallError),
    /// The sandbox was lost meanwhile, for the reason that its supervisor tells.
    #[error("the sandbox ended")]
    Lost {
        /// How that was noticed.
        #[source]
        lost: Lost,
        /// What its supervisor says of it.
        failure: Option<Box<Failure>>,
    },
    /// There is no program of this id, or none any more.
    #[error("the sandbox has no such exec")]
    NoSuchExec,
    /// This connection leads to as many programs as it can.
    #[error("this connection to the sandbox leads to {limit} programs already")]
    TooManyExecs {
        /// How many it can.
        limit: usize,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something on this host failed.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// The failure of an exec, with its program's name.
    pub(crate) fn exec(program: &str, error: ExecError) -> Self {
        match error {
            ExecError::Failed(source) => Self::Start { program: program.to_owned(), source },
            ExecError::TooMany { limit } => Self::TooManyExecs { limit },
            ExecError::Call(error) => Self::from(error),
        }
    }
}

impl From<AttachError> for Error {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::NoSuchExec => Self::NoSuchExec,
            AttachError::TooMany { limit } => Self::TooManyExecs { limit },
            AttachError::Call(error) => error.into(),
        }
    }
}

impl From<PortError> for Error {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Call(error) => error.into(),
            other => Self::Port(other),
        }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Lost(lost) => Self::Lost { lost, failure: None },
            other => Self::Call(other),
        }
    }
}
