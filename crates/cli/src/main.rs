//! The `cellule` command. Owns the words that people type and read; what they do is in the libraries below.
//!
//! Standard output carries what was asked for and nothing else. All else goes to standard error.
#![forbid(unsafe_code)]

mod attached;
mod blocking;
mod bridge;
mod command;
mod completion;
mod config;
mod copy;
mod detach_keys;
mod each;
mod environment;
mod failure;
mod filters;
mod flow;
mod host;
mod json;
mod library_failure;
mod line;
mod listing;
mod live;
mod moment;
mod network_options;
mod output_file;
mod pool;
mod ports;
mod quantity;
mod relay;
mod report;
mod sandbox_failure;
mod sandbox_options;
mod secret_options;
mod setup;
mod store;
mod summary;
mod table;
mod terminal;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match completion::answer() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.render());
            return ExitCode::from(failure.exit_code());
        }
    }
    let arguments = match command::Cellule::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are what was asked for; anything else is a mistake in the words typed.
            _ = error.print();
            if let Some(hint) = hint(&error) {
                say(hint);
            }
            return ExitCode::from(if error.use_stderr() { failure::OWN_FAILURE } else { 0 });
        }
    };
    match command::dispatch(arguments) {
        Ok(code) => code,
        Err(failure) => {
            say(&failure.render());
            ExitCode::from(failure.exit_code())
        }
    }
}

/// What helps those who type a word of Docker's that this version does not have.
fn hint(error: &clap::Error) -> Option<&'static str> {
    match error.get(clap::error::ContextKind::InvalidArg)? {
        clap::error::ContextValue::String(word) => match word.as_str() {
            "-v" | "--volume" => {
                Some("cellule: volumes are not in this version; cellule cp copies files in and out\n")
            }
            _ => None,
        },
        _ => None,
    }
}

/// Writes to standard error. Nobody is left to tell if that fails.
fn say(text: &str) {
    _ = std::io::stderr().write_all(text.as_bytes());
}

/// Writes what was asked for to standard output. A reader that has hung up wants no more of it.
fn answer(text: &str) -> Result<(), failure::Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(failure::Failure::because("cannot write standard output", &error))
        }
        _ => Ok(()),
    }
}
