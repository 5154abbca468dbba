//! Completion of what is typed in a shell. The shell asks this program at each key, so that names of sandboxes and images
//! complete too, and the words are those of the one definition that also parses them.
//!
//! `cellule completion SHELL` prints the few lines that make a shell ask. It asks by setting [`ASKING`] to its name, with
//! the words typed so far behind `--`.

mod bash;

use std::ffi::OsStr;

use clap::{Arg, ArgAction, Command, CommandFactory as _};
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};
use clap_complete::env::{EnvCompleter, Fish, Shells, Zsh};

use crate::command::Cellule;
use crate::failure::Failure;
use crate::host;
use crate::pool::PoolDir;

/// The variable that a shell sets when it asks.
pub(crate) const ASKING: &str = "CELLULE_COMPLETE";

const SHELLS: &[&dyn EnvCompleter] = &[&bash::Bash, &Fish, &Zsh];

/// Answers the shell that asks, if one does. False: nobody asks, and the command is to be run.
///
/// # Errors
/// The shell is an unknown one, or its words are none that this program is called with.
pub(crate) fn answer() -> Result<bool, Failure> {
    let here = std::env::current_dir().ok();
    let asked = clap_complete::CompleteEnv::with_factory(|| definition(Cellule::command()));
    let answered =
        asked.var(ASKING).shells(Shells(SHELLS)).try_complete(std::env::args_os(), here.as_deref());
    answered.map_err(|error| Failure::because("cannot complete", &error))
}

/// What a shell is to be told once, to ask from then on.
///
/// # Errors
/// It is none of those that are known.
pub(crate) fn registration(shell: &str) -> Result<String, Failure> {
    let shell =
        Shells(SHELLS).completer(shell).ok_or_else(|| Failure::new(format!("{shell:?} is unknown")))?;
    let mut script = Vec::new();
    let written = shell.write_registration(ASKING, "cellule", "cellule", "cellule", &mut script);
    written.map_err(|error| Failure::because("cannot write the completion", &error))?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// For an argument that is a sandbox, or begins with one.
pub(crate) fn sandbox() -> ArgValueCandidates {
    ArgValueCandidates::new(sandboxes)
}

/// For an argument that is an image, or begins with one.
pub(crate) fn image() -> ArgValueCandidates {
    ArgValueCandidates::new(images)
}

/// For an argument that is a snapshot.
pub(crate) fn snapshot() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let list = host::locate().ok().and_then(|host| host.snapshots().list().ok()).unwrap_or_default();
        list.iter().map(|snapshot| CompletionCandidate::new(snapshot.name.to_string())).collect()
    })
}

/// For an argument that is a network, or what programs may reach.
pub(crate) fn network() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let bases = ["none", "public", "all"].into_iter().map(CompletionCandidate::new);
        bases.chain(networks()).collect()
    })
}

/// For an argument that is a named network.
pub(crate) fn named_network() -> ArgValueCandidates {
    ArgValueCandidates::new(networks)
}

fn networks() -> Vec<CompletionCandidate> {
    let list = host::locate().ok().and_then(|host| host.networks().list().ok()).unwrap_or_default();
    list.iter().map(|network| CompletionCandidate::new(network.name.to_string())).collect()
}

/// For an argument that is a pool.
pub(crate) fn pool() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let pools = host::locate().map(|host| PoolDir::all(&host)).unwrap_or_default();
        pools.iter().map(|pool| CompletionCandidate::new(&pool.place.name)).collect()
    })
}

/// For a side of `cellule cp`: a path here, or a sandbox with a colon.
pub(crate) fn copy_side() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let sandboxes = sandboxes().into_iter().map(|sandbox| {
            let mut name = sandbox.get_value().to_owned();
            name.push(":");
            CompletionCandidate::new(name).help(sandbox.get_help().cloned())
        });
        let mut all = beginning_with(current, sandboxes);
        all.extend(PathCompleter::any().complete(current));
        all
    })
}

/// The definition as completion needs it: of an argument that takes all that follows, such as an image and its command, the
/// first word alone is what it completes.
fn definition(command: Command) -> Command {
    let takes_the_rest = command.get_positionals().any(Arg::is_trailing_var_arg_set);
    let command = command.mut_subcommands(definition);
    if !takes_the_rest {
        return command;
    }
    let first = |argument: Arg| {
        if argument.is_trailing_var_arg_set() {
            argument.trailing_var_arg(false).num_args(1).action(ArgAction::Set)
        } else {
            argument
        }
    };
    command.mut_args(first).arg(Arg::new("rest").num_args(0..).trailing_var_arg(true))
}

fn beginning_with(
    current: &OsStr,
    candidates: impl IntoIterator<Item = CompletionCandidate>,
) -> Vec<CompletionCandidate> {
    let current = current.as_encoded_bytes();
    let begins =
        |candidate: &CompletionCandidate| candidate.get_value().as_encoded_bytes().starts_with(current);
    candidates.into_iter().filter(begins).collect()
}

/// Names of sandboxes, ids of those without one; none where they cannot be read: a key is no place for messages.
fn sandboxes() -> Vec<CompletionCandidate> {
    let entries = host::locate().ok().and_then(|host| host.list().ok()).unwrap_or_default();
    let candidate = |entry: &cellule::Entry| {
        let name = entry.name.as_ref().map_or_else(|| entry.spec.id.to_string(), ToString::to_string);
        CompletionCandidate::new(name).help(Some(entry.record.state.to_string().into()))
    };
    entries.iter().map(candidate).collect()
}

fn images() -> Vec<CompletionCandidate> {
    let store = host::locate().ok().and_then(|host| host.images().ok());
    let images = store.and_then(|store| store.list().ok()).unwrap_or_default();
    images
        .iter()
        .flat_map(|image| &image.names)
        .map(|name| CompletionCandidate::new(name.familiar()))
        .collect()
}

#[cfg(test)]
mod tests;
