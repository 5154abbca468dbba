//! `cargo xtask …`: what is done with Cellule while it is made. Owns no product code.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a development tool speaks to its terminal")]

mod bench;
mod chaos;
mod soak;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser as _;

/// What goes wrong in a development tool is told and not handled.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, clap::Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Boot many cold guests, several at a time, and count the failures
    Soak(soak::Arguments),
    /// Kill clients, supervisors and engines at random moments, and look for lies and leftovers
    Chaos(chaos::Arguments),
    /// Measure, each figure beside its floor of the same run
    Bench(bench::Arguments),
    /// Make the code of the .proto files, or with --check see whether it is up to date
    Codegen {
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Chaos(arguments) => chaos::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Codegen { check } => codegen(check),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn codegen(check: bool) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--locked", "--package", "xtask-codegen"]);
    if check {
        cargo.args(["--", "--check"]);
    }
    if cargo.status()?.success() { Ok(()) } else { Err("the code of the .proto files was not made".into()) }
}

/// The program under test, built by `make build`.
fn program() -> Result<PathBuf> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let program = workspace.join("target/release/cellule");
    if program.exists() { Ok(program) } else { Err("target/release/cellule is not there: make build".into()) }
}
