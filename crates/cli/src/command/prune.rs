//! `cellule prune`: removes all sandboxes that do not run.

use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;

use cellule::Entry;

use super::rm;
use crate::each::code;
use crate::failure::Failure;
use crate::filters::{Filter, Filters};
use crate::quantity::show_size;
use crate::{host, library_failure, moment};

const FILTERS: [&str; 2] = ["until", "label"];
/// An answer that is longer is no yes.
const ANSWER_BYTES: u64 = 64;

/// Remove all sandboxes that do not run
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove only some: until=TIME, those made before; label=NAME[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let filters = Filters::check(&arguments.filter, &FILTERS)?;
    let mut before = i64::MAX;
    for until in filters.values("until") {
        let moment = moment::parse(until).map_err(|why| Failure::new(format!("until={until}: {why}")))?;
        before = before.min(moment);
    }
    if !arguments.force && !confirmed()? {
        return Ok(ExitCode::SUCCESS);
    }
    let host = host::locate()?;
    let entries = host.list().map_err(|error| library_failure::of(&error))?;
    let doomed = entries.into_iter().filter(|entry| is_meant(entry, before, filters));
    super::runtime()?.block_on(async {
        let (mut freed, mut failed) = (0, false);
        for entry in doomed {
            let size = size(&entry.path);
            match rm::discard(&host, &entry).await {
                Ok(()) => {
                    freed += size;
                    crate::answer(&format!("deleted {}\n", entry.spec.id))?;
                }
                Err(failure) => {
                    crate::say(&failure.render());
                    failed = true;
                }
            }
        }
        crate::answer(&format!("freed {}\n", show_size(freed)))?;
        Ok(code(failed))
    })
}

fn is_meant(entry: &Entry, before: i64, filters: Filters<'_>) -> bool {
    !entry.is_live() && entry.spec.created_ns < before && filters.labels(&entry.spec.labels)
}

fn confirmed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            "there is no terminal to ask whether all sandboxes that do not run are to be removed",
        )
        .hint("say so: cellule prune --force"));
    }
    crate::say(
        "This removes all sandboxes that do not run, with all that was written in them. Go on? [y/N] ",
    );
    let mut answer = String::new();
    let read = std::io::stdin().lock().take(ANSWER_BYTES).read_line(&mut answer);
    read.map_err(|error| Failure::because("cannot read the answer", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What the files of a directory take on the disk, those in its directories included.
fn size(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(there) if there.is_dir() => size(&entry.path()),
        Ok(there) => there.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_directory_is_that_of_all_files_in_it() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("log")).unwrap();
        fs::write(scratch.path().join("state.json"), vec![b'x'; 5000]).unwrap();
        fs::write(scratch.path().join("log/main.log"), vec![b'x'; 50_000]).unwrap();
        assert!((55_000..100_000).contains(&size(scratch.path())), "{}", size(scratch.path()));
        assert_eq!(size(Path::new("/nonexistent")), 0);
    }
}
