//! Logs of output, in the format that container runtimes of Kubernetes write and its tools read. Owns that format.
//!
//! ```text
//!   2026-01-31T12:00:00.000000000Z stdout F a whole line
//!   2026-01-31T12:00:00.000000000Z stderr P the beginning of one, to be continued
//! ```
//! A full log becomes `<name>.1`, in place of the one before.

mod format;
mod reader;
mod writer;

pub use self::reader::{LogReader, LogRecord, LogStart};
pub(crate) use self::writer::LogWriter;

/// The log of the main program's output, within [`LOGS`](crate::LOGS).
pub const MAIN_LOG: &str = "main.log";
/// What the agent has to say, in the same format.
pub const AGENT_LOG: &str = "agent.log";
/// What became of its connections, one document of JSON on a line, in the same format.
pub const NETWORK_LOG: &str = "network.log";
/// The guest's console: its bytes as they came, in no format.
pub const CONSOLE_LOG: &str = "console.log";
/// What went wrong in the supervisor itself: plain lines.
pub const SUPERVISOR_LOG: &str = "supervisor.log";

#[cfg(test)]
mod tests;
