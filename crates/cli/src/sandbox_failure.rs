//! Words a sandbox's failure: its cause, what the guest and the engine last printed, and what helps.

use cellule_engine::{EngineProblem, MemorySize};
use cellule_supervisor::{DirectoryError, FailureKind, FindError, SandboxError};

use crate::failure::Failure;
use crate::ports;

/// The failure for a sandbox that did not start, or is no more.
pub(crate) fn failure(error: &SandboxError) -> Failure {
    match error {
        SandboxError::Failed(failed) => sandbox(failed),
        SandboxError::SupervisorGone { log } => Failure::new(
            "the sandbox's supervisor is gone: it was killed or crashed, and the sandbox with it",
        )
        .detail("its last words", log),
        SandboxError::Directory(error) => directory(error),
        SandboxError::Spawn { .. } => Failure::because("cannot start the sandbox", error),
        SandboxError::Unreachable { .. } => {
            Failure::of(error).hint("if that stays so, end it with: cellule rm --force")
        }
        SandboxError::Refused { message } => Failure::new(message.clone()),
        SandboxError::NotSaved { why } => {
            let mut failure = Failure::new("the sandbox goes on, and was not saved");
            failure.cause(why.clone());
            if why.contains("no space left") {
                failure.hint("free some space there: cellule snapshot rm, cellule template prune --all")
            } else {
                failure
            }
        }
    }
}

/// The failure for a text that means no sandbox.
pub(crate) fn find(error: &FindError) -> Failure {
    match error {
        FindError::NotFound { .. } => Failure::of(error).hint("those that there are: cellule ps --all"),
        FindError::Ambiguous { ids, .. } => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            Failure::of(error).hint(format!("give more digits: {}", ids.join(", ")))
        }
        FindError::Directory(error) => directory(error),
    }
}

/// The failure for what a supervisor says of its sandbox.
pub(crate) fn sandbox(failed: &cellule_supervisor::Failure) -> Failure {
    let mut failure = Failure::new(failed.message.clone());
    failed.causes.iter().for_each(|cause| failure.cause(cause.clone()));
    let failure = failure
        .detail("the engine said", &failed.engine_stderr)
        .detail("the guest's console ended with", &failed.console);
    match failed.kind {
        FailureKind::EngineUnusable => {
            failure.hint("install QEMU (Debian: apt-get install qemu-system-x86), or see: cellule doctor")
        }
        FailureKind::GuestMemory => failure.hint("give it more: --memory 512m"),
        FailureKind::Launch if failed.causes.iter().any(|cause| cause.contains("memory are asked for")) => {
            failure.hint(format!("give it {} or more: --memory 512m", MemorySize::MIN))
        }
        FailureKind::AgentSilent => {
            failure.hint("the host may be overloaded; see what else runs, and try again")
        }
        FailureKind::AgentVersion => failure.hint("the boot bundle is another version's: cellule setup"),
        FailureKind::GuestPanic
        | FailureKind::Launch
        | FailureKind::GuestEnded
        | FailureKind::EngineDied
        | FailureKind::GuestUnsound
        | FailureKind::Supervisor => failure,
        FailureKind::Network => ports::hint(failure),
        FailureKind::Secret => {
            failure.hint("see that its source gives it: the file, or the command with /bin/sh -c")
        }
    }
}

/// The failure for a sandbox whose directory cannot be made, read or changed.
pub(crate) fn directory(error: &DirectoryError) -> Failure {
    let failure = Failure::of(error);
    match error {
        DirectoryError::NameTaken { .. } => failure.hint("choose another --name, or end that sandbox first"),
        DirectoryError::DiskFull { .. } => {
            failure.hint("free some space there, or set CELLULE_HOME to another disk")
        }
        DirectoryError::Write { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            failure.hint("set CELLULE_HOME to a directory of your own")
        }
        _ => failure,
    }
}

/// The failure for an engine that cannot be used here.
pub(crate) fn engine(error: &EngineProblem) -> Failure {
    let failure = Failure::because("no microVM can run on this host", error);
    match error {
        EngineProblem::NotInstalled { .. } => {
            failure.hint("install QEMU; on Debian: apt-get install qemu-system-x86")
        }
        EngineProblem::TooOld { need, .. } => failure.hint(format!("install QEMU {need} or newer")),
        EngineProblem::NotExecutable { .. } | EngineProblem::Unusable { .. } => {
            failure.hint("see: cellule doctor")
        }
    }
}
