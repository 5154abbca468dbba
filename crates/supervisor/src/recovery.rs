//! Tells the truth about a sandbox whose supervisor may have been killed, and clears away what it left.
//!
//! ```text
//!   state.json ──┬─ does not live, and is kept ─▶ as it says
//!                └─ lives, or nobody keeps it ──▶ its lock ──┬─ held ─▶ as it says: its owner writes each change at once
//!                                                            └─ free ─▶ read again ──┬─ lives: killed ─▶ stopped | removed
//!                                                                                    └─ nobody keeps it ─▶ removed
//! ```

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::directory::{self, DirectoryError, GONE, NEW, SandboxDir, try_lock};
use crate::journal::Action;
use crate::listener;
use crate::name::SandboxId;
use crate::record::{ProcessRecord, Record, boot_id, now_ns};
use crate::sandboxes::Sandboxes;
use crate::spec::SandboxSpec;
use crate::state::State;

/// How long the lock of a supervisor that was killed is waited for.
const DYING: Duration = Duration::from_millis(500);

/// Looks at a sandbox. `None` if nobody keeps it, in which case it is removed now.
pub(crate) fn look(
    sandboxes: &Sandboxes,
    id: &SandboxId,
) -> Result<Option<(SandboxSpec, Record)>, DirectoryError> {
    let path = sandboxes.path_of(id);
    let spec = directory::read_spec(&path)?;
    if let Ok(record) = directory::read_record(&path)
        && is_settled(&spec, &record)
    {
        return Ok(Some((spec, record)));
    }
    let begun = Instant::now();
    loop {
        let lock = try_lock(&path).map_err(|source| DirectoryError::Read { path: path.clone(), source })?;
        if let Some(lock) = lock {
            return recover(sandboxes, spec, lock);
        }
        // An owner renames whole states into place, so what is damaged here was so before it came.
        let record = directory::read_record(&path)?;
        let dying = record.state.is_live() && record.supervisor_pid.is_some_and(is_dying);
        if !dying || begun.elapsed() > DYING {
            return Ok(Some((spec, record)));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a record can be believed whoever has the lock.
fn is_settled(spec: &SandboxSpec, record: &Record) -> bool {
    !record.state.is_live() && record.kept && !spec.is_expired(now_ns())
}

/// Clears away what an owner left whose lock is ours now.
fn recover(
    sandboxes: &Sandboxes,
    spec: SandboxSpec,
    lock: File,
) -> Result<Option<(SandboxSpec, Record)>, DirectoryError> {
    let dir = SandboxDir::locked(sandboxes, spec.id.clone(), lock);
    // It may have ended, or been removed, between the look at it and the lock.
    let mut record = match dir.record() {
        Ok(record) => record,
        Err(error) if error.is_gone() && !dir.path().exists() => {
            return Err(DirectoryError::NotFound { id: spec.id });
        }
        Err(_) => Record::lost(),
    };
    if is_settled(&spec, &record) && dir.record().is_ok() {
        return Ok(Some((spec, record)));
    }
    let was_live = record.state.is_live();
    if was_live {
        record = killed(&record);
        record.engine_pids.iter().for_each(end);
        record.engine_pids.clear();
        let cause = record.cause.clone().map(|cause| ("cause", cause));
        sandboxes.events().append(&spec.id, dir.name().as_ref(), &spec.image, Action::Die, cause);
    }
    if (was_live && spec.auto_remove) || !record.kept || spec.is_expired(now_ns()) {
        dir.remove()?;
        return Ok(None);
    }
    listener::remove(dir.path());
    sandboxes.networks().leave(&spec.id, &spec.network.networks);
    _ = fs::remove_file(dir.path().join("agent.sock"));
    dir.write_record(&record)?;
    Ok(Some((spec, record)))
}

/// What became of a sandbox whose supervisor was killed.
fn killed(record: &Record) -> Record {
    let now = now_ns();
    let cause =
        if record.boot_id == boot_id() { "its supervisor was killed" } else { "the host was restarted" };
    Record {
        state: State::Stopped,
        changed_ns: now,
        ended_ns: Some(now),
        cause: Some(cause.to_owned()),
        supervisor_pid: None,
        ..record.clone()
    }
}

/// Kills a process of the engine's, should it have outlived its supervisor.
fn end(process: &ProcessRecord) {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let Some(handle) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return };
    // Only now does the number stand for one process: is it the one?
    if start_time(process.pid) == Some(process.start_time) {
        _ = pidfd_send_signal(&handle, Signal::KILL);
    }
}

/// When a process began: field 22 of its `stat`, behind a name that may hold anything.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether a process was killed and is not gone yet: on a busy host its lock stays held for some milliseconds.
fn is_dying(pid: u32) -> bool {
    /// `PF_EXITING`, in field 9 of `stat`.
    const EXITING: u64 = 0x4;
    const KILLED: u64 = 1 << 8;
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let (Ok(stat), Ok(status)) = (of("stat"), of("status")) else { return true };
    let Some((_, behind)) = stat.rsplit_once(')') else { return false };
    let mut fields = behind.split_ascii_whitespace();
    let state = fields.next();
    let flags: u64 = fields.nth(5).and_then(|flags| flags.parse().ok()).unwrap_or(0);
    let pending = status.lines().filter_map(|line| {
        let set = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(set.trim(), 16).ok()
    });
    matches!(state, Some("Z" | "X"))
        || flags & EXITING != 0
        || pending.fold(0, |all, set| all | set) & KILLED != 0
}

/// Whether a directory of this name is one that is being made or removed.
pub(crate) fn is_remains(name: &str) -> bool {
    name.starts_with(NEW) || name.starts_with(GONE)
}

/// Removes a directory that is being made or removed, unless somebody is still at it. Tells whether it did.
pub(crate) fn clear_remains(path: &Path) -> bool {
    let dead = match try_lock(path) {
        Ok(lock) => lock.map(Some),
        // Its maker has it without a lock for an instant only, and who removes it may have removed the lock first.
        Err(error) if error.kind() == io::ErrorKind::NotFound => older_than_creation(path).then_some(None),
        Err(_) => None,
    };
    // Gone while we looked is not our doing.
    dead.is_some_and(|_lock| path.exists() && directory::remove(path).is_ok())
}

/// Whether a directory has been as it is for longer than its maker needs to go on.
fn older_than_creation(path: &Path) -> bool {
    const CREATION: Duration = Duration::from_secs(5);
    let age = fs::metadata(path).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > CREATION)
}

#[cfg(test)]
#[path = "recovery/tests.rs"]
mod tests;
