//! `xtask-codegen [--check]`: what `cargo xtask codegen` runs.

use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "a development tool speaks to its terminal")]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let check = match (arguments.next().as_deref(), arguments.next()) {
        (None, None) => false,
        (Some("--check"), None) => true,
        _ => {
            eprintln!("usage: xtask-codegen [--check]");
            return ExitCode::from(2);
        }
    };
    let Err(error) = xtask_codegen::codegen(check) else { return ExitCode::SUCCESS };
    eprint!("{error}");
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
    ExitCode::FAILURE
}
