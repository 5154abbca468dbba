//! Why something could not be done. No message repeats its source.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::{ConfigError, ExitReason, KernelProblem, Mismatch};

/// Why an engine can't be used on this host.
#[derive(Debug, thiserror::Error)]
pub enum EngineProblem {
    /// Its program is nowhere to be found.
    #[error("`{program}` is not installed")]
    NotInstalled {
        /// The name or the path that was looked for.
        program: PathBuf,
    },
    /// Its program is older than what this version works with.
    #[error("`{program}` has version {found}; at least {need} is needed")]
    TooOld {
        /// The program that was found.
        program: PathBuf,
        /// Its version.
        found: String,
        /// The oldest that will do.
        need: &'static str,
    },
    /// Its program can't be executed.
    #[error("`{program}` can't be executed")]
    NotExecutable {
        /// The program that was found.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its program runs but lacks what is needed, or doesn't answer as it should.
    #[error("`{program}` can't be used: {why}")]
    Unusable {
        /// The program that was found.
        program: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Why a machine was not launched. Whatever had been started is gone.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The engine can't be used on this host.
    #[error("the engine can't be used")]
    Unavailable(#[from] EngineProblem),
    /// The machine asked for can't be.
    #[error("the machine's configuration is wrong")]
    Config(#[from] ConfigError),
    /// The kernel can't be booted.
    #[error("the guest's kernel can't be booted")]
    Kernel(#[from] KernelProblem),
    /// What was saved can't go on here.
    #[error("the saved machine can't go on here")]
    Mismatch(#[from] Mismatch),
    /// What was saved can't be what the machine is to be restored from.
    #[error("the saved machine is damaged: {why}")]
    Damaged {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something in the machine's directory could not be made.
    #[error("can't make {path}")]
    Directory {
        /// The path that was to be made.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The host refused what the engine's process needs: descriptors, threads, memory.
    #[error("the host refused to {what}")]
    Host {
        /// What was asked of it.
        what: &'static str,
        /// Why it was refused.
        #[source]
        source: io::Error,
    },
    /// The engine's process ended while it started.
    #[error("the engine's process ended while it started ({status}): {stderr}")]
    Exited {
        /// Its exit code, or the signal that killed it.
        status: ExitStatus,
        /// The last of what it wrote to stderr.
        stderr: String,
    },
    /// The engine's process started but could not be talked to; it was killed.
    #[error("the engine's process does not answer as it should")]
    Control(#[from] ControlError),
}

/// Why a running machine didn't do what it was told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// The machine ended.
    #[error("the machine has ended: {0}")]
    Exited(ExitReason),
    /// The control channel is closed: the machine is about to end.
    #[error("the engine's process hung up")]
    Closed,
    /// No answer within the limit.
    #[error("no answer to `{command}` within {limit:?}")]
    Timeout {
        /// The command that was sent.
        command: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The engine answered with an error.
    #[error("`{command}` was refused: {message}")]
    Refused {
        /// The command that was sent.
        command: &'static str,
        /// The engine's words.
        message: String,
    },
    /// The engine's answer can't be understood.
    #[error("the answer to `{command}` can't be understood")]
    Malformed {
        /// The command that was sent.
        command: &'static str,
    },
}

/// Why a machine was not saved. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It runs: what it changes meanwhile would be in one part and not in the other.
    #[error("the machine is not paused")]
    NotPaused,
    /// The engine could not be told to.
    #[error("the engine does not answer as it should")]
    Control(#[from] ControlError),
    /// Its memory could not be read or kept.
    #[error("can't {what}")]
    Host {
        /// What was to be done.
        what: &'static str,
        /// Why it was not.
        #[source]
        source: io::Error,
    },
    /// The engine's own state has more than can be kept of it.
    #[error("the state of the machine's devices has {bytes} bytes")]
    TooLarge {
        /// How many it has.
        bytes: u64,
    },
}

/// Why no stream to the guest's program was opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The former stream is still open.
    #[error("the former stream to the guest is still open")]
    Busy,
    /// The machine ended.
    #[error("the machine has ended: {0}")]
    Exited(ExitReason),
    /// The socket can't be connected to.
    #[error("can't connect to {path}")]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}
