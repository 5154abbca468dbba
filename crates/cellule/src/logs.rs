//! What a sandbox's main program wrote, and what its agent had to say, while it ran and after.

use std::path::PathBuf;

use cellule_supervisor::{AGENT_LOG, Entry, LOGS, LogReader, LogRecord, LogStart, MAIN_LOG, NETWORK_LOG};

use crate::{Error, Host};

/// Which log of a sandbox is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogSource {
    /// The output of its main program.
    #[default]
    Main,
    /// What the agent in its guest had to say.
    Agent,
    /// What became of its connections: each line is a [`Record`](crate::network::Record) as JSON.
    Network,
}

/// What of a log is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Which log.
    pub source: LogSource,
    /// Go on as it grows, until the sandbox has ended.
    pub follow: bool,
    /// Begin so many lines before its end.
    pub tail: Option<u64>,
    /// Leave out what is older: nanoseconds since 1970.
    pub since_ns: Option<i64>,
}

/// Reads a log, record by record.
#[derive(Debug)]
pub struct Logs {
    reader: LogReader,
    host: Host,
    id: String,
    follow: bool,
    /// The sandbox has ended, and what is there now is all there will be.
    ended: bool,
}

impl Host {
    /// Opens the log of a sandbox, whether it runs or not.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn logs(&self, entry: &Entry, options: LogOptions) -> Result<Logs, Error> {
        let file = match options.source {
            LogSource::Main => MAIN_LOG,
            LogSource::Agent => AGENT_LOG,
            LogSource::Network => NETWORK_LOG,
        };
        let path: PathBuf = entry.path.join(LOGS).join(file);
        let start = options.tail.map_or(LogStart::Oldest, LogStart::Last);
        let reader = LogReader::open(&path, start, options.since_ns).map_err(read)?;
        let (id, follow) = (entry.spec.id.to_string(), options.follow);
        Ok(Logs { reader, host: self.clone(), id, follow, ended: false })
    }
}

impl Logs {
    /// The next record, or `None` after the last. One that follows waits for more until the sandbox has ended.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn next(&mut self) -> Result<Option<LogRecord>, Error> {
        loop {
            if let Some(record) = self.reader.next().map_err(read)? {
                return Ok(Some(record));
            }
            if !self.follow || self.ended {
                return Ok(None);
            }
            self.reader.wait().await;
            // Looked at before the log is read once more: what it wrote last is in it by the time it has ended.
            self.ended = !self.host.find(&self.id).is_ok_and(|entry| entry.is_live());
        }
    }
}

fn read(source: std::io::Error) -> Error {
    Error::Io { doing: "read the log".to_owned(), source }
}
