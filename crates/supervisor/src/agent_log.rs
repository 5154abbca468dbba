//! Keeps what the guest's agent has to say of itself: `agent.log`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cellule_protocol::client::Session;

use crate::log::{AGENT_LOG, LogWriter};

/// How large it may become on disk before it is put aside.
const FULL: u64 = 1 << 20;

/// Keeps it until the session ends. `logs` is the directory of the sandbox's logs.
pub(crate) async fn keep(session: Session, logs: PathBuf) {
    let Ok(mut lines) = session.log().await else { return };
    let log = Arc::new(Mutex::new(LogWriter::with_limit(&logs.join(AGENT_LOG), FULL)));
    while let Ok(Some(line)) = lines.next().await {
        let at = UNIX_EPOCH + Duration::from_nanos(u64::try_from(line.time_ns).unwrap_or(0));
        // What cannot be a time in the log's format was not one.
        let at = at.min(SystemTime::now());
        let log = Arc::clone(&log);
        let write = move || {
            // The guest's words, on a line of their own.
            let text: String = line.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.append(false, format!("{text}\n").as_bytes(), at);
        };
        _ = tokio::task::spawn_blocking(write).await;
    }
}
