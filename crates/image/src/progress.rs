//! What the crate tells of work that takes time. It draws nothing itself.

use std::{fmt, time::Duration};

/// Something happened. Sizes are in bytes; layers are counted from 1, the bottom one first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The source is asked what the image is.
    Resolving {
        /// The source as text.
        source: String,
    },
    /// What the image consists of is known.
    Resolved {
        /// How many layers it has.
        layers: usize,
        /// The size of all of them as they are transferred.
        bytes: u64,
    },
    /// Part of a layer has arrived. The first such event may count bytes that were there already.
    Layer {
        /// Which layer.
        number: usize,
        /// How many layers the image has.
        of: usize,
        /// How many of its bytes are here.
        bytes: u64,
        /// How many bytes it has.
        size: u64,
    },
    /// A layer is complete and verified.
    LayerReady {
        /// Which layer.
        number: usize,
        /// How many layers the image has.
        of: usize,
        /// Whether it was in the store already.
        cached: bool,
    },
    /// A request failed in a way that may pass, and will be made again.
    Retrying {
        /// The registry.
        registry: String,
        /// The failure.
        reason: String,
        /// How long until the next attempt.
        after: Duration,
    },
    /// Another process makes the same thing; this one waits for it.
    Waiting {
        /// What is made.
        what: String,
    },
    /// The layers are being merged to a root filesystem.
    Building {
        /// How many bytes of the layers, as they are stored, have been read.
        bytes: u64,
        /// How many there are.
        size: u64,
    },
    /// The image can be used.
    Done,
}

/// Receives events, from any thread, and must not block for long.
pub trait Progress: Send + Sync {
    /// Called for each event.
    fn event(&self, event: Event);
}

/// Any function of an event is a receiver.
impl<F: Fn(Event) + Send + Sync> Progress for F {
    fn event(&self, event: Event) {
        self(event);
    }
}

/// Receives events and ignores them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event) {}
}

impl fmt::Debug for dyn Progress + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
