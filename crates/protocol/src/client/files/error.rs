//! Owns how an operation on the guest's files fails.

use std::io;

use tonic::{Code, Status};

use super::super::calls::bounded;
use super::super::{CallError, Lost, Session};
use crate::call::ERRNO;

/// Linux has no larger one.
const MAX_ERRNO: i32 = 4095;

/// Why something could not be done with the guest's files.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FileError {
    /// The guest says why not.
    #[error("{message}")]
    Failed {
        /// The guest kernel's error number, if it was the kernel.
        errno: Option<i32>,
        /// The kind of error that this would be on the host.
        kind: io::ErrorKind,
        /// The guest's words, which name the path, cut to a bounded length.
        message: String,
    },
    /// The session is lost, or the agent silent.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl FileError {
    pub(super) fn lost(lost: Lost) -> Self {
        Self::Call(CallError::Lost(lost))
    }

    /// The guest broke the protocol of one transfer; the session may live on.
    pub(super) fn protocol(what: &str) -> Self {
        Self::lost(Lost::Protocol(what.to_owned()))
    }

    /// As the kinds of errors of this host's own files.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Failed { kind, .. } => *kind,
            Self::Call(CallError::Lost(_)) => io::ErrorKind::ConnectionAborted,
            Self::Call(CallError::NoAnswer { .. }) => io::ErrorKind::TimedOut,
            Self::Call(CallError::Refused { .. }) => io::ErrorKind::Other,
        }
    }

    /// What a failed call means. One that fails for the session's end fails a moment before that end is known.
    pub(super) async fn of(session: &Session, status: &Status) -> Self {
        let errno = status.metadata().get(ERRNO).and_then(|value| value.to_str().ok()?.parse::<i32>().ok());
        let errno = errno.filter(|errno| (1..=MAX_ERRNO).contains(errno));
        let lost = matches!(
            status.code(),
            Code::Ok | Code::Unknown | Code::Unavailable | Code::Cancelled | Code::Internal
        );
        if lost && errno.is_none() {
            return Self::lost(session.link.lost_because(status).await);
        }
        let kind = match errno {
            Some(errno) => io::Error::from_raw_os_error(errno).kind(),
            None => kind(status.code()),
        };
        Self::Failed { errno, kind, message: bounded(status.message()) }
    }
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        Self::new(error.kind(), error)
    }
}

fn kind(code: Code) -> io::ErrorKind {
    match code {
        Code::NotFound => io::ErrorKind::NotFound,
        Code::AlreadyExists => io::ErrorKind::AlreadyExists,
        Code::PermissionDenied => io::ErrorKind::PermissionDenied,
        Code::InvalidArgument => io::ErrorKind::InvalidInput,
        Code::Unimplemented => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    }
}
