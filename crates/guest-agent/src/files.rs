//! Owns the host's way to the files of this machine: reading, writing, trees, tars, and what changes.
//!
//! ```text
//!   call ────────┐
//!                ├──▶ transfer ◀──▶ two buffers ◀──▶ thread: file, tree, tar
//!   Data stream ─┘
//! ```
//! Nothing here runs on the agent's own thread but the moving of buffers: a slow disk or a large tree delays no signal.
//! Whatever the host asks for and whatever programs of the guest do to the tree meanwhile, an open never waits, a name never
//! leads where a link was put in the last moment, and memory does not grow with what is moved.

pub mod archive;
mod change;
mod copy;
mod failure;
mod list;
mod meta;
mod pack;
mod path;
mod pump;
mod read;
mod remove;
mod service;
mod transfers;
mod unpack;
mod walk;
mod watch;
mod workers;
mod write;

pub(crate) use self::service::Service;
pub(crate) use self::transfers::Transfers;
pub(crate) use self::workers::Workers;
