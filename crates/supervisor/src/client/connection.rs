//! The connection to a supervisor: how it begins, and what is left where it ends.

use std::path::Path;
use std::time::{Duration, Instant};

use cellule_protocol::client::{Limits, Session, SupervisorClient};
use tokio::net::UnixStream;
use tokio::process::Child;

use super::END;
use crate::directory::{DirectoryError, LOGS, read_record};
use crate::listener;
use crate::log::SUPERVISOR_LOG;
use crate::record::Record;
use crate::state::State;

/// How long the supervisor may take to answer: it has to, whatever the guest does.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a supervisor that was just started may take to listen.
const LISTEN: Duration = Duration::from_secs(5);
/// The end of the supervisor's log that an error carries.
const LOG_BYTES: u64 = 4 << 10;

/// Connects to the socket in a sandbox's directory, which may be about to appear.
pub(super) async fn reach(path: &Path) -> std::io::Result<UnixStream> {
    let begun = Instant::now();
    loop {
        match listener::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                let starting = read_record(path)
                    .is_ok_and(|record| record.state == State::Starting && record.supervisor_pid.is_none());
                if !starting || begun.elapsed() > LISTEN {
                    return Err(error);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Begins a session over a connection; `None` if the other side hung up or does not answer.
pub(super) async fn begin(ours: UnixStream) -> Option<(Session, SupervisorClient)> {
    let limits = Limits { connect: ANSWER, answer: ANSWER, repeat_preface: false };
    let session = Session::connect(ours, limits).await.ok()?;
    let supervisor = session.supervisor();
    Some((session, supervisor))
}

/// Waits for a supervisor of ours to end, and reads what it wrote at last.
pub(super) async fn reap(child: &mut Option<Child>, path: &Path) -> String {
    // Before it removes the directory, as far as that can be.
    let before = log_end(path);
    if let Some(mut child) = child.take()
        && tokio::time::timeout(END, child.wait()).await.is_err()
    {
        // Its machine dies with it.
        _ = child.kill().await;
    }
    let after = log_end(path);
    if after.is_empty() { before } else { after }
}

/// The same for who is still connected: a supervisor that has left its sandbox in order waits for us to hang up first.
pub(super) async fn reap_unless_settled(child: &mut Option<Child>, path: &Path) -> String {
    let Some(running) = child else { return log_end(path) };
    let log = log_end(path);
    tokio::select! {
        biased;
        _ = running.wait() => {}
        settled = settled(path) => if settled {
            return log;
        },
    }
    reap(child, path).await
}

/// Waits until a sandbox's last state is on the disk, or its directory gone; not for ever.
async fn settled(path: &Path) -> bool {
    let is_live = |record: Result<Record, DirectoryError>| match record {
        Ok(record) => record.state.is_live(),
        Err(error) => !error.is_gone(),
    };
    let begun = Instant::now();
    while is_live(read_record(path)) {
        if begun.elapsed() > END {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

fn log_end(dir: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(dir.join(LOGS).join(SUPERVISOR_LOG))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
