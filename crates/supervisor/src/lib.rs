//! The one owner of a running sandbox: its directory, its machine, the stream to its agent, and its state.
//!
//! A sandbox has one supervisor process. Everything else, the command line included, is a client that talks to it. The
//! crate knows nothing of images: it gets paths of a kernel, an initramfs and a root filesystem.
//!
//! ```text
//!   owner ──── session ──▶ supervisor ── session ──▶ agent
//!   clients ── session ──▶    │    │
//!                             │    └─ calls of kind "supervisor" end here, as do the main program's streams;
//!                             │       all others pass through
//!                             └─ directory, machine, state, logs, journal
//! ```
//!
//! The owner is the process that started the sandbox. Until it releases it, its death is the sandbox's end.
#![forbid(unsafe_code)]

mod activity;
mod agent_log;
mod client;
mod connection;
mod directory;
mod disk;
pub mod document;
mod failure;
mod greeting;
mod hub;
mod inherited;
mod journal;
mod life;
mod listener;
mod log;
mod machine;
mod main_program;
mod name;
mod names;
mod network;
mod networks;
mod process;
mod record;
mod recorder;
mod recovery;
mod sandboxes;
mod save;
mod saved;
mod secrets;
mod service;
mod spec;
mod standby;
mod state;
mod status;
mod warm;

pub use client::{Sandbox, SandboxError, Slot, SlotNews, StartMainError, Statuses, StopOptions};
pub use directory::{DirectoryError, LOGS, SandboxDir};
pub use disk::{DiskSize, InvalidDiskSize, formatter};
pub use document::DocumentError;
pub use failure::{Failure, FailureKind};
pub use inherited::inherited;
pub use journal::{Action, Event, Follower, Journal};
pub use log::{
    AGENT_LOG, CONSOLE_LOG, LogReader, LogRecord, LogStart, MAIN_LOG, NETWORK_LOG, SUPERVISOR_LOG,
};
pub use name::{InvalidName, NetworkName, SandboxId, SandboxName};
pub use network::NetworkSpec;
pub use networks::{NamedNetwork, Networks, NetworksError};
pub use process::supervise;
pub use record::{ExitRecord, MainRecord, PhaseRecord, ProcessRecord, Record, StartRecord};
pub use sandboxes::{Entry, FindError, Sandboxes, Survey};
pub use save::{SaveOutcome, SaveRequest};
pub use saved::{SavedMain, SavedSandbox};
pub use secrets::{GuestSecret, SecretValues};
pub use spec::{
    FORMAT, IdleAction, IdleRule, MainSpec, MainStdin, SandboxSpec, TemplateCache, Tmpfs, WarmUp,
};
pub use standby::stand_by;
pub use state::{Refusal, State};
pub use status::{MainStatus, Phase, Status, UnknownStatus};
