//! What a caller may choose about getting an image: platform, policy, limits, time.

use std::{sync::Arc, time::Duration};

use crate::{Credentials, Platform, Progress, Silent};

/// When a registry is asked for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Each time; only what changed is downloaded.
    Always,
    /// If the store does not have it.
    #[default]
    Missing,
    /// Never: the store has it or it is an error.
    Never,
}

/// Everything that may be chosen, with defaults that suit most.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which image of a multi-platform index; by default this host's.
    pub platform: Platform,
    /// Accept plain HTTP and unverified certificates from any registry, not from loopback alone.
    pub insecure: bool,
    /// Where credentials for registries come from.
    pub credentials: Credentials,
    /// Time limits and retries of the network.
    pub network: Network,
    /// Bounds on what is accepted.
    pub limits: Limits,
    /// How long to wait for another process that makes the same thing.
    pub lock_wait: Duration,
    /// Who is told of progress.
    pub progress: Arc<dyn Progress>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            platform: Platform::host(),
            insecure: false,
            credentials: Credentials::default(),
            network: Network::default(),
            limits: Limits::default(),
            lock_wait: Duration::from_secs(30 * 60),
            progress: Arc::new(Silent),
        }
    }
}

/// Time limits and retries of the network.
#[derive(Debug, Clone)]
pub struct Network {
    /// How long a connection may take to open, name lookup and TLS included.
    pub connect: Duration,
    /// How long an answer may take to begin, a small one to end, and a large one to bring its next
    /// [`stall_bytes`](Self::stall_bytes).
    pub stall: Duration,
    /// What must arrive within [`stall`](Self::stall), so that a trickle counts as a stall too.
    pub stall_bytes: u64,
    /// How many times a request is made in all before its failure is final. A download that moved forward by
    /// [`stall_bytes`](Self::stall_bytes) starts counting anew.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles with each further one.
    pub backoff: Duration,
    /// The longest wait between attempts. A registry that asks for a longer one is not asked again.
    pub longest_wait: Duration,
    /// How many layers are downloaded at a time.
    pub parallel: usize,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(20),
            stall_bytes: 4 << 10,
            attempts: 4,
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            parallel: 4,
        }
    }
}

/// Bounds on what is accepted from a registry, an archive or a directory.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The size in bytes of a manifest, an index or a configuration.
    pub document: u64,
    /// The number of layers of an image.
    pub layers: usize,
    /// The size in bytes of one layer as it is transferred.
    pub layer: u64,
    /// The number of entries of an archive of images.
    pub archive_entries: usize,
    /// The bounds on what the layers unpack to.
    pub rootfs: cellule_rootfs::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document: 4 << 20,
            layers: 256,
            layer: 64 << 30,
            archive_entries: 100_000,
            rootfs: cellule_rootfs::Limits::default(),
        }
    }
}
