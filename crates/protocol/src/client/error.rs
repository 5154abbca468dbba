//! Owns the ways in which the host's side fails.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::v1;

/// Why no session began.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The byte stream failed.
    #[error("the byte stream to the guest failed before its agent answered")]
    Io(#[from] io::Error),
    /// The byte stream ended: the machine is gone.
    #[error("the guest hung up before its agent answered")]
    HungUp,
    /// Nobody answered.
    #[error("the guest's agent did not answer within {:.1} s ({discarded} bytes of something else came)", within.as_secs_f64())]
    NoAnswer {
        /// The limit that was set.
        within: Duration,
        /// Bytes that came and were no answer.
        discarded: u64,
    },
    /// What came was endless and no answer.
    #[error("what the guest sends is not the agent's protocol: no answer in its first {discarded} bytes")]
    NotAnAgent {
        /// Bytes that came and were no answer.
        discarded: u64,
    },
    /// No version of the protocol is served by both sides.
    #[error("the guest's agent speaks versions {agent:?} of the protocol, this program {host:?}")]
    Incompatible {
        /// What this build serves.
        host: RangeInclusive<u16>,
        /// What the agent says it serves.
        agent: RangeInclusive<u16>,
    },
    /// The session ended as soon as it had begun.
    #[error("the session ended as soon as it had begun")]
    Lost(#[source] Lost),
}

/// The session is over, and whatever was under way in it is lost: never a result, never an exit code.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Lost {
    /// The byte stream ended: the guest or its engine is gone, or the agent ended the session.
    #[error("the guest hung up")]
    HungUp,
    /// The byte stream failed.
    #[error("the byte stream to the guest failed")]
    Io(#[source] Arc<io::Error>),
    /// The guest sent what the protocol does not allow.
    #[error("the guest broke the protocol: {0}")]
    Protocol(String),
    /// This side dropped the session.
    #[error("the session was closed by this side")]
    Closed,
}

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The session is over.
    #[error("the session with the guest is lost")]
    Lost(#[source] Lost),
    /// The agent did not answer; the session lives.
    #[error("the guest's agent did not answer within {:.1} s", within.as_secs_f64())]
    NoAnswer {
        /// The limit that was set.
        within: Duration,
    },
    /// The agent refused.
    #[error("the guest's agent refused: {message}")]
    Refused {
        /// gRPC's kind of refusal.
        code: tonic::Code,
        /// The agent's words, cut to a bounded length.
        message: String,
    },
}

/// Why a program was not started.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecError {
    /// The guest says why not.
    #[error("the program cannot be started")]
    Failed(#[source] StartFailure),
    /// This session runs as many execs as it can.
    #[error("the guest runs {limit} programs for this session already")]
    TooMany {
        /// Execs that a session can run.
        limit: usize,
    },
    /// The session is lost, or the agent silent, or it refused the call as such.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why an exec was not joined.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AttachError {
    /// None of that id runs, or is kept.
    #[error("the guest has no such exec")]
    NoSuchExec,
    /// This session holds as many streams as it can.
    #[error(
        "the streams of this session to the guest, which are enough for {limit} programs, are all in use"
    )]
    TooMany {
        /// Execs that a session can run.
        limit: usize,
    },
    /// The session is lost, or the agent silent, or it refused the call as such.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why the guest could not start a program.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}{}{message}", field, if field.is_empty() { "" } else { ": " })]
pub struct StartFailure {
    /// What kind of reason; exit codes are made of it.
    pub kind: StartFailureKind,
    /// The field of the request at fault, as in `argv[3]`, or empty.
    pub field: String,
    /// The guest's words, cut to a bounded length.
    pub message: String,
    /// The guest kernel's error number, zero if it was not the kernel.
    pub errno: i32,
}

/// Kinds of [`StartFailure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailureKind {
    /// No such program: by custom exit code 127.
    NotFound,
    /// It is there and can't be executed: by custom exit code 126.
    NotExecutable,
    /// The image has no such user.
    UnknownUser,
    /// The image has no such group.
    UnknownGroup,
    /// The working directory is missing, no directory, or not to be entered.
    BadWorkingDirectory,
    /// A field of the request is malformed.
    InvalidArgument,
    /// The guest ran out of memory, processes or descriptors.
    ResourceExhausted,
    /// The machine has no root filesystem; the handshake said why.
    NoRootFilesystem,
    /// Anything else.
    Internal,
}

impl From<v1::StartFailure> for StartFailure {
    fn from(failure: v1::StartFailure) -> Self {
        use v1::start_failure::Kind;
        let kind = match failure.kind() {
            Kind::NotFound => StartFailureKind::NotFound,
            Kind::NotExecutable => StartFailureKind::NotExecutable,
            Kind::UnknownUser => StartFailureKind::UnknownUser,
            Kind::UnknownGroup => StartFailureKind::UnknownGroup,
            Kind::BadWorkingDirectory => StartFailureKind::BadWorkingDirectory,
            Kind::InvalidArgument => StartFailureKind::InvalidArgument,
            Kind::ResourceExhausted => StartFailureKind::ResourceExhausted,
            Kind::NoRootFilesystem => StartFailureKind::NoRootFilesystem,
            Kind::Internal | Kind::Unspecified => StartFailureKind::Internal,
        };
        Self {
            kind,
            field: super::calls::bounded(&failure.field),
            message: super::calls::bounded(&failure.message),
            errno: failure.errno,
        }
    }
}
