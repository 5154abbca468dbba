//! The other side: starts a supervisor for a new sandbox, and talks to it.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cellule_protocol::client::{ConnectError, Exec, ExecError, ExecSpec, Limits, Session, SupervisorClient};
use cellule_protocol::supervisor::v1;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::directory::{DirectoryError, SandboxDir, Sandboxes};
use crate::spec::SandboxSpec;
use crate::state::State;
use crate::status::{Failure, FailureKind, Status};

const LOG: &str = "supervisor.log";
/// The end of the supervisor's log that an error carries.
const LOG_BYTES: u64 = 4 << 10;
/// How long a supervisor may take to end once its owner let go of it. It kills, so this is for a host in need.
const END: Duration = Duration::from_secs(15);
/// How long the supervisor may take to answer: it has to, whatever the guest does.
const ANSWER: Duration = Duration::from_secs(30);

/// A sandbox that was started by this process and belongs to it: dropped, or when this process dies, it ends.
#[derive(Debug)]
pub struct Sandbox {
    session: Session,
    supervisor: SupervisorClient,
    child: Child,
    dir: Option<SandboxDir>,
}

/// Why a sandbox was not started, or is no more.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Its directory could not be made.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The supervisor's process could not be started.
    #[error("cannot start the supervisor {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The supervisor is not there any more.
    #[error("the supervisor is gone")]
    SupervisorGone {
        /// The end of what it wrote before.
        log: String,
    },
    /// The sandbox failed, for a reason that its supervisor told.
    #[error("{}", .0.message)]
    Failed(Box<Failure>),
}

impl Sandbox {
    /// Makes the sandbox's directory and starts its supervisor: `program supervise DIR`, whose standard input is the
    /// connection to us and whose standard output is the lock of the directory.
    ///
    /// Returns at once; [`running`](Self::running) waits for the guest.
    ///
    /// # Errors
    /// The directory cannot be made, or the program not started.
    pub async fn start(
        sandboxes: &Sandboxes,
        spec: &SandboxSpec,
        program: &Path,
    ) -> Result<Self, SandboxError> {
        let dir = sandboxes.create(spec)?;
        match spawn(&dir, program) {
            Ok((child, ours)) => {
                let limits = Limits { connect: ANSWER, answer: ANSWER };
                let connected = async {
                    let session = Session::connect(ours, limits).await?;
                    let supervisor = session.supervisor().await.map_err(ConnectError::Lost)?;
                    Ok::<_, ConnectError>((session, supervisor))
                };
                match connected.await {
                    Ok((session, supervisor)) => Ok(Self { session, supervisor, child, dir: Some(dir) }),
                    Err(_) => Err(gone(child, dir).await),
                }
            }
            Err(source) => {
                dir.remove()?;
                Err(SandboxError::Spawn { program: program.to_path_buf(), source })
            }
        }
    }

    /// Waits until the agent answers, or the sandbox failed.
    ///
    /// # Errors
    /// The sandbox failed, or its supervisor is gone.
    pub async fn running(&mut self) -> Result<Status, SandboxError> {
        let mut statuses = match self.supervisor.watch(v1::WatchRequest {}).await {
            Ok(response) => response.into_inner(),
            Err(_) => return Err(self.gone().await),
        };
        loop {
            let Ok(Some(status)) = statuses.message().await else { return Err(self.gone().await) };
            let Ok(status) = Status::try_from(status) else { continue };
            match status.state {
                State::Starting => {}
                State::Running => return Ok(status),
                State::Stopping | State::Stopped | State::Failed => return Err(failed(status)),
            }
        }
    }

    /// Runs a program in it.
    ///
    /// # Errors
    /// As of [`Session::exec`]. Why a session was lost is told by [`cause`](Self::cause).
    pub async fn exec(&self, spec: ExecSpec) -> Result<Exec, ExecError> {
        self.session.exec(spec).await
    }

    /// Why nothing can be asked of the sandbox any more: its supervisor's last words.
    pub async fn cause(&mut self) -> SandboxError {
        const SETTLE: Duration = Duration::from_secs(5);
        let last = async {
            let mut statuses = self.supervisor.watch(v1::WatchRequest {}).await.ok()?.into_inner();
            loop {
                let status = Status::try_from(statuses.message().await.ok()??).ok()?;
                if status.state.is_final() {
                    return Some(status);
                }
            }
        };
        match tokio::time::timeout(SETTLE, last).await {
            Ok(Some(status)) => failed(status),
            Ok(None) => self.gone().await,
            // The sandbox lives, and yet what was asked of it is lost.
            Err(_) => SandboxError::Failed(Box::new(Failure::dropped())),
        }
    }

    /// Ends the sandbox and waits until nothing of it is left.
    ///
    /// # Errors
    /// Its directory cannot be removed.
    pub async fn end(mut self) -> Result<(), SandboxError> {
        let request = v1::StopRequest { grace_ms: 0 };
        _ = tokio::time::timeout(END, self.supervisor.stop(request)).await;
        let Self { session, supervisor, mut child, dir } = self;
        // Closing the connection lets a supervisor go that did not hear.
        drop((session, supervisor));
        end(&mut child).await;
        dir.map_or(Ok(()), |dir| Ok(dir.remove()?))
    }

    async fn gone(&mut self) -> SandboxError {
        end(&mut self.child).await;
        match self.dir.take() {
            Some(dir) => {
                let log = log_end(dir.path());
                _ = dir.remove();
                SandboxError::SupervisorGone { log }
            }
            None => SandboxError::SupervisorGone { log: String::new() },
        }
    }
}

fn spawn(dir: &SandboxDir, program: &Path) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let log = File::create(dir.path().join(LOG))?;
    let mut command = std::process::Command::new(program);
    command
        // What lists of processes show, whatever path it was started by.
        .arg0("cellule")
        .arg("supervise")
        .arg(dir.path())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(dir.share_lock()?)
        .stderr(log)
        // Ctrl-C at the terminal is the owner's to answer.
        .process_group(0);
    let child = Command::from(command).kill_on_drop(true).spawn()?;
    Ok((child, UnixStream::from_std(ours)?))
}

async fn end(child: &mut Child) {
    if tokio::time::timeout(END, child.wait()).await.is_err() {
        // Its machine dies with it.
        _ = child.kill().await;
    }
}

async fn gone(mut child: Child, dir: SandboxDir) -> SandboxError {
    end(&mut child).await;
    let log = log_end(dir.path());
    _ = dir.remove();
    SandboxError::SupervisorGone { log }
}

fn failed(status: Status) -> SandboxError {
    let unexplained = || Failure {
        kind: FailureKind::GuestEnded,
        message: "the sandbox was stopped".to_owned(),
        causes: Vec::new(),
        console: String::new(),
        engine_stderr: String::new(),
    };
    SandboxError::Failed(Box::new(status.failure.unwrap_or_else(unexplained)))
}

fn log_end(dir: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(dir.join(LOG))?;
        let length = fs::metadata(dir.join(LOG))?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
