//! Runs any OCI image as its own Linux microVM: a cell for programs that nobody should have to trust.
//!
//! A [`Sandbox`] is one machine. Programs run in it through [`Command`], in the shape of `std::process::Command`; its files
//! are reached through [`Sandbox::files`]. Everything is asynchronous, on Tokio.
//!
// The examples need a guest: all tests compile them, and those that have one run them too.
#![cfg_attr(not(cellule_guest), doc = "```no_run")]
#![cfg_attr(cellule_guest, doc = "```")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), cellule::Error> {
//! use cellule::Sandbox;
//!
//! let sandbox = Sandbox::builder("base")?.start().await?;
//! let output = sandbox.command("uname").arg("-s").output().await?;
//! assert_eq!(output.stdout, b"Linux\n");
//! sandbox.end().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What belongs to whom:
//!
//! | value | dropped |
//! |---|---|
//! | [`Sandbox`] that was started here | the sandbox ends, and is removed unless [`Builder::remove_when_ended`] says otherwise |
//! | [`Sandbox`] that was started here and [detached](Sandbox::detach), or connected to | nothing happens to the sandbox |
//! | [`Child`] | the program and all it started are killed, unless [detached](Child::detach) |
//! | [`FileWriter`] that was not finished | the file is as it was |
//!
//! A sandbox needs the `cellule` program on this host, which supervises it: see [`Host`].
#![forbid(unsafe_code)]

mod admission;
mod builder;
mod command;
mod copy;
mod environment;
mod error;
mod fork;
mod get;
mod host;
mod inspect;
mod logs;
pub mod network;
mod pool;
mod process;
mod sandbox;
pub mod secrets;
mod signal;
mod snapshot;
mod stats;

pub use builder::{Builder, Prepared, Progress, Stdin};
pub use cellule_engine::EngineChoice;
pub use cellule_image::{Options as ImageOptions, Policy};
pub use cellule_protocol::client::files::{
    DirEntry, FileError, FileInfo, FileKind, FileReader, FileWriter, Files, ReadRange, TarInOptions,
    TarSummary, TarWriter, Watch, WatchEvent, WriteOptions,
};
pub use cellule_protocol::client::{
    AttachEvent, AttachSpec, Attachment, ExecId, ExecInfo, Exit, ExitStatus, PortError, PortStream, Rlimit,
    StartFailure, StartFailureKind, Stdio, TerminalSize, Usage,
};
pub use cellule_snapshot::{
    Error as SnapshotError, Manifest, SavedFiles, Snapshot, SnapshotName, Snapshots, Template, TemplateId,
    TemplateState, Templates,
};
pub use cellule_supervisor::{
    DiskSize, Entry, GuestSecret, IdleAction, InvalidName, Journal, LogRecord, NamedNetwork, NetworkName,
    Networks, NetworksError, SandboxError, SandboxId, SandboxName, SaveOutcome, SavedSandbox, State, Status,
    StopOptions, Survey,
};
pub use command::{Child, Command, DEFAULT_OUTPUT_LIMIT, Output};
pub use environment::{InvalidVariable, Variables};
pub use error::Error;
pub use fork::Forked;
pub use get::base as add_base_image;
pub use host::Host;
pub use inspect::{
    Inspect, InspectExec, InspectExposed, InspectIdle, InspectImage, InspectJail, InspectMain, InspectMount,
    InspectNetwork, InspectPhase, InspectPort, InspectResources, InspectSecret, InspectStart,
};
pub use logs::{LogOptions, LogSource, Logs};
pub use pool::{Pool, PoolOptions, PoolStats, claim_in};
pub use process::RelativeWorkingDir;
pub use sandbox::Sandbox;
pub use signal::{InvalidSignal, Signal};
pub use snapshot::Snapshotted;
pub use stats::Stats;

use builder::ProgressSink;
