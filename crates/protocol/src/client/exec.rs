//! Owns one exec from the host's side.
//!
//! ```text
//!   start ──▶ streams opened, call made ──┬─▶ started ──┬─▶ exited          a result
//!                                         │             └─▶ session lost    no result, ever
//!                                         └─▶ failed                        the reason
//! ```
//! Dropping a [`Process`] before its exit kills the exec with everything that it started.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tonic::Streaming;

use super::calls::bounded;
use super::driver::Link;
use super::{
    CallError, ExecError, ExecId, ExecSpec, Exit, ExitStatus, HostStream, Lost, MAX_EXECS, Output, Session,
    StartFailure, Stdin, Stdio, TerminalSize, Usage,
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
    /// Its standard error; none if it has a terminal, whose output is the one above.
    pub stderr: Option<Output>,
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
    exec_id: ExecId,
    session: Session,
}

impl Session {
    /// Starts a program, and returns when it runs. It is this session's: it is killed when its [`Process`] is dropped or
    /// the session ends, unless it is [detached](Self::detach) before.
    ///
    /// # Errors
    /// When it cannot be started, with the reason; when the session is lost or the agent does not answer in time.
    pub async fn exec(&self, spec: ExecSpec) -> Result<Exec, ExecError> {
        let exec_id = ExecId::random();
        let lost = |lost| ExecError::Call(CallError::Lost(lost));
        let wanted = Wanted { stdin: spec.stdin, stdout: true, stderr: spec.terminal.is_none() };
        let mut room = self.link.reserve(wanted.count()).ok_or(ExecError::TooMany { limit: MAX_EXECS })?;
        let streams = open(&self.link, exec_id.0, wanted, &mut room).await.map_err(lost)?;
        let (pid, events) = start(self, request(exec_id, spec, false)).await?;
        let stdout = streams.stdout.ok_or_else(|| lost(Lost::Closed))?;
        Ok(Exec {
            stdin: streams.stdin.map(Stdin::new),
            stdout: Output::new(stdout),
            stderr: streams.stderr.map(Output::new),
            process: Process { pid, events, end: None, signaller: self.signaller(exec_id) },
        })
    }

    /// Starts a program as [`exec`](Self::exec) does, all of whose standard streams are `/dev/null`. Whether `spec` asks for
    /// an input makes no difference.
    ///
    /// # Errors
    /// As of [`Self::exec`]; and if `spec` asks for a terminal.
    pub async fn exec_without_output(&self, spec: ExecSpec) -> Result<Process, ExecError> {
        let exec_id = ExecId::random();
        let request = request(exec_id, ExecSpec { stdin: false, ..spec }, false);
        let request = v1::ExecRequest { discard_output: true, ..request };
        let (pid, events) = start(self, request).await?;
        Ok(Process { pid, events, end: None, signaller: self.signaller(exec_id) })
    }

    /// Starts a program that nobody owns, and returns its number in the guest when it runs. It outlives this session,
    /// and is kept after its exit, with the last of its output, until it is [forgotten](Self::forget) or too many are kept.
    ///
    /// # Errors
    /// As of [`Self::exec`]. When the session is lost, it may run or not: [`Self::execs`] tells.
    pub async fn exec_detached(&self, id: ExecId, spec: ExecSpec) -> Result<u32, ExecError> {
        let (pid, _events) = start(self, request(id, spec, true)).await?;
        Ok(pid)
    }

    /// Opens the standard streams of an exec and makes no call: for a supervisor that joins them to an exec itself.
    ///
    /// # Errors
    /// When the session is lost, or holds as many streams as it can.
    pub async fn stdio(&self, id: ExecId, stdin: bool, stderr: bool) -> Result<Stdio, Lost> {
        let wanted = Wanted { stdin, stdout: true, stderr };
        let room = self.link.reserve(wanted.count());
        let mut room = room.ok_or_else(|| Lost::Protocol("no room for another stream".to_owned()))?;
        let streams = open(&self.link, id.0, wanted, &mut room).await?;
        Ok(Stdio {
            stdin: streams.stdin.map(Stdin::new),
            stdout: Output::new(streams.stdout.ok_or(Lost::Closed)?),
            stderr: streams.stderr.map(Output::new),
        })
    }

    fn signaller(&self, exec_id: ExecId) -> Signaller {
        Signaller { exec_id, session: self.clone() }
    }
}

/// A call that answers with events. On the heap, since such futures are large and futures of callers hold them.
type EventsCall<'a> = Pin<
    Box<dyn Future<Output = Result<tonic::Response<Streaming<v1::ExecEvent>>, tonic::Status>> + Send + 'a>,
>;

/// Which standard streams are opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

impl Wanted {
    pub(super) fn count(self) -> usize {
        usize::from(self.stdin) + usize::from(self.stdout) + usize::from(self.stderr)
    }
}

/// Standard streams as they were opened.
pub(super) struct Opened {
    pub(super) stdin: Option<HostStream>,
    pub(super) stdout: Option<HostStream>,
    pub(super) stderr: Option<HostStream>,
}

/// Opens the streams of an exec, or of an attachment.
pub(super) async fn open(
    link: &Arc<Link>,
    id: u64,
    wanted: Wanted,
    room: &mut OwnedSemaphorePermit,
) -> Result<Opened, Lost> {
    let mut opened = Opened { stdin: None, stdout: None, stderr: None };
    for (wanted, kind, stream) in [
        (wanted.stdin, StreamKind::Stdin, &mut opened.stdin),
        (wanted.stdout, StreamKind::Stdout, &mut opened.stdout),
        (wanted.stderr, StreamKind::Stderr, &mut opened.stderr),
    ] {
        if wanted {
            *stream = Some(link.open(StreamHeader { kind, id }, room).await?);
        }
    }
    Ok(opened)
}

/// Makes the call and waits for the program to run.
async fn start(
    session: &Session,
    request: v1::ExecRequest,
) -> Result<(u32, Streaming<v1::ExecEvent>), ExecError> {
    let mut client = session.client.clone();
    let (events, event) = session.first(Box::pin(async move { client.exec(request).await })).await?;
    match event {
        Event::Started(started) => Ok((started.pid, events)),
        Event::Failed(failure) => Err(ExecError::Failed(StartFailure::from(failure))),
        Event::Exited(_) | Event::Attached(_) | Event::Dropped(_) => {
            let lost = Lost::Protocol("an exec has news before it started".to_owned());
            Err(ExecError::Call(CallError::Lost(lost)))
        }
    }
}

impl Session {
    /// Makes a call that answers with events, and waits for the first of them.
    pub(super) async fn first(
        &self,
        call: EventsCall<'_>,
    ) -> Result<(Streaming<v1::ExecEvent>, Event), CallError> {
        let within = self.answer;
        let first = async {
            let mut events = self.call(call).await?;
            let event = next_event(&self.link, &mut events).await.map_err(CallError::Lost)?;
            Ok::<_, CallError>((events, event))
        };
        tokio::time::timeout(within, first).await.map_err(|_| CallError::NoAnswer { within })?
    }
}

impl Process {
    /// What it is called, in this session and any other.
    pub fn id(&self) -> ExecId {
        self.signaller.exec_id
    }

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
        let end = loop {
            match next_event(&self.signaller.session.link, &mut self.events).await {
                Ok(Event::Exited(exited)) => break exit_status(&exited),
                // Its output is dropped only once it was detached, and then this end is not the one to ask.
                Ok(Event::Dropped(_)) => {}
                Ok(_) => break Err(Lost::Protocol("an exec started twice".to_owned())),
                Err(lost) => break Err(lost),
            }
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
        self.session.signal(self.exec_id, signal, false).await
    }

    /// Sends `signal` to every process of the exec. Returns whether its main process was still there.
    ///
    /// # Errors
    /// When the session is lost, or the agent silent, or there is no such signal.
    pub async fn signal_all(&self, signal: i32) -> Result<bool, CallError> {
        self.session.signal(self.exec_id, signal, true).await
    }

    /// Tells the exec's terminal its size. Returns whether it was still there.
    ///
    /// # Errors
    /// When the session is lost, or the agent silent, or the exec has no terminal.
    pub async fn resize(&self, size: TerminalSize) -> Result<bool, CallError> {
        self.session.resize(self.exec_id, size).await
    }
}

pub(super) async fn next_event(
    link: &Arc<Link>,
    events: &mut Streaming<v1::ExecEvent>,
) -> Result<Event, Lost> {
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

fn request(exec_id: ExecId, spec: ExecSpec, detached: bool) -> v1::ExecRequest {
    // Zero on the wire is "no limit", so the shortest limit is a millisecond.
    let timeout_ms = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
    let file = |file: super::StagedFile| v1::StagedFile {
        path: file.path,
        content: file.content,
        mode: file.mode.unwrap_or(0),
    };
    let rlimit = |limit: super::Rlimit| v1::Rlimit {
        name: limit.name,
        soft: limit.soft.unwrap_or(u64::MAX),
        hard: limit.hard.unwrap_or(u64::MAX),
    };
    v1::ExecRequest {
        exec_id: exec_id.0,
        argv: spec.argv,
        env: spec.env,
        cwd: spec.cwd,
        create_cwd: spec.create_cwd,
        user: spec.user,
        groups: spec.groups,
        stdin: spec.stdin,
        timeout_ms: spec.timeout.map_or(0, timeout_ms),
        terminal: spec.terminal.map(v1::TerminalSize::from),
        detached,
        lossless: spec.lossless,
        files: spec.files.into_iter().map(file).collect(),
        then: spec.then.into_iter().map(|argv| v1::Argv { argv }).collect(),
        rlimits: spec.rlimits.into_iter().map(rlimit).collect(),
        discard_output: false,
    }
}

impl From<TerminalSize> for v1::TerminalSize {
    fn from(size: TerminalSize) -> Self {
        Self { rows: size.rows.into(), columns: size.columns.into() }
    }
}

/// What the guest says of an exit, if it is one.
///
/// # Errors
/// When it names neither a code nor a signal that Linux has: the program's fate is unknown.
pub fn exit_status(exited: &v1::Exited) -> Result<ExitStatus, Lost> {
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
            memory_peak: exited.memory_peak_bytes,
            cpu: Duration::from_micros(exited.cpu_us),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_that_says_nothing_is_no_success() {
        for how in
            [None, Some(How::Code(256)), Some(How::Code(-1)), Some(How::Signal(0)), Some(How::Signal(65))]
        {
            let exited = v1::Exited { how, ..v1::Exited::default() };
            assert!(matches!(exit_status(&exited), Err(Lost::Protocol(_))), "{how:?}");
        }
    }

    #[test]
    fn a_code_keeps_all_of_its_bits_and_a_signal_is_no_code() {
        for (how, exit) in [(How::Code(255), Exit::Code(255)), (How::Signal(64), Exit::Signal(64))] {
            let exited = v1::Exited { how: Some(how), ..v1::Exited::default() };
            assert_eq!(exit_status(&exited).unwrap().exit, exit);
        }
    }
}
