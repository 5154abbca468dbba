//! Writes to both of our output streams in the order that things came, in large pieces.

use std::fs::File;
use std::io::{self, Write as _};

use crate::blocking::Blocking;

/// What is written at once.
const FULL: usize = 64 << 10;

/// One of our two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Error,
}

/// Gathers what goes to one stream, until something goes to the other.
pub(super) struct Output {
    stream: Stream,
    bytes: Vec<u8>,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { stream: Stream::Out, bytes: Vec::new() }
    }

    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if self.stream != stream || self.bytes.len() >= FULL {
            self.flush()?;
            self.stream = stream;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let mut to: Blocking<File> = match self.stream {
            Stream::Out => Blocking::sharing(io::stdout())?,
            Stream::Error => Blocking::sharing(io::stderr())?,
        };
        to.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}
