//! How a registry can fail.

use std::time::Duration;

/// A registry's failure or refusal; after all attempts, where another attempt could have helped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No connection, name lookup and TLS included.
    #[error("registry {registry} cannot be reached")]
    Unreachable {
        /// The registry.
        registry: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// The connection was lost in the middle of an answer, and again in each further attempt.
    #[error("registry {registry} broke off its answer")]
    Interrupted {
        /// The registry.
        registry: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// Nothing, or next to nothing, came for too long.
    #[error("registry {registry} has sent nothing for {} s", limit.as_secs_f64())]
    Stalled {
        /// The registry.
        registry: String,
        /// How long.
        limit: Duration,
    },
    /// An answer ended before it was complete, and so did those to all further attempts.
    #[error("registry {registry} sent {received} of {size} bytes of {what}")]
    Truncated {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// How much of it has come.
        received: u64,
        /// How much there should be.
        size: u64,
    },
    /// 401 or 403. Many registries answer so, too, where the image does not exist.
    #[error(
        "registry {registry} denies access to {what} ({status}{}){}",
        if *authenticated { "" } else { ", without credentials" },
        suffix(detail)
    )]
    Denied {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// 401 or 403.
        status: u16,
        /// Whether credentials were sent.
        authenticated: bool,
        /// What the registry says; may be empty.
        detail: String,
    },
    /// 404.
    #[error("registry {registry} has no {what}{}", suffix(detail))]
    NotFound {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// What the registry says; may be empty.
        detail: String,
    },
    /// 429, and the wait that it asks for is too long, or it kept asking.
    #[error("registry {registry} limits the rate of requests (429){}{}", wait(*retry_after), suffix(detail))]
    RateLimited {
        /// The registry.
        registry: String,
        /// How long it asks to wait, if it says so.
        retry_after: Option<Duration>,
        /// What the registry says; may be empty.
        detail: String,
    },
    /// 5xx, again and again.
    #[error("registry {registry} failed with {status}, {attempts} times in a row{}", suffix(detail))]
    ServerError {
        /// The registry.
        registry: String,
        /// The last status.
        status: u16,
        /// How many requests were made.
        attempts: u32,
        /// What the registry says; may be empty.
        detail: String,
    },
    /// The answer makes no sense by the specification.
    #[error("registry {registry} gave an answer that cannot be used: {detail}")]
    Protocol {
        /// The registry.
        registry: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The client could not be set up, for example because the host has no certificates of authorities.
    #[error("cannot set up a TLS client with this host's certificates")]
    Tls {
        /// The cause.
        source: reqwest::Error,
    },
}

fn suffix(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

fn wait(retry_after: Option<Duration>) -> String {
    retry_after.map(|wait| format!(", asking to wait {} s", wait.as_secs())).unwrap_or_default()
}
