//! Owns the log of a sandbox's network: what became of connections, and what is to be said of secrets. One JSON object on a line.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cellule_network::secrets::{Event, SecretRecord};
use cellule_network::{Outcome, Record};
use serde::Serialize;

use crate::directory::LOGS;
use crate::log::{LogWriter, NETWORK_LOG};

/// The most lines that are written each second: what a guest does on purpose is to fill no disk's queue.
const LINES: u32 = 500;

/// The log; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct NetworkLog(Arc<Mutex<Writing>>);

#[derive(Debug)]
struct Writing {
    writer: LogWriter,
    /// When the present second began, and what it came to.
    begun: Instant,
    written: u32,
    left_out: u64,
}

impl NetworkLog {
    /// That of the sandbox whose directory this is.
    pub(crate) fn of(dir: &Path) -> Self {
        let writer = LogWriter::new(&dir.join(LOGS).join(NETWORK_LOG));
        Self(Arc::new(Mutex::new(Writing { writer, begun: Instant::now(), written: 0, left_out: 0 })))
    }

    /// Writes down what became of a connection: what went well as standard output, what did not as standard error.
    pub(crate) fn connection(&self, record: &Record) {
        self.write(record.outcome != Outcome::Closed, record.time_ns, record);
    }

    /// Writes down what is to be said of a secret.
    pub(crate) fn secret(&self, event: &Event) {
        let record = SecretRecord::of(event, crate::record::now_ns());
        self.write(true, record.time_ns, &record);
    }

    fn write(&self, stderr: bool, time_ns: i64, record: &impl Serialize) {
        let writing = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if writing.begun.elapsed() >= Duration::from_secs(1) {
            (writing.begun, writing.written) = (Instant::now(), 0);
        }
        if writing.written == LINES {
            writing.left_out += 1;
            return;
        }
        writing.written += 1;
        let at: SystemTime = UNIX_EPOCH + Duration::from_nanos(u64::try_from(time_ns).unwrap_or(0));
        let left_out = std::mem::take(&mut writing.left_out);
        if left_out > 0 {
            let line = format!("[cellule: {left_out} more in too short a time]\n");
            writing.writer.append(true, line.as_bytes(), at);
        }
        if let Ok(mut line) = serde_json::to_vec(record) {
            line.push(b'\n');
            writing.writer.append(stderr, &line, at);
        }
    }
}
