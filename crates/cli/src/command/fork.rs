//! `cellule fork`: running copies of a running sandbox.

use std::collections::HashSet;
use std::process::ExitCode;

use cellule::{Host, Sandbox, SandboxName};

use crate::failure::Failure;
use crate::quantity::show_size;
use crate::report::Report;
use crate::{completion, host, library_failure, ports};

/// What a pattern has in the place of the number.
const NUMBER: &str = "{}";

/// Make running copies of a running sandbox, which goes on
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// What they are called: {} is their number; without it, the number follows behind a hyphen if there are several
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// Print their names alone
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let forked = runtime.block_on(fork(arguments));
    runtime.shutdown_background();
    forked
}

async fn fork(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let failed = |error: cellule::Error| library_failure::of(&error);
    let host = host::locate()?;
    let mut parent = host.connect(&arguments.sandbox).await.map_err(failed)?;
    let names = match &arguments.name {
        Some(pattern) => numbered(pattern, arguments.count)?,
        None => free_names(&host, &parent, arguments.count)?,
    };
    let forked = parent.fork_as(&names).await.map_err(failed)?;
    for mut sandbox in forked.sandboxes {
        sandbox.detach().await.map_err(failed)?;
        ports::tell_chosen(&sandbox, &Report::new(false, arguments.quiet))?;
        crate::answer(&format!("{}\n", sandbox.name().unwrap_or(sandbox.id())))?;
    }
    if !arguments.quiet {
        let (paused, copied) = (forked.paused.as_secs_f64() * 1000.0, show_size(forked.copied_bytes));
        crate::say(&format!(
            "{} stood still for {paused:.1} ms, in which {copied} were copied\n",
            arguments.sandbox
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The names that a pattern gives.
fn numbered(pattern: &str, count: u16) -> Result<Vec<Option<SandboxName>>, Failure> {
    let name = |number: u16| match (pattern.contains(NUMBER), count) {
        (true, _) => pattern.replace(NUMBER, &number.to_string()),
        (false, 1) => pattern.to_owned(),
        (false, _) => format!("{pattern}-{number}"),
    };
    let named = (1..=count).map(|number| {
        let name = name(number);
        name.parse().map(Some).map_err(|error| Failure::because(format!("{name:?} is no name"), &error))
    });
    named.collect()
}

/// The parent's name with the first numbers that are free. Copies of one without a name have none either.
fn free_names(host: &Host, parent: &Sandbox, count: u16) -> Result<Vec<Option<SandboxName>>, Failure> {
    let Some(stem) = parent.name() else { return Ok(vec![None; count.into()]) };
    let entries = host.list().map_err(|error| library_failure::of(&error))?;
    let taken: HashSet<String> =
        entries.into_iter().filter_map(|entry| Some(entry.name?.to_string())).collect();
    let free = (1_u32..).map(|number| format!("{stem}-{number}")).filter(|name| !taken.contains(name));
    // A name that grew too long leaves the copy without one.
    Ok(free.take(count.into()).map(|name| name.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str, count: u16) -> Vec<String> {
        numbered(pattern, count).unwrap().into_iter().flatten().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_pattern_has_the_number_where_it_says_or_behind() {
        assert_eq!(names("w{}x", 2), ["w1x", "w2x"]);
        assert_eq!(names("web", 1), ["web"]);
        assert_eq!(names("web", 2), ["web-1", "web-2"]);
        assert!(numbered("a/{}", 1).is_err());
    }
}
