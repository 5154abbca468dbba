//! Owns the host's side of a session: beginning it, the calls, the execs, the files.
//!
//! Everything that comes from the guest is hostile here: bounded in bytes, checked in values. The guest can make this
//! side wait, up to the limits that the caller set, and it can end the session; it cannot make it hold more memory
//! than the windows of the streams that the host itself opened.

mod attach;
mod calls;
mod connect;
mod driver;
mod error;
mod exec;
mod execs;
pub mod files;
mod id;
mod insight;
mod port;
mod spec;
mod stdio;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite, BufStream};
use tonic::{Code, Status};

pub use self::attach::{AttachEvent, AttachSpec, Attachment};
use self::calls::AgentClient;
pub use self::calls::{Channel, SupervisorClient};
pub use self::driver::HostStream;
use self::driver::Link;
pub use self::error::{
    AttachError, CallError, ConnectError, ExecError, Lost, StartFailure, StartFailureKind,
};
pub use self::exec::{Exec, Process, Signaller, exit_status};
pub use self::execs::ExecInfo;
pub use self::id::{ExecId, InvalidExecId};
pub use self::insight::{Differences, LogLines};
pub use self::port::{PortError, PortStream};
pub use self::spec::{ExecSpec, Exit, ExitStatus, Rlimit, StagedFile, TerminalSize, Usage};
pub use self::stdio::{Output, Stdin, Stdio};
use crate::mux::{READ_SIZE, WRITE_SIZE};
use crate::stream::StreamHeader;
use crate::v1;
use crate::v1::handshake_request::Programs;

/// Execs that one session can run at a time.
pub const MAX_EXECS: usize = crate::mux::MAX_STREAMS / STREAMS_PER_EXEC;
const STREAMS_PER_EXEC: usize = 3;

/// How long the host waits for the guest.
///
/// A guest that is paused answers nothing: whoever pauses it must not call it.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Until the agent answers the preface; a guest that is still booting counts.
    pub connect: Duration,
    /// Until a call is answered. An exec's run time is not meant, only its start.
    pub answer: Duration,
    /// Whether a preface that stays unanswered is repeated. A port of a guest may have bytes of an earlier session in it,
    /// and lets nobody see where they end; a connection of one's own has none.
    pub repeat_preface: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(60), answer: Duration::from_secs(30), repeat_preface: true }
    }
}

fn wall_clock_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(0)
}

/// Whether all that was asked for was done.
fn done(answer: &v1::HandshakeResponse) -> Result<(), CallError> {
    match answer.problems.first() {
        Some(problem) => {
            let (code, message) = (Code::FailedPrecondition, calls::bounded(&problem.message));
            Err(CallError::Refused { code, message })
        }
        None => Ok(()),
    }
}

/// A session with the agent of one guest.
///
/// Clones are handles to the same session. It ends when the byte stream does, when the guest breaks the protocol, or
/// when the last handle, exec and stream of it is dropped.
#[derive(Debug, Clone)]
pub struct Session {
    link: Arc<Link>,
    client: AgentClient,
    channel: Channel,
    answer: Duration,
}

impl Session {
    /// Begins a session on `io`, which must be the agent's port or become it within `limits.connect`.
    ///
    /// Needs a Tokio runtime, which then also drives the session.
    ///
    /// # Errors
    /// When the byte stream fails, nobody answers in time, or the agent serves none of this build's versions.
    pub async fn connect<T>(io: T, limits: Limits) -> Result<Self, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut io = BufStream::with_capacity(READ_SIZE, WRITE_SIZE, io);
        connect::preface(&mut io, limits.connect, limits.repeat_preface).await?;
        let link = Arc::new(driver::start(io, limits.answer));
        let (client, channel) = calls::agent(&link);
        Ok(Self { link, client, channel, answer: limits.answer })
    }

    /// Sets the guest's clock and seeds its random numbers, from this host's, and applies `configuration`.
    ///
    /// The first call of every session; a guest that was restored must not run on without it. Read the answer's
    /// `problems`: a guest without a root filesystem answers too.
    ///
    /// # Errors
    /// When the session is lost or the agent does not answer within its limit.
    pub async fn handshake(
        &self,
        configuration: Option<v1::Configuration>,
    ) -> Result<v1::HandshakeResponse, CallError> {
        let mut entropy = vec![0; 64];
        // A host that has no random numbers to give leaves the guest with its own.
        if rustix::rand::getrandom(&mut entropy, rustix::rand::GetRandomFlags::empty()) != Ok(entropy.len()) {
            entropy.clear();
        }
        let request = v1::HandshakeRequest {
            wall_clock_ns: wall_clock_ns(),
            entropy,
            configuration,
            ..v1::HandshakeRequest::default()
        };
        let mut client = self.client.clone();
        self.call(async move { client.handshake(request).await }).await
    }

    /// Sets the guest's clock, and lets programs go on that were held.
    ///
    /// A guest that has just been restored translates each step of a call as it comes to it, so that the time in the first
    /// one is late by all of that; this one is on a beaten track.
    ///
    /// # Errors
    /// When some do not go on, the session is lost or the agent does not answer within its limit.
    pub async fn go_on(&self) -> Result<(), CallError> {
        let wall_clock_ns = wall_clock_ns();
        let programs = Programs::Released.into();
        let request = v1::HandshakeRequest { wall_clock_ns, programs, ..v1::HandshakeRequest::default() };
        done(&self.shake(request).await?)
    }

    /// Holds all programs, until [`go_on`](Self::go_on) lets them go on, in this guest and in each copy of it.
    ///
    /// # Errors
    /// When some do not stand still, the session is lost or the agent does not answer within its limit.
    pub async fn hold(&self) -> Result<(), CallError> {
        let programs = Programs::Held.into();
        done(&self.shake(v1::HandshakeRequest { programs, ..v1::HandshakeRequest::default() }).await?)
    }

    /// Has the guest read ahead what programs need first, for copies of it to have it at hand.
    ///
    /// # Errors
    /// When the session is lost or the agent does not answer within its limit.
    pub async fn read_ahead(&self) -> Result<(), CallError> {
        let request = v1::HandshakeRequest { read_ahead: true, ..v1::HandshakeRequest::default() };
        self.shake(request).await.map(drop)
    }

    async fn shake(&self, request: v1::HandshakeRequest) -> Result<v1::HandshakeResponse, CallError> {
        let mut client = self.client.clone();
        self.call(async move { client.handshake(request).await }).await
    }

    /// Opens one more stream, for whoever knows what goes over it.
    ///
    /// # Errors
    /// When the session is lost, or holds as many streams as it can.
    pub async fn open(&self, header: StreamHeader) -> Result<HostStream, Lost> {
        let room = self.link.reserve(1);
        let mut room = room.ok_or_else(|| Lost::Protocol("no room for another stream".to_owned()))?;
        self.link.open(header, &mut room).await
    }

    /// Calls to the supervisor, if that is what the session leads to. They have no limit but those of whoever makes them.
    pub fn supervisor(&self) -> SupervisorClient {
        calls::supervisor(&self.link)
    }

    /// What the guest is doing; also the way to learn whether its agent answers.
    ///
    /// # Errors
    /// When the session is lost or the agent does not answer within its limit.
    pub async fn status(&self) -> Result<v1::StatusResponse, CallError> {
        let mut client = self.client.clone();
        self.call(async move { client.status(v1::StatusRequest {}).await }).await
    }

    /// Ends the guest's processes, at first with SIGTERM and `grace` to obey it, and powers it off.
    ///
    /// Returns when the agent has begun; the machine's end shows on the engine's side.
    ///
    /// # Errors
    /// When the session is lost or the agent does not answer within its limit.
    pub async fn power_off(&self, grace: Duration) -> Result<(), CallError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let mut client = self.client.clone();
        self.call(async move { client.power_off(v1::PowerOffRequest { grace_ms }).await }).await?;
        Ok(())
    }

    /// Waits until the session is over and says why. Cancelling it loses nothing.
    pub async fn ended(&self) -> Lost {
        self.link.ended().await
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, CallError> {
        tokio::select! {
            // An answer that came before the end counts.
            biased;
            answer = tokio::time::timeout(self.answer, call) => match answer {
                Err(_) => Err(CallError::NoAnswer { within: self.answer }),
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(self.failure(&status).await),
            },
            lost = self.ended() => Err(CallError::Lost(lost)),
        }
    }

    /// What a failed call means. A call that fails for the session's end fails a moment before that end is known.
    async fn failure(&self, status: &Status) -> CallError {
        match status.code() {
            Code::Unknown | Code::Unavailable | Code::Cancelled | Code::Internal => {
                CallError::Lost(self.link.lost_because(status).await)
            }
            code => CallError::Refused { code, message: calls::bounded(status.message()) },
        }
    }
}
