//! The states of a sandbox as everyone sees them, and the reasons for which a request is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a sandbox is in its life. How it gets from one state to another is drawn in [`life`](crate::life).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was made and never started.
    Created,
    /// The machine boots; the agent was not heard yet.
    Starting,
    /// The agent answers.
    Running,
    /// The guest's processors are being stopped.
    Pausing,
    /// The guest's processors are stopped.
    Paused,
    /// The guest's processors are being set going again.
    Resuming,
    /// It is being saved, and stands still for a part of that.
    Saving,
    /// The machine is being ended.
    Stopping,
    /// The machine is gone, as it should be.
    Stopped,
    /// The machine is gone, and nobody asked it to be.
    Failed,
}

impl State {
    /// Whether its machine is gone for good: only a new start leads on.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }

    /// Whether a supervisor owns it.
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Created | Self::Stopped | Self::Failed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Saving => "saving",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        })
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// It boots.
    #[error("the sandbox is still starting")]
    Starting,
    /// Its guest stands still.
    #[error("the sandbox is paused; resume it first")]
    Paused,
    /// It is on its way from running to paused.
    #[error("the sandbox is just being paused")]
    Pausing,
    /// It is being saved.
    #[error("the sandbox is just being saved")]
    Saving,
    /// It is on its way from paused to running.
    #[error("the sandbox is just being resumed")]
    Resuming,
    /// It runs, and was to be resumed.
    #[error("the sandbox is not paused")]
    NotPaused,
    /// It is being ended.
    #[error("the sandbox is stopping")]
    Stopping,
    /// It is gone.
    #[error("the sandbox has ended")]
    Ended,
    /// It was made without a main program.
    #[error("the sandbox has no main program")]
    NoMain,
    /// Its main program was not started yet, or could not be.
    #[error("the sandbox's main program does not run")]
    MainNotRunning,
    /// Its main program was started before.
    #[error("the sandbox's main program was started already")]
    MainStarted,
}
