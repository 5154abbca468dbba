//! PID 1 inside the guest: makes the machine ready, then serves the host's sessions.
//!
//! Owns the guest: its mounts, its processes, its power. It knows of the host only what the protocol says, and must
//! never know what engine or image it runs on. Whatever comes over the port, through a file of the image or from a
//! process is answered or refused; nothing of it ends this program.
//!
//! ```text
//!   boot ──▶ port: wait for a host ──▶ wire: wait for a preface ──▶ session: streams and calls ──┐
//!                  ▲                          ▲                                                  │
//!                  │                          └────────────── the host began anew ───────────────┤
//!                  └───────────────────────────────────────── the host hung up ──────────────────┘
//! ```
//! One thread does it all: under an emulated CPU there is nothing to win from a second. Sessions and execs need none
//! of PID 1's powers, so tests run them in an ordinary process, without a [`machine::Machine`].

pub mod boot;
mod cgroup;
mod exec;
mod fault;
pub mod files;
mod insight;
mod interface;
mod log;
pub mod machine;
pub mod port;
mod reaper;
pub mod session;
mod wire;

pub use fault::{Context, Fault, report};
