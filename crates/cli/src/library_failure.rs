//! Words the library's errors: what failed, why, and what helps.

use cellule::secrets::ValueError;
use cellule::{Error, NetworksError, SnapshotError};
use cellule_engine::ConfigError;
use cellule_protocol::client::{Lost, StartFailure, StartFailureKind};

use crate::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND};
use crate::{sandbox_failure, setup, store};

/// The failure for an error of the library's.
pub(crate) fn of(error: &Error) -> Failure {
    match error {
        Error::NoHome => Failure::new(error.to_string()).hint("set CELLULE_HOME to a directory of your own"),
        Error::RelativeHome { .. } => {
            Failure::new(error.to_string()).hint("set CELLULE_HOME to an absolute path")
        }
        Error::Setup(source) => setup::failure(source),
        Error::Images { source } => store::failure(error.to_string(), source),
        Error::Image { name, source } => store::named_failure(error.to_string(), source, name),
        Error::Engine(source) => sandbox_failure::engine(source),
        Error::Machine(source) => {
            let failure = Failure::because("the machine cannot be as asked", source);
            match source {
                ConfigError::TooLittleMemory { min, .. } => {
                    failure.hint(format!("--memory {min}m is the least that boots"))
                }
                _ => failure,
            }
        }
        Error::NoCommand => {
            Failure::new(error.to_string()).hint("put one behind the image: cellule run IMAGE COMMAND")
        }
        Error::WorkingDir(_) => Failure::new(error.to_string()).hint("begin it with a slash: --workdir /app"),
        Error::Directory(source) => sandbox_failure::directory(source),
        Error::Find(source) => sandbox_failure::find(source),
        Error::Sandbox(source) => sandbox_failure::failure(source),
        Error::Snapshot(source) => {
            let failure = Failure::of(source);
            match source {
                SnapshotError::NoSuchSnapshot(_) => failure.hint("those that there are: cellule snapshot ls"),
                SnapshotError::NameTaken(name) => failure
                    .hint(format!("choose another name, or remove that one: cellule snapshot rm {name}")),
                _ => failure,
            }
        }
        Error::SnapshotElsewhere(mismatch) => Failure::because(error.to_string(), mismatch)
            .hint("a saved machine goes on with the same engine, processor and clock alone"),
        Error::SnapshotImage { image, .. } => Failure::of(error)
            .hint(format!("get it again: cellule pull {image}; it must be the very same image")),
        Error::NotRunning { name, .. } => {
            Failure::new(error.to_string()).hint(format!("start it: cellule start {name}"))
        }
        Error::Networks(source) => networks(source),
        Error::Secret { source: ValueError::Variable(variable), name } => Failure::new(error.to_string())
            .hint(format!(
                "set {variable} in the environment of this command, or name another source of {name}"
            )),
        Error::SecretLost { name } => Failure::new(error.to_string())
            .hint(format!("take {name} from env:, file: or cmd: in a sandbox that is started again")),
        Error::Start { program, source } => not_started(program, source),
        Error::Lost { failure: Some(failure), .. } => sandbox_failure::sandbox(failure),
        // Whoever could have said why is gone itself.
        Error::Lost { lost: Lost::HungUp, .. } => {
            Failure::new("the sandbox ended meanwhile: its supervisor is gone, and its machine with it")
        }
        Error::Lost { lost, .. } => Failure::because("the sandbox ended meanwhile", lost),
        other => Failure::of(other),
    }
}

/// The failure for a named network.
pub(crate) fn networks(error: &NetworksError) -> Failure {
    let failure = Failure::of(error);
    match error {
        NetworksError::NotFound(name) => failure.hint(format!("make it: cellule network create {name}")),
        NetworksError::InUse { members, .. } => {
            let members: Vec<_> = members.iter().map(ToString::to_string).collect();
            failure.hint(format!("end what is on it first: cellule stop {}", members.join(" ")))
        }
        _ => failure,
    }
}

fn not_started(program: &str, failure: &StartFailure) -> Failure {
    let message = format!("cannot run {program:?}");
    match failure.kind {
        StartFailureKind::NotFound => Failure::because(message, failure)
            .hint("see whether the image has it, and where: --entrypoint and PATH decide what is found")
            .code(NOT_FOUND),
        StartFailureKind::NotExecutable => Failure::because(message, failure)
            .hint("it must be a program for x86-64 Linux, or a script whose interpreter the image has, with mode +x")
            .code(NOT_EXECUTABLE),
        _ => Failure::because(message, failure),
    }
}
