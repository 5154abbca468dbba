//! The agent's sessions and execs, in an ordinary process on this host: no guest, no privileges.
//!
//! The agent reaps every child of its process, so it gets one of its own: this test binary started again with one ignored
//! test, which serves a Unix socket as if it were the guest's port.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for other code")]

mod exec;
mod hostile;
mod session;
mod support;
