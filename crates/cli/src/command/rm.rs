//! `cellule rm`: removes sandboxes.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use cellule::{Entry, Host, Sandbox, StopOptions};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::each::each;
use crate::failure::Failure;
use crate::{completion, host, library_failure};

/// How long the directory of a sandbox may still be held by whoever ended it.
const RELEASE: Duration = Duration::from_secs(5);
/// How long a supervisor may take to do as it is told, before it is killed.
const OBEY: Duration = Duration::from_secs(10);

/// Remove sandboxes, with all that was written in them
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names, or what ids begin with
    #[arg(required = true, value_name = "SANDBOX", add = completion::sandbox())]
    sandboxes: Vec<String>,
    /// Kill those that run
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let force = arguments.force;
    let removing = each(&arguments.sandboxes, |name| {
        let host = host.clone();
        async move {
            remove(&host, &name, force).await?;
            Ok(name)
        }
    });
    super::runtime()?.block_on(removing)
}

async fn remove(host: &Host, name: &str, force: bool) -> Result<(), Failure> {
    let failed = |error: cellule::Error| library_failure::of(&error);
    let entry = host.find(name).map_err(failed)?;
    if !entry.is_live() {
        return discard(host, &entry).await;
    }
    if !force {
        let state = entry.record.state;
        let error = cellule::Error::Running { name: name.to_owned(), state };
        return Err(failed(error).hint("stop it before, or remove it all the same: cellule rm --force"));
    }
    let id = entry.spec.id.clone();
    let options = StopOptions { grace: Duration::ZERO, signal: None, remove: true };
    let asked = async { Sandbox::open(host.clone(), entry.clone()).await?.stop_with(options).await };
    let stopped = tokio::time::timeout(OBEY, asked).await;
    if !matches!(stopped, Ok(Ok(()))) && !host::has_ended(host, id.as_str()) {
        // A supervisor that does not answer dies, and its machine with it.
        kill(host, &entry);
        if !host::wait_for_end(host, id.as_str(), RELEASE).await {
            return Err(match stopped {
                Ok(Err(error)) => failed(error),
                _ => Failure::new(format!("the supervisor of {name} does not answer, and cannot be killed")),
            });
        }
    }
    match host.find(id.as_str()) {
        Ok(entry) => discard(host, &entry).await,
        Err(cellule::Error::Find(_)) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Removes one that does not run. That somebody else did is what was asked for.
pub(super) async fn discard(host: &Host, entry: &Entry) -> Result<(), Failure> {
    let id = &entry.spec.id;
    let remove = || -> Result<(), cellule::Error> { Ok(host.sandboxes()?.lock(id)?.remove()?) };
    let deadline = tokio::time::Instant::now() + RELEASE;
    loop {
        match remove() {
            Ok(()) => return Ok(()),
            Err(_) if matches!(host.find(id.as_str()), Err(cellule::Error::Find(_))) => return Ok(()),
            // Whoever ended it may still hold its lock for a moment.
            Err(error) if tokio::time::Instant::now() > deadline => return Err(library_failure::of(&error)),
            Err(_) => tokio::time::sleep(host::LOOK).await,
        }
    }
}

/// Kills the supervisor of a sandbox, if the process of that number still is it.
fn kill(host: &Host, entry: &Entry) {
    let pid = entry.record.supervisor_pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let Some(pid) = pid else { return };
    // Held, the number cannot become another's between the look and the signal.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    // One that was a pool's was started before the sandbox had its place.
    let before = host.sandboxes().ok().map(|sandboxes| sandboxes.hidden_path(&entry.spec.id));
    if supervises(&line, [Some(entry.path.as_path()), before.as_deref()].into_iter().flatten()) {
        _ = pidfd_send_signal(process, Signal::KILL);
    }
}

/// Whether the words of a process are those of the supervisor of one of these directories.
fn supervises<'a>(line: &[u8], mut directories: impl Iterator<Item = &'a Path>) -> bool {
    let mut words = line.split(|byte| *byte == 0).skip(1);
    words.next() == Some(b"supervise")
        && words
            .next()
            .is_some_and(|word| directories.any(|path| word == path.as_os_str().as_encoded_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_supervisor_of_that_directory_is_taken_for_it() {
        let directories = ["/home/sandboxes/0123456789ab", "/home/sandboxes/.new-0123456789ab"];
        let ours = |line: &str| supervises(line.as_bytes(), directories.iter().map(Path::new));
        assert!(ours("cellule\0supervise\0/home/sandboxes/0123456789ab\0"));
        assert!(ours("cellule\0supervise\0/home/sandboxes/.new-0123456789ab\0--standby\0"));
        for other in [
            "",
            "cellule\0",
            "cellule\0supervise\0/home/sandboxes/0123456789ac\0",
            "cellule\0supervise\0/home/sandboxes/0123456789ab/x\0",
            "vi\0/home/sandboxes/0123456789ab\0",
        ] {
            assert!(!ours(other), "{other:?}");
        }
    }
}
