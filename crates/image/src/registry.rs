//! A client for registries, as far as pulling and logging in go: the distribution specification's read side.
//!
//! HTTP, TLS, proxies and redirects are reqwest's. Ours are what makes a pull safe and steady: limits on size, time and
//! attempts, resumption, tokens, and the verification of each byte.
//!
//! Plain HTTP and unverified certificates are accepted from this machine, and elsewhere only if the caller says
//! `insecure`. There too HTTPS is tried first.

mod auth;
mod client;
mod error;
mod request;
mod retry;
mod transfer;

pub use self::error::RegistryError;
pub(crate) use self::{
    client::{Answer, Registry},
    transfer::Layer,
};
