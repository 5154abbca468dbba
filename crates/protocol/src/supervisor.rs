//! The services of a sandbox's supervisor, which stands between a client and the agent.

/// The services and messages of version 1, made from `proto/cellule/supervisor/v1/supervisor.proto`.
#[allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "made by a program"
)]
#[rustfmt::skip]
#[path = "generated/cellule.supervisor.v1.rs"]
pub mod v1;
