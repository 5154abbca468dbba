//! Owns what is asked of execs by their id, and what is listed of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tonic::{Code, Response, Status};

use super::calls::MAX_LISTING;
use super::exec::exit_status;
use super::{CallError, ExecId, ExitStatus, Session, TerminalSize};
use crate::v1;

/// More than an agent runs and keeps together.
const MAX_EXECS_LISTED: usize = 4096;

/// An exec that runs, or a detached one that ended and is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecInfo {
    /// What it is called.
    pub id: ExecId,
    /// Its program and arguments, cut to a bounded length.
    pub argv: Vec<Vec<u8>>,
    /// The number of its main process in the guest.
    pub pid: u32,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether nobody owns it.
    pub detached: bool,
    /// By the guest's clock.
    pub started: SystemTime,
    /// None while it runs.
    pub exited: Option<ExitStatus>,
    /// What it has written to its standard output so far.
    pub stdout_bytes: u64,
    /// How much of the beginning of that is dropped.
    pub stdout_dropped: u64,
    /// What it has written to its standard error so far.
    pub stderr_bytes: u64,
    /// How much of the beginning of that is dropped.
    pub stderr_dropped: u64,
}

impl Session {
    /// The execs that run, of whatever session, and the detached ones that ended and are kept; the oldest first.
    ///
    /// # Errors
    /// When the session is lost or the agent does not answer within its limit.
    pub async fn execs(&self) -> Result<Vec<ExecInfo>, CallError> {
        let mut client = self.client.clone().max_decoding_message_size(MAX_LISTING);
        let listed = self.call(async move { client.list_execs(v1::ListExecsRequest {}).await }).await?;
        let listed = listed.execs.into_iter().take(MAX_EXECS_LISTED);
        listed.map(|exec| ExecInfo::try_from(exec).map_err(CallError::Lost)).collect()
    }

    /// Sends `signal` to the main process of an exec, or to all of its processes. Returns whether it was still there.
    ///
    /// # Errors
    /// When the session is lost, or the agent silent, or there is no such signal.
    pub async fn signal(&self, id: ExecId, signal: i32, whole_exec: bool) -> Result<bool, CallError> {
        let request = v1::SignalRequest { exec_id: id.0, signal, whole_exec };
        let mut client = self.client.clone();
        self.found(async move { client.signal(request).await }).await
    }

    /// Tells the terminal of an exec its size. Returns whether the exec was still there.
    ///
    /// # Errors
    /// When the session is lost, or the agent silent, or the exec has no terminal.
    pub async fn resize(&self, id: ExecId, size: TerminalSize) -> Result<bool, CallError> {
        let request = v1::ResizeRequest { exec_id: id.0, size: Some(size.into()) };
        let mut client = self.client.clone();
        self.found(async move { client.resize(request).await }).await
    }

    /// Makes an exec a detached one, which nobody owns. Returns whether it was still there.
    ///
    /// # Errors
    /// When the session is lost or the agent does not answer within its limit.
    pub async fn detach(&self, id: ExecId) -> Result<bool, CallError> {
        let mut client = self.client.clone();
        self.found(async move { client.detach(v1::DetachRequest { exec_id: id.0 }).await }).await
    }

    /// Says that nobody will read an output of a detached exec any more, which is then a closed pipe to it. Returns whether
    /// the exec was still there.
    ///
    /// # Errors
    /// When the session is lost or the agent does not answer within its limit.
    pub async fn close_output(&self, id: ExecId, stderr: bool) -> Result<bool, CallError> {
        let mut client = self.client.clone();
        let request = v1::CloseOutputRequest { exec_id: id.0, stderr };
        self.found(async move { client.close_output(request).await }).await
    }

    /// Drops what is kept of a detached exec that ended. Returns whether anything was.
    ///
    /// # Errors
    /// When the session is lost, or the agent silent, or the exec still runs.
    pub async fn forget(&self, id: ExecId) -> Result<bool, CallError> {
        let mut client = self.client.clone();
        self.found(async move { client.forget(v1::ForgetRequest { exec_id: id.0 }).await }).await
    }

    /// Makes a call, and returns whether what it names was there.
    async fn found<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<bool, CallError> {
        match self.call(call).await {
            Ok(_) => Ok(true),
            Err(CallError::Refused { code: Code::NotFound, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl TryFrom<v1::ExecInfo> for ExecInfo {
    type Error = super::Lost;

    fn try_from(exec: v1::ExecInfo) -> Result<Self, super::Lost> {
        let started = Duration::from_nanos(u64::try_from(exec.started_ns).unwrap_or(0));
        Ok(Self {
            id: ExecId(exec.exec_id),
            argv: exec.argv,
            pid: exec.pid,
            terminal: exec.terminal,
            detached: exec.detached,
            started: UNIX_EPOCH + started,
            exited: exec.exited.as_ref().map(exit_status).transpose()?,
            stdout_bytes: exec.stdout_bytes,
            stdout_dropped: exec.stdout_dropped,
            stderr_bytes: exec.stderr_bytes,
            stderr_dropped: exec.stderr_dropped,
        })
    }
}
