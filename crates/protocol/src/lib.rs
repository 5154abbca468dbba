//! The wire between host and guest: services, handshake, streams.
//!
//! This crate owns every byte that a host and the agent in its guest exchange. It knows nothing of images or
//! engines: it is given a byte stream in both directions and never asks what carries it.
//!
//! ```text
//!   calls (gRPC's messages)   standard input, output, error of each exec, files
//!            └──────────┬───────────────┘
//!                 streams (yamux, the host opens them)      each begins with a StreamHeader
//!                       │
//!                 session (preface: magic, versions, nonce)
//!                       │
//!                 one byte stream (a virtio-serial port, a vsock connection)
//! ```
//!
//! Bulk bytes never pass through calls, so that they are copied and framed once. A session lives as long as the byte
//! stream does; when it ends, all of its streams end, and what they belonged to is lost, not finished.

#![forbid(unsafe_code)]

pub mod call;
#[cfg(feature = "client")]
pub mod client;
pub mod mux;
pub mod network;
pub mod pass_through;
pub mod preface;
#[cfg(feature = "server")]
pub mod server;
pub mod stream;
pub mod supervisor;

/// The services and messages of version 1, made from `proto/cellule/agent/v1/*.proto`.
#[allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "made by a program"
)]
#[rustfmt::skip]
#[path = "generated/cellule.agent.v1.rs"]
pub mod v1;
