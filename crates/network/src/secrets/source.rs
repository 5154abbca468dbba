//! Owns the loading of values from where they come from. No error has any of a value in it.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process_group};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::secret::{LONGEST, Secret, SecretError};
use super::spec::{SecretSpec, Source};

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(10);
/// More is taken for never: clocks cannot count it.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The variable is not set.
    #[error("the variable {0} is not set")]
    Variable(String),
    /// The file cannot be read.
    #[error("its file cannot be read")]
    File(#[source] io::Error),
    /// Nobody said what it is.
    #[error("its value was not given")]
    Missing,
    /// The command could not be run.
    #[error("its command cannot be run")]
    Run(#[source] io::Error),
    /// The command failed. What it wrote is not told, for that may be the value.
    #[error("its command failed: {0}")]
    Failed(ExitStatus),
    /// The command did not come to an end.
    #[error("its command took longer than {} seconds", COMMAND.as_secs())]
    Late,
    /// What the command wrote says when the value expires, and cannot be read.
    #[error("what its command wrote has an expires_at or a ttl that is no time")]
    Time,
    /// The command gave a value that is none any more.
    #[error("its command gave a value that has expired")]
    Expired,
    /// There is something, and it cannot be a value.
    #[error("its value cannot be used")]
    Value(#[from] SecretError),
}

/// A value, and how long it is one.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    pub(super) value: Secret,
    pub(super) life: Option<Duration>,
}

impl SecretSpec {
    /// The value of a source that only the process that starts a sandbox can read, which is its environment; `None` for others.
    ///
    /// # Errors
    /// The variable is not set, or cannot be a value.
    pub fn resolve(&self) -> Result<Option<Secret>, ValueError> {
        let Source::Env(variable) = &self.source else { return Ok(None) };
        let value = std::env::var_os(variable).ok_or_else(|| ValueError::Variable(variable.clone()))?;
        Ok(Some(Secret::new(value.as_bytes().to_vec())?))
    }
}

/// Loads a value that was not given.
pub(super) async fn load(spec: &SecretSpec) -> Result<Fetched, ValueError> {
    let lasting = |value| Fetched { value, life: None };
    match &spec.source {
        Source::Env(_) => spec.resolve()?.map(lasting).ok_or(ValueError::Missing),
        Source::File(path) => read(path).map(lasting),
        Source::Command(command) => run(command).await,
        Source::Value => Err(ValueError::Missing),
    }
}

fn read(path: &Path) -> Result<Secret, ValueError> {
    // A pipe might never be written to; it is opened without waiting, and refused.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(ValueError::File)?;
    if !file.metadata().map_err(ValueError::File)?.is_file() {
        return Err(ValueError::File(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        )));
    }
    // Room for all of it, so that no copy is left behind by a buffer that grows.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 3));
    file.take(LONGEST as u64 + 3).read_to_end(&mut bytes).map_err(ValueError::File)?;
    Ok(Secret::new(without_newline(&bytes).to_vec())?)
}

fn without_newline(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// Runs a command. What it complains of is thrown away: a shell that traces what it does would write the value there.
pub(super) async fn run(command: &str) -> Result<Fetched, ValueError> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(ValueError::Run)?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let mut output = Zeroizing::new(Vec::with_capacity(2 * LONGEST));
    let work = async {
        if let Some(stdout) = child.stdout.take() {
            // JSON around a value makes it longer.
            let mut stdout = stdout.take(2 * LONGEST as u64);
            stdout.read_to_end(&mut output).await.map_err(ValueError::Run)?;
        }
        child.wait().await.map_err(ValueError::Run)
    };
    let status = timeout(COMMAND, work).await.map_err(|_| ValueError::Late)??;
    drop(group);
    if status.success() { parse(&output, SystemTime::now()) } else { Err(ValueError::Failed(status)) }
}

/// A command and all that it started, which end with this.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // They may all have gone.
            _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Reads what a command wrote: JSON with a `value` that is a text, or the value itself, which may be other JSON.
pub(super) fn parse(output: &[u8], now: SystemTime) -> Result<Fetched, ValueError> {
    let said = serde_json::from_slice::<Said>(output);
    let Ok(said) = said else {
        return Ok(Fetched { value: Secret::new(without_newline(output).to_vec())?, life: None });
    };
    let life = match (said.ttl, said.expires_at) {
        (Some(ttl), _) => Some(seconds(&ttl)?),
        (None, Some(at)) => Some(until(&at, now)?),
        (None, None) => None,
    };
    if life.is_some_and(|life| life.is_zero()) {
        return Err(ValueError::Expired);
    }
    Ok(Fetched { value: Secret::new(said.value.into_bytes())?, life: life.map(|life| life.min(FOREVER)) })
}

#[derive(serde::Deserialize)]
struct Said {
    value: String,
    #[serde(default)]
    expires_at: Option<serde_json::Value>,
    #[serde(default)]
    ttl: Option<serde_json::Value>,
}

fn seconds(ttl: &serde_json::Value) -> Result<Duration, ValueError> {
    let seconds = ttl.as_f64().ok_or(ValueError::Time)?;
    Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(FOREVER))
}

fn until(at: &serde_json::Value, now: SystemTime) -> Result<Duration, ValueError> {
    if let Some(text) = at.as_str() {
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| ValueError::Time)?;
        return Ok(SystemTime::from(at).duration_since(now).unwrap_or_default());
    }
    let at = SystemTime::UNIX_EPOCH.checked_add(seconds(at)?).ok_or(ValueError::Time)?;
    Ok(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests;
