//! The crate against a registry, archives and processes that do their worst. Loopback only.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "the lint's exception for tests does not know their helpers")]

mod archives;
mod credentials;
mod hostile;
mod import;
mod processes;
mod pull;
mod store;
mod support;
