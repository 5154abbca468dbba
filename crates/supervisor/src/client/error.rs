//! Why something asked of a sandbox was not done.

use std::io;
use std::path::PathBuf;

use cellule_protocol::client::StartFailure;

use crate::directory::DirectoryError;
use crate::failure::Failure;

/// Why a sandbox was not started, does not do what it is asked, or is no more.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Its directory could not be made or changed.
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
    /// The supervisor is there, and cannot be reached.
    #[error("the sandbox's supervisor does not answer")]
    Unreachable {
        /// What the kernel said.
        source: io::Error,
    },
    /// The sandbox failed or ended, for a reason that its supervisor told.
    #[error("{}", .0.message)]
    Failed(Box<Failure>),
    /// The sandbox goes on, and was not saved.
    #[error("the sandbox was not saved: {why}")]
    NotSaved {
        /// The supervisor's words.
        why: String,
    },
    /// The sandbox does not do this now, for this reason.
    #[error("{message}")]
    Refused {
        /// The supervisor's words.
        message: String,
    },
}

/// Why a main program was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartMainError {
    /// The guest says why not.
    #[error("the main program cannot be started")]
    Failed(#[source] StartFailure),
    /// The sandbox refuses, or is gone.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}
