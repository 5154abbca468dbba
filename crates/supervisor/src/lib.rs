//! The one owner of a running sandbox: its directory, its machine, the stream to its agent, and its state.
//!
//! A sandbox has one supervisor process. Everything else, the command line included, is a client that talks to it. The
//! crate knows nothing of images: it gets paths of a kernel, an initramfs and a root filesystem.
//!
//! ```text
//!   client ── session ──▶ supervisor ── session ──▶ agent
//!                 │           │
//!                 │           └─ directory, machine, state          calls of kind "supervisor" end here,
//!                 └─ dropped or dead: the sandbox ends              all other streams pass through
//! ```
#![forbid(unsafe_code)]

mod client;
mod connection;
mod directory;
mod greeting;
mod machine;
mod pass_through;
mod process;
mod spec;
mod state;
mod status;

pub use client::{Sandbox, SandboxError};
pub use directory::{DirectoryError, SandboxDir, Sandboxes};
pub use process::{inherited, supervise};
pub use spec::{FORMAT, InvalidName, SandboxId, SandboxName, SandboxSpec, Tmpfs};
pub use state::{Admission, Event, Refusal, Request, State};
pub use status::{Failure, FailureKind, Phase, Status};
