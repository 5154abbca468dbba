//! Owns one exec from the host's side.
//!
//! ```text
//!   start ──▶ streams opened, call made ──┬─▶ started ──┬─▶ exited          a result
//!                                         │             └─▶ session lost    no result, ever
//!                                         └─▶ failed                        the reason
//! ```
//! Dropping a [`Process`] before its exit kills the exec with everything that it started.

use std::sync::Arc;
use std::time::Duration;

use tonic::Streaming;

use super::calls::{AgentClient, bounded};
use super::driver::Link;
use super::{
    CallError, ExecError, ExecSpec, Exit, ExitStatus, Lost, MAX_EXECS, Output, STREAMS_PER_EXEC, Session,
    StartFailure, Stdin, Usage,
};
use crate::stream::{StreamHeader, StreamKind};
use crate::v1;
use crate::v1::exec_event::Event;
use crate::v1::exited::How;

/// A program that runs in the guest.
#[derive(Debug)]
pub struct Exec {
    /// Its standard input, if [`ExecSpec::stdin`] asked for one.
    pub stdin: Option<Stdin>,
    /// Its standard output.
    pub stdout: Output,
    /// Its standard error.
    pub stderr: Output,
    /// The program itself.
    pub process: Process,
}

/// The process of an exec. Dropped before its exit, it kills the exec.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    events: Streaming<v1::ExecEvent>,
    end: Option<Result<ExitStatus, Lost>>,
    signaller: Signaller,
}

/// Sends signals to an exec, whoever waits for it meanwhile.
#[derive(Debug, Clone)]
pub struct Signaller {
    exec_id: u64,
    session: Session,
}

pub(super) async fn start(session: &Session, exec_id: u64, spec: ExecSpec) -> Result<Exec, ExecError> {
    let link = &session.link;
    let lost = |lost| ExecError::Call(CallError::Lost(lost));
    let mut room = link.reserve(STREAMS_PER_EXEC).ok_or(ExecError::TooMany { limit: MAX_EXECS })?;
    let header = |kind| StreamHeader { kind, exec_id };
    let stdin = if spec.stdin {
        Some(link.open(header(StreamKind::Stdin), &mut room).await.map_err(lost)?)
    } else {
        None
    };
    let stdout = link.open(header(StreamKind::Stdout), &mut room).await.map_err(lost)?;
    let stderr = link.open(header(StreamKind::Stderr), &mut room).await.map_err(lost)?;

    let request = request(exec_id, spec);
    let mut client = session.client.clone();
    let within = session.answer;
    let first = async {
        let mut events = session.call(async move { client.exec(request).await }).await?;
        let event = next_event(link, &mut events).await.map_err(CallError::Lost)?;
        Ok::<_, CallError>((events, event))
    };
    let (events, event) =
        tokio::time::timeout(within, first).await.map_err(|_| CallError::NoAnswer { within })??;
    let pid = match event {
        Event::Started(started) => started.pid,
        Event::Failed(failure) => return Err(ExecError::Failed(StartFailure::from(failure))),
        Event::Exited(_) => return Err(lost(Lost::Protocol("an exec exited before it started".to_owned()))),
    };
    let signaller = Signaller { exec_id, session: session.clone() };
    Ok(Exec {
        stdin: stdin.map(Stdin::new),
        stdout: Output::new(stdout),
        stderr: Output::new(stderr),
        process: Process { pid, events, end: None, signaller },
    })
}

impl Process {
    /// Its number in the guest.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the program's exit, however long that takes. Further calls return the same again.
    ///
    /// The exit may be known before all output was read. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// When the session is lost first: the program's fate is unknown.
    pub async fn wait(&mut self) -> Result<ExitStatus, Lost> {
        if let Some(end) = &self.end {
            return end.clone();
        }
        let end = match next_event(&self.signaller.session.link, &mut self.events).await {
            Ok(Event::Exited(exited)) => status(&exited),
            Ok(_) => Err(Lost::Protocol("an exec started twice".to_owned())),
            Err(lost) => Err(lost),
        };
        self.end.insert(end).clone()
    }

    /// A handle that sends signals while this one waits.
    pub fn signaller(&self) -> Signaller {
        self.signaller.clone()
    }
}

impl Signaller {
    /// Sends `signal` to the main process. Returns whether it was still there.
    ///
    /// # Errors
    /// When the session is lost, or the agent silent, or there is no such signal.
    pub async fn signal(&self, signal: i32) -> Result<bool, CallError> {
        self.send(signal, false).await
    }

    /// Sends `signal` to every process of the exec. Returns whether its main process was still there.
    ///
    /// # Errors
    /// When the session is lost, or the agent silent, or there is no such signal.
    pub async fn signal_all(&self, signal: i32) -> Result<bool, CallError> {
        self.send(signal, true).await
    }

    async fn send(&self, signal: i32, whole_exec: bool) -> Result<bool, CallError> {
        let request = v1::SignalRequest { exec_id: self.exec_id, signal, whole_exec };
        let mut client: AgentClient = self.session.client.clone();
        match self.session.call(async move { client.signal(request).await }).await {
            Ok(_) => Ok(true),
            Err(CallError::Refused { code: tonic::Code::NotFound, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

async fn next_event(link: &Arc<Link>, events: &mut Streaming<v1::ExecEvent>) -> Result<Event, Lost> {
    let message = tokio::select! {
        // An event that came before the end counts.
        biased;
        message = events.message() => message,
        lost = link.ended() => return Err(lost),
    };
    match message {
        Ok(Some(v1::ExecEvent { event: Some(event) })) => Ok(event),
        Ok(Some(v1::ExecEvent { event: None })) => {
            Err(Lost::Protocol("an event of no known kind".to_owned()))
        }
        // Without the session's end, the agent has dropped the call: also no result.
        Ok(None) => Err(link.lost_because(&tonic::Status::internal("an exec's events ended early")).await),
        Err(status) => Err(link.lost_because(&status).await),
    }
}

fn request(exec_id: u64, spec: ExecSpec) -> v1::ExecRequest {
    // Zero on the wire is "no limit", so the shortest limit is a millisecond.
    let timeout_ms = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
    v1::ExecRequest {
        exec_id,
        argv: spec.argv,
        env: spec.env,
        cwd: spec.cwd,
        create_cwd: spec.create_cwd,
        user: spec.user,
        groups: spec.groups,
        stdin: spec.stdin,
        timeout_ms: spec.timeout.map_or(0, timeout_ms),
    }
}

fn status(exited: &v1::Exited) -> Result<ExitStatus, Lost> {
    let exit = match exited.how {
        Some(How::Code(code)) => u8::try_from(code).ok().map(Exit::Code),
        Some(How::Signal(signal)) if (1..=64).contains(&signal) => Some(Exit::Signal(signal)),
        Some(How::Signal(_)) | None => None,
    };
    let exit = exit.ok_or_else(|| Lost::Protocol(bounded(&format!("no exit status: {:?}", exited.how))))?;
    Ok(ExitStatus {
        exit,
        core_dumped: exited.core_dumped,
        timed_out: exited.timed_out,
        oom_killed: exited.oom_killed,
        usage: Usage {
            max_rss: exited.max_rss_bytes,
            user: Duration::from_micros(exited.user_us),
            system: Duration::from_micros(exited.system_us),
        },
    })
}
