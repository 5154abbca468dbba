//! `cellule inspect`: all that is known of sandboxes.

use std::process::ExitCode;

use cellule::Inspect;

use crate::each::code;
use crate::failure::Failure;
use crate::{completion, host, json, library_failure};

/// Print all that is known of sandboxes, as a JSON array
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names, or what ids begin with
    #[arg(required_unless_present = "schema", value_name = "SANDBOX", add = completion::sandbox())]
    sandboxes: Vec<String>,
    /// Print the JSON schema of one element of the array instead
    #[arg(long, conflicts_with = "sandboxes")]
    schema: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.schema {
        let schema =
            Inspect::schema().map_err(|error| Failure::because("cannot print the schema", &error))?;
        crate::answer(&format!("{schema}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let host = host::locate()?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in &arguments.sandboxes {
        match host.find(name) {
            Ok(entry) => found.push(Inspect::of(&entry)),
            Err(error) => failures.push(library_failure::of(&error)),
        }
    }
    crate::answer(&json::pretty(&found)?)?;
    for failure in &failures {
        crate::say(&failure.render());
    }
    Ok(code(!failures.is_empty()))
}
