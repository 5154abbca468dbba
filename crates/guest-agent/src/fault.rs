//! Owns how the agent speaks of what failed: one line of causes, on the console and in the handshake.

use std::fmt::Display;
use std::io::{self, Write};

use crate::log::LOG;

/// A step that failed and why. The message is the whole chain, since it crosses the wire as text.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Fault(String);

impl Fault {
    /// A fault without a cause beneath it.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Adds what was being done to why it failed.
pub trait Context<T> {
    /// `what` reads as in "mount /proc".
    ///
    /// # Errors
    /// The same, with its step named.
    fn context(self, what: impl Display) -> Result<T, Fault>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn context(self, what: impl Display) -> Result<T, Fault> {
        self.map_err(|error| Fault(format!("{what}: {error}")))
    }
}

/// Writes a line to the console, where the host finds it when all else fails, and keeps it for hosts that ask.
pub fn report(message: impl Display) {
    let message = message.to_string();
    LOG.add(&message);
    // A console that can't be written to leaves nobody to tell.
    let _unwritable = writeln!(io::stderr(), "cellule-guest-agent: {message}");
}
