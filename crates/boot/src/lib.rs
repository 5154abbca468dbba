//! The boot bundle: the guest kernel (an ELF), its modules, the agent (in an initramfs) and the built-in base
//! image. All that a guest needs to boot without a registry.
//!
//! This crate owns how the bundle is made ([`setup`]), kept ([`Bundle`]) and checked ([`Bundle::verify`]). It must
//! never know of image stores, engines or supervisors: it hands out paths and values, and its callers boot them.
//!
//! ```text
//!  Debian's packages | the host's /boot | files      installed busybox | Debian's package
//!                 │                                              │
//!      kernels/<id>  kernel ELF + modules               bases/<id>  base.tar       caches: a new agent
//!                 └───────────────┬──────────────────────────────┘                 needs no network
//!        agent ───────────────────┤
//!                      bundles/<id>  kernel, initramfs, base.tar, manifest.json
//!                      bundles/current  names the one in use
//! ```
//!
//! Everything here blocks: asynchronous callers run it on a thread of its own.
#![forbid(unsafe_code)]

mod agent;
mod apt;
mod base;
mod bundle;
mod bzimage;
mod command;
mod deb;
mod decompress;
mod error;
mod initramfs;
mod lock;
mod modinfo;
mod modules;
mod progress;
mod setup;
mod source;
mod store;
mod vmlinux;

pub use agent::{AGENT, Agent};
pub use apt::AptError;
pub use base::{BaseError, ImageConfig};
pub use bundle::{Bundle, BundleContents, Current, Remake};
pub use bzimage::KernelError;
pub use command::CommandError;
pub use deb::DebError;
pub use decompress::DecompressError;
pub use error::{Error, Result};
pub use modinfo::ModuleError;
pub use modules::{ModuleRecord, Need, OPTIONAL_MODULES, REQUIRED_MODULES};
pub use progress::{OnProgress, Phase, Progress};
pub use setup::{ensure, setup};
pub use source::{KernelContents, KernelSource, SourceRecord};
pub use store::{Damage, FileRecord, Manifest};
