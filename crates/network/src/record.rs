//! Owns what is told of each connection: who decided what, and what became of it.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::Protocol;

/// Which way a connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// By the guest.
    Out,
    /// To the guest.
    In,
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was not allowed.
    Denied,
    /// It was allowed, and the other side refused it or was not there.
    Failed,
    /// It came to its end.
    Closed,
    /// One of the two ends, or the gateway, broke it off.
    Reset,
}

/// One connection, or one exchange of datagrams, at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// When it ended: wall clock, nanoseconds since 1970.
    pub time_ns: i64,
    /// Which way it was made.
    pub direction: Direction,
    /// Its protocol.
    pub protocol: Protocol,
    /// The end that is not the guest.
    pub remote: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
    /// The name that the guest meant, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Which rule decided, or what went wrong.
    pub reason: String,
    /// Bytes from the guest.
    pub sent: u64,
    /// Bytes to the guest.
    pub received: u64,
    /// How long it lasted, in microseconds.
    pub took_us: u64,
}

impl Record {
    /// How long it lasted.
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.took_us)
    }
}

/// Why something ended that had been allowed.
pub(crate) const REVOKED: &str = "the policy does not allow it any more";

/// Why nothing else is there.
pub(crate) const OWN_NETWORK: &str = "it is the sandbox's own network";

/// Where records go.
pub type Sink = Box<dyn Fn(Record) + Send>;
