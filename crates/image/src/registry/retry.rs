//! Which failures may pass, and how long to wait for that.

use std::time::Duration;

use super::RegistryError;
use crate::{Error, Event, Network, Progress};

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    /// Boxed, as it is large and rarely there.
    pub(super) error: Box<Error>,
    pub(super) again: Again,
}

/// Whether another attempt may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    /// After a while that doubles with each attempt.
    Backoff,
    /// When the registry says.
    After(Duration),
}

impl Failure {
    pub(super) fn passing(error: RegistryError) -> Self {
        Self { error: Box::new(error.into()), again: Again::Backoff }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: Box::new(error.into()), again: Again::Never }
    }
}

/// The attempts of one request.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    network: &'a Network,
    progress: &'a dyn Progress,
    registry: &'a str,
    made: u32,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(network: &'a Network, progress: &'a dyn Progress, registry: &'a str) -> Self {
        Self { network, progress, registry, made: 0 }
    }

    /// There was progress: what failed before no longer counts.
    pub(super) fn reset(&mut self) {
        self.made = 0;
    }

    /// Waits until it is time for the next attempt; or returns the error, if there is to be none.
    pub(super) async fn after(&mut self, failure: Failure) -> Result<(), Error> {
        self.made += 1;
        let wait = match failure.again {
            Again::Never => return Err(*failure.error),
            Again::Backoff => self.backoff(),
            Again::After(wait) => wait,
        };
        if self.made >= self.network.attempts || wait > self.network.longest_wait {
            return Err(self.count(*failure.error));
        }
        let reason = reason(&failure.error);
        self.progress.event(Event::Retrying { registry: self.registry.into(), reason, after: wait });
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Doubles with each attempt. A part of it is left to chance, so that many clients do not come back at once.
    fn backoff(&self) -> Duration {
        let full =
            self.network.backoff.saturating_mul(1 << (self.made - 1).min(16)).min(self.network.longest_wait);
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |t| t.subsec_nanos());
        full.mul_f64(0.75 + 0.25 * f64::from(nanos % 1000) / 1000.0)
    }

    fn count(&self, mut error: Error) -> Error {
        if let Error::Registry(RegistryError::ServerError { attempts, .. }) = &mut error {
            *attempts = self.made;
        }
        error
    }
}

/// The error and its causes in one line.
fn reason(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
