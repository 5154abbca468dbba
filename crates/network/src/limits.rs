//! Owns what one guest may take of the host.

use rustix::process::{Resource, getrlimit};

/// What one guest may take of the host.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; a further one has to wait.
    pub connections: usize,
    /// Exchanges of datagrams at a time.
    pub exchanges: usize,
    /// Bytes of data each second, each way.
    pub bandwidth: Option<u64>,
    /// New connections and exchanges each second.
    pub connection_rate: Option<u64>,
}

impl Default for Limits {
    /// As many as the process may have descriptors for, of which it keeps a quarter. A connection has five where its requests are held to
    /// the rules, and are for a secret's host.
    fn default() -> Self {
        let files = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |files| files / 8);
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        Self {
            connections: files.min(4096),
            exchanges: files.min(1024),
            bandwidth: None,
            connection_rate: None,
        }
    }
}

impl Limits {
    /// How large each of the two buffers of one more connection is. The more there are, the less each one gets: what a guest can
    /// make the gateway hold is some 240 MiB, and that only if it fills each of them. Where requests are held to the rules, heads that are
    /// about as large as these may take as much again.
    pub(crate) fn buffer(open: usize) -> usize {
        match open {
            0..8 => 1 << 20,
            8..64 => 512 << 10,
            64..256 => 128 << 10,
            _ => 16 << 10,
        }
    }
}
