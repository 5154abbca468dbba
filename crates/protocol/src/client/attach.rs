//! Owns an attachment: one more reader, and perhaps writer, of an exec that runs or is kept.
//!
//! ```text
//!   attach ──▶ streams opened, call made ──┬─▶ attached ──┬─▶ dropped … ──▶ exited     the exec's exit
//!                                          │              └─▶ session lost             the exec may go on
//!                                          └─▶ no such exec
//! ```

use tonic::{Code, Streaming};

use super::exec::{Wanted, exit_status, next_event, open};
use super::{AttachError, CallError, ExecId, ExitStatus, Lost, MAX_EXECS, Output, Session, Stdin, id};
use crate::v1;
use crate::v1::exec_event::Event;

/// What of an exec to join.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachSpec {
    /// Whether to write to its standard input. Shutting it down ends the input for all; dropping it does not.
    pub stdin: bool,
    /// From which byte of its standard output to read; [`u64::MAX`] is from now on.
    pub stdout: Option<u64>,
    /// From which byte of its standard error to read. An exec with a terminal has none, which then ends at once.
    pub stderr: Option<u64>,
}

/// An exec that was joined. Dropping it leaves the exec alone.
#[derive(Debug)]
pub struct Attachment {
    /// Its standard input, if that was asked for.
    pub stdin: Option<Stdin>,
    /// Its standard output, if that was asked for.
    pub stdout: Option<Output>,
    /// Its standard error, if that was asked for.
    pub stderr: Option<Output>,
    /// The number of its main process in the guest.
    pub pid: u32,
    /// Where its standard output begins here: later than asked for where the rest was dropped.
    pub stdout_from: u64,
    /// The same of its standard error.
    pub stderr_from: u64,
    session: Session,
    events: Streaming<v1::ExecEvent>,
    end: Option<Result<ExitStatus, Lost>>,
}

/// What becomes known of an exec that was joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachEvent {
    /// This reader was slower than what the exec writes, and bytes are missing in one of its streams.
    Dropped {
        /// Whether in its standard error, else in its standard output.
        stderr: bool,
        /// Which byte of all that it wrote is the first one missing.
        offset: u64,
        /// How many are.
        bytes: u64,
    },
    /// It ended. What it wrote until then still comes.
    Exited(ExitStatus),
}

impl Session {
    /// Joins an exec, of whatever session, that runs or is kept.
    ///
    /// # Errors
    /// When there is none of that id; when the session is lost or the agent does not answer in time.
    pub async fn attach(&self, id: ExecId, what: AttachSpec) -> Result<Attachment, AttachError> {
        let wanted =
            Wanted { stdin: what.stdin, stdout: what.stdout.is_some(), stderr: what.stderr.is_some() };
        let lost = |lost| AttachError::Call(CallError::Lost(lost));
        let mut room = self.link.reserve(wanted.count()).ok_or(AttachError::TooMany { limit: MAX_EXECS })?;
        let attachment_id = id::random();
        let streams = open(&self.link, attachment_id, wanted, &mut room).await.map_err(lost)?;
        let request = v1::AttachRequest {
            exec_id: id.0,
            attachment_id,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            stdout_offset: what.stdout.unwrap_or(0),
            stderr_offset: what.stderr.unwrap_or(0),
        };
        let mut client = self.client.clone();
        let (events, event) = match self.first(Box::pin(async move { client.attach(request).await })).await {
            Ok(first) => first,
            Err(CallError::Refused { code: Code::NotFound, .. }) => return Err(AttachError::NoSuchExec),
            Err(error) => return Err(error.into()),
        };
        let Event::Attached(attached) = event else {
            return Err(lost(Lost::Protocol("an attachment has news before it is one".to_owned())));
        };
        Ok(Attachment {
            stdin: streams.stdin.map(Stdin::new),
            stdout: streams.stdout.map(Output::new),
            stderr: streams.stderr.map(Output::new),
            pid: attached.pid,
            stdout_from: attached.stdout_from,
            stderr_from: attached.stderr_from,
            session: self.clone(),
            events,
            end: None,
        })
    }
}

impl Attachment {
    /// Waits for what becomes known next. After the exit it is the exit, again and again.
    ///
    /// The exit may be known before all output was read. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// When the session is lost: the exec may go on, and can be joined again in another one.
    pub async fn next(&mut self) -> Result<AttachEvent, Lost> {
        if let Some(end) = &self.end {
            return end.clone().map(AttachEvent::Exited);
        }
        let end = match next_event(&self.session.link, &mut self.events).await {
            Ok(Event::Dropped(v1::Dropped { stderr, offset, bytes })) => {
                return Ok(AttachEvent::Dropped { stderr, offset, bytes });
            }
            Ok(Event::Exited(exited)) => exit_status(&exited),
            Ok(_) => Err(Lost::Protocol("an attachment began twice".to_owned())),
            Err(lost) => Err(lost),
        };
        self.end.insert(end).clone().map(AttachEvent::Exited)
    }
}
