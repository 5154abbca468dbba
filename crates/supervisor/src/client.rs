//! The other side: starts a supervisor, connects to one that runs, and talks to it.

mod connection;
mod error;
mod network;
mod slot;
mod start;
mod statuses;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cellule_protocol::client::{
    Exec, ExecError, ExecId, ExecSpec, ExitStatus, Lost, Session, Stdio, SupervisorClient,
};
use cellule_protocol::supervisor::v1;
use tokio::process::Child;

use self::connection::{begin, reach, reap, reap_unless_settled};
pub use self::error::{SandboxError, StartMainError};
pub use self::slot::{Slot, SlotNews};
pub use self::statuses::Statuses;
use crate::directory::SandboxDir;
use crate::failure::Failure;
use crate::name::SandboxId;
use crate::recovery;
use crate::sandboxes::{Entry, Sandboxes};
use crate::save::{SaveOutcome, SaveRequest};
use crate::state::{Refusal, State};
use crate::status::Status;
use crate::status::wire::start_failure_from_wire;

/// How long a supervisor may take to end once its owner let go of it. It kills, so this is for a host in need.
const END: Duration = Duration::from_secs(15);
/// How long the state of a sandbox may take to show that its supervisor is gone.
const SETTLE: Duration = Duration::from_secs(5);

/// A sandbox that runs, and the connection to its supervisor.
///
/// One that this process [started](Self::start) belongs to it until it is [released](Self::release): dropped, or when
/// this process dies, it ends. One that was [connected](Self::connect) to is merely let go.
#[derive(Debug)]
pub struct Sandbox {
    session: Session,
    supervisor: SupervisorClient,
    sandboxes: Sandboxes,
    id: SandboxId,
    path: PathBuf,
    /// The supervisor, if this process started it.
    child: Option<Child>,
    /// Whether the sandbox stood still when it was connected to, so that its agent refused us.
    was_paused: bool,
}

/// How to stop a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// How long its main program may take to end. Zero ends the machine at once.
    pub grace: Duration,
    /// What asks the main program to stop; without, the sandbox's own signal.
    pub signal: Option<i32>,
    /// Whether nothing of it is kept then.
    pub remove: bool,
}

impl Sandbox {
    /// Starts the supervisor of a sandbox that does not run: `program supervise DIR`, whose standard input is the
    /// connection to us and whose standard output is the lock of the directory.
    ///
    /// Returns before the guest answers; [`running`](Self::running) waits for that. Dropped before it returns, it leaves
    /// nothing that runs.
    ///
    /// # Errors
    /// The directory cannot be written, or the program not started.
    pub async fn start(dir: SandboxDir, program: &Path) -> Result<Self, SandboxError> {
        let (sandboxes, id, path) = (dir.sandboxes().clone(), dir.id().clone(), dir.path().to_path_buf());
        let (child, ours) = start::spawn(dir, program, start::As::Supervisor)?;
        // From here on the end of the connection is what ends the sandbox, whatever becomes of this future.
        let mut child = Some(child);
        if let Some((session, supervisor)) = begin(ours).await {
            return Ok(Self { session, supervisor, sandboxes, id, path, child, was_paused: false });
        }
        let log = reap(&mut child, &path).await;
        _ = recovery::look(&sandboxes, &id);
        Err(SandboxError::SupervisorGone { log })
    }

    /// Connects to the supervisor of a sandbox that runs.
    ///
    /// # Errors
    /// It does not run, or does not answer.
    pub async fn connect(entry: &Entry) -> Result<Self, SandboxError> {
        let path = entry.path.clone();
        let sandboxes = Sandboxes::at(path.ancestors().nth(2).unwrap_or(&path));
        let id = entry.spec.id.clone();
        let ours = reach(&path).await;
        let begun = match ours {
            Ok(ours) => begin(ours).await.ok_or_else(|| std::io::ErrorKind::ConnectionReset.into()),
            Err(error) => Err(error),
        };
        match begun {
            Ok((session, supervisor)) => {
                let was_paused = matches!(entry.record.state, State::Pausing | State::Paused);
                Ok(Self { session, supervisor, sandboxes, id, path, child: None, was_paused })
            }
            Err(source) => Err(match recovery::look(&sandboxes, &id) {
                Ok(Some((_, record))) if record.state.is_live() => SandboxError::Unreachable { source },
                Ok(Some((_, record))) => SandboxError::Failed(Box::new(Failure::of_record(&record))),
                Ok(None) | Err(_) => SandboxError::SupervisorGone { log: String::new() },
            }),
        }
    }

    /// The sandbox's id.
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// Where it is in its life now.
    ///
    /// # Errors
    /// Its supervisor is gone.
    pub async fn status(&mut self) -> Result<Status, SandboxError> {
        let next = self.statuses().await?.next().await;
        match next {
            Some(Ok(status)) => Ok(status),
            Some(Err(_)) | None => Err(self.gone().await),
        }
    }

    /// Where it is in its life: now, and after each change. Ends after a final state, or when the supervisor is gone.
    ///
    /// # Errors
    /// Its supervisor is gone.
    pub async fn statuses(&mut self) -> Result<Statuses, SandboxError> {
        match self.supervisor.watch(v1::WatchRequest {}).await {
            Ok(response) => Ok(Statuses::new(response.into_inner())),
            Err(_) => Err(self.gone().await),
        }
    }

    /// Waits until the agent answers, or the sandbox failed.
    ///
    /// # Errors
    /// The sandbox failed or ended, or its supervisor is gone.
    pub async fn running(&mut self) -> Result<Status, SandboxError> {
        self.wait_for(|status| {
            matches!(status.state, State::Running | State::Pausing | State::Paused | State::Resuming)
        })
        .await
    }

    /// Waits for a status of which this holds.
    async fn wait_for(&mut self, holds: impl Fn(&Status) -> bool) -> Result<Status, SandboxError> {
        let mut statuses = self.statuses().await?;
        while let Some(status) = statuses.next().await {
            let Ok(status) = status else { continue };
            if holds(&status) {
                return Ok(status);
            }
            if status.state.is_final() {
                return Err(failed(status));
            }
        }
        Err(self.gone().await)
    }

    /// Starts the main program, as soon as the agent answers.
    ///
    /// # Errors
    /// It cannot be started, or the sandbox refuses or is gone.
    pub async fn start_main(&mut self) -> Result<(), StartMainError> {
        let answer = self.supervisor.start_main(v1::StartMainRequest {}).await;
        let failure = self.answered(answer).await?.failure;
        if failure.is_empty() {
            return Ok(());
        }
        match start_failure_from_wire(&failure) {
            Some(failure) => Err(StartMainError::Failed(failure)),
            None => {
                Err(SandboxError::Refused { message: "for a reason of another version's".to_owned() }.into())
            }
        }
    }

    /// Makes the sandbox outlive this process. Nothing happens if it does not belong to it.
    ///
    /// # Errors
    /// The sandbox is gone.
    pub async fn release(&mut self) -> Result<(), SandboxError> {
        let answer = self.supervisor.release(v1::ReleaseRequest {}).await;
        self.answered(answer).await.map(drop)
    }

    /// Sends the main program a signal. SIGKILL ends the sandbox, paused or not.
    ///
    /// # Errors
    /// The sandbox refuses, or is gone.
    pub async fn kill(&mut self, signal: i32) -> Result<(), SandboxError> {
        let answer = self.supervisor.kill(v1::KillRequest { signal }).await;
        self.answered(answer).await.map(drop)
    }

    /// Ends the sandbox. Returns when nothing of it runs any more, and its last state is on the disk.
    ///
    /// # Errors
    /// Its supervisor does not answer.
    pub async fn stop(&mut self, options: StopOptions) -> Result<(), SandboxError> {
        let StopOptions { grace, signal, remove } = options;
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        // Shorter than any that can be said is still not at once.
        let grace_ms = if grace.is_zero() { 0 } else { grace_ms.max(1) };
        let request = v1::StopRequest { grace_ms, signal: signal.unwrap_or(0), remove };
        let answer = self.supervisor.stop(request).await;
        match self.answered(answer).await {
            // Gone meanwhile, which is what was asked for.
            Err(SandboxError::Failed(_)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Stops the guest's processors; its time stands still.
    ///
    /// # Errors
    /// The sandbox refuses, or is gone.
    pub async fn pause(&mut self) -> Result<(), SandboxError> {
        let answer = self.supervisor.pause(v1::PauseRequest {}).await;
        self.answered(answer).await.map(drop)
    }

    /// Asks the guest to keep no more than `mib` MiB of its machine's memory, or as much more as its programs hold; or lets it
    /// have that much again. Gives how many bytes it has then.
    ///
    /// # Errors
    /// The sandbox refuses, or is gone; its engine cannot.
    pub async fn set_memory(&mut self, mib: u64) -> Result<u64, SandboxError> {
        let answer = self.supervisor.set_memory(v1::SetMemoryRequest { mib }).await;
        Ok(self.changed(answer).await?.bytes)
    }

    /// As [`answered`](Self::answered); what was tried and failed is a refusal with its reason.
    async fn changed<T>(
        &mut self,
        answer: Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, SandboxError> {
        match answer {
            Err(status) if status.code() == tonic::Code::Aborted => {
                Err(SandboxError::Refused { message: status.message().to_owned() })
            }
            answer => self.answered(answer).await,
        }
    }

    /// Saves the sandbox as it is at one moment, and lets it go on. One that is paused stays so.
    ///
    /// # Errors
    /// It cannot be saved; the sandbox refuses, or is gone.
    pub async fn save(&mut self, request: SaveRequest) -> Result<SaveOutcome, SandboxError> {
        let answer = self.supervisor.save(v1::SaveRequest::from(request)).await;
        match answer {
            Err(status) if status.code() == tonic::Code::Aborted => {
                Err(SandboxError::NotSaved { why: status.message().to_owned() })
            }
            answer => Ok(self.answered(answer).await?.into()),
        }
    }

    /// Lets a paused guest go on, its clock set.
    ///
    /// # Errors
    /// The sandbox refuses, or is gone.
    pub async fn resume(&mut self) -> Result<(), SandboxError> {
        let answer = self.supervisor.resume(v1::ResumeRequest {}).await;
        self.answered(answer).await?;
        // The agent refused this session while it stood still.
        if std::mem::take(&mut self.was_paused)
            && let Ok(again) = reach(&self.path).await
            && let Some((session, supervisor)) = begin(again).await
        {
            (self.session, self.supervisor) = (session, supervisor);
        }
        Ok(())
    }

    /// The session with the agent.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Runs a program in it.
    ///
    /// # Errors
    /// As of [`Session::exec`]. Why a session was lost is told by [`cause`](Self::cause).
    pub async fn exec(&self, spec: ExecSpec) -> Result<Exec, ExecError> {
        self.session.exec(spec).await
    }

    /// Opens the main program's streams: its input if `stdin` is set, its standard error if `stderr` is. They begin with
    /// what it writes from then on.
    ///
    /// # Errors
    /// The session is lost.
    pub async fn main_stdio(&self, stdin: bool, stderr: bool) -> Result<Stdio, Lost> {
        self.session.stdio(ExecId::MAIN, stdin, stderr).await
    }

    /// Waits for the main program's end, however long that takes. All of its output has been read by then, and is on
    /// its way to the streams that were opened for it.
    ///
    /// # Errors
    /// The sandbox ended without it, or its supervisor is gone.
    pub async fn wait_main(&mut self) -> Result<ExitStatus, SandboxError> {
        let exit = |status: &Status| status.main.as_ref().and_then(|main| main.exit);
        let status = self.wait_for(|status| exit(status).is_some()).await?;
        exit(&status).ok_or_else(|| failed(status))
    }

    /// Why nothing can be asked of the sandbox any more: that it is paused, or its supervisor's last words.
    pub async fn cause(&mut self) -> SandboxError {
        match self.status().await {
            Ok(status) if matches!(status.state, State::Pausing | State::Paused) => {
                return SandboxError::Refused { message: Refusal::Paused.to_string() };
            }
            Ok(_) => {}
            Err(error) => return error,
        }
        let last = self.wait_for(|_| false);
        match tokio::time::timeout(SETTLE, last).await {
            Ok(Ok(status)) => failed(status),
            Ok(Err(error)) => error,
            // The sandbox lives, and yet what was asked of it is lost.
            Err(_) => SandboxError::Failed(Box::new(Failure::dropped())),
        }
    }

    /// Ends the sandbox at once, and waits until nothing of it runs.
    ///
    /// # Errors
    /// What its supervisor left cannot be cleared away.
    pub async fn end(mut self) -> Result<(), SandboxError> {
        let request = v1::StopRequest::default();
        _ = tokio::time::timeout(END, self.supervisor.stop(request)).await;
        let Self { session, supervisor, mut child, sandboxes, id, path, .. } = self;
        // Closing the connection lets a supervisor go that did not hear.
        drop((session, supervisor));
        if child.is_some() {
            reap(&mut child, &path).await;
        }
        match recovery::look(&sandboxes, &id) {
            Err(error) if !error.is_gone() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn answered<T>(
        &mut self,
        answer: Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, SandboxError> {
        match answer {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => match status.code() {
                tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument => {
                    Err(SandboxError::Refused { message: status.message().to_owned() })
                }
                _ => Err(self.gone().await),
            },
        }
    }

    /// What became of a sandbox whose supervisor does not answer any more.
    async fn gone(&mut self) -> SandboxError {
        let log = reap_unless_settled(&mut self.child, &self.path).await;
        let begun = Instant::now();
        loop {
            match recovery::look(&self.sandboxes, &self.id) {
                Ok(Some((_, record))) if !record.state.is_live() => {
                    return SandboxError::Failed(Box::new(Failure::of_record(&record)));
                }
                // Its supervisor is just ending.
                Ok(Some(_)) if begun.elapsed() < SETTLE => {}
                _ => return SandboxError::SupervisorGone { log },
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn failed(status: Status) -> SandboxError {
    SandboxError::Failed(Box::new(status.failure.unwrap_or_else(Failure::stopped)))
}
