//! `cellule template …`: the machines that sandboxes start from.

use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use cellule::{Builder, SnapshotError, Template, TemplateState, Templates};
use serde::Serialize;

use crate::failure::Failure;
use crate::listing::{Listing, NoTrunc, Row, shown_id};
use crate::quantity::show_size;
use crate::{host, moment};

/// Manage templates: machines that have booted, for sandboxes to start from
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List templates, the last used first
    Ls {
        #[command(flatten)]
        listing: Listing,
        #[command(flatten)]
        trunc: NoTrunc,
    },
    /// Remove templates; the next sandbox like theirs boots, and makes them anew
    Rm {
        /// Ids, or beginnings of ids
        #[arg(required = true)]
        templates: Vec<String>,
    },
    /// Remove templates that did not work
    Prune {
        /// Remove those that work too
        #[arg(short, long)]
        all: bool,
    },
}

pub(crate) fn run(command: &Command) -> Result<ExitCode, Failure> {
    let templates = host::locate()?.templates(Builder::DEFAULT_TEMPLATE_CACHE);
    match command {
        Command::Ls { listing, trunc } => list(&templates, *listing, trunc.no_trunc),
        Command::Rm { templates: names } => remove(&templates, names),
        Command::Prune { all } => prune(&templates, *all),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn list(templates: &Templates, listing: Listing, full: bool) -> Result<(), Failure> {
    let list = templates.list().map_err(|error| failed("cannot list the templates", &error))?;
    let now = moment::now();
    let rows: Vec<Shown> = list.iter().map(|template| Shown::of(template, now)).collect();
    crate::answer(&listing.render(&rows, full)?)
}

fn remove(templates: &Templates, names: &[String]) -> Result<(), Failure> {
    for name in names {
        let removed = templates
            .resolve(name)
            .and_then(|template| Ok((template.id.clone(), templates.remove(&template.id)?)));
        let (id, _) = removed.map_err(|error| failed(&format!("cannot remove {name}"), &error))?;
        crate::answer(&format!("{id}\n"))?;
    }
    Ok(())
}

fn prune(templates: &Templates, all: bool) -> Result<(), Failure> {
    let removed = templates.prune(all).map_err(|error| failed("cannot prune the templates", &error))?;
    for (id, _) in &removed {
        crate::answer(&format!("deleted {id}\n"))?;
    }
    crate::answer(&format!("freed {}\n", show_size(removed.iter().map(|(_, bytes)| bytes).sum())))
}

fn failed(message: &str, error: &SnapshotError) -> Failure {
    let failure = Failure::because(message, error);
    match error {
        SnapshotError::NoSuchTemplate(_) => failure.hint("cellule template ls lists those that there are"),
        _ => failure,
    }
}

/// A template as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    /// ready, or failed.
    state: &'static str,
    /// Why it failed.
    cause: Option<String>,
    /// The image, as it was named by whose first sandbox made it.
    image: Option<String>,
    cpus: Option<u32>,
    memory_bytes: Option<u64>,
    scratch_disk_bytes: Option<u64>,
    disk_bytes: u64,
    created_ns: Option<i64>,
    used_ns: i64,
    #[serde(skip)]
    now: i64,
}

impl Shown {
    fn of(template: &Template, now: i64) -> Self {
        let manifest = template.manifest.as_ref();
        let made_of = manifest.and_then(cellule::Manifest::template);
        let used = template.used.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (state, cause) = match &template.state {
            TemplateState::Ready => ("ready", None),
            TemplateState::Failed(cause) => ("failed", Some(cause.clone())),
        };
        Self {
            id: template.id.to_string(),
            state,
            cause,
            image: made_of.map(|made_of| made_of.label.clone()),
            cpus: made_of.map(|made_of| made_of.key.cpus),
            memory_bytes: made_of.map(|made_of| made_of.key.memory_mib << 20),
            scratch_disk_bytes: made_of.map(|made_of| made_of.key.disk_mib << 20),
            disk_bytes: template.disk_bytes,
            created_ns: manifest.map(|manifest| manifest.saved_ns),
            used_ns: i64::try_from(used.as_nanos()).unwrap_or(i64::MAX),
            now,
        }
    }
}

impl Row<8> for Shown {
    const HEADER: [&'static str; 8] =
        ["TEMPLATE ID", "IMAGE", "CPUS", "MEMORY", "DISK", "ON DISK", "LAST USED", "STATE"];

    fn id(&self) -> String {
        self.id.clone()
    }

    fn lines(&self, full: bool) -> Vec<[String; 8]> {
        let unknown = || "?".to_owned();
        let state = match &self.cause {
            Some(cause) => format!("{}: {cause}", self.state),
            None => self.state.to_owned(),
        };
        vec![[
            shown_id(&self.id, full),
            self.image.clone().unwrap_or_else(unknown),
            self.cpus.map_or_else(unknown, |cpus| cpus.to_string()),
            self.memory_bytes.map_or_else(unknown, show_size),
            self.scratch_disk_bytes.map_or_else(unknown, shown_disk),
            show_size(self.disk_bytes),
            format!("{} ago", moment::since(self.used_ns, self.now)),
            state,
        ]]
    }
}

/// The size of a scratch disk, which there may be none of.
fn shown_disk(bytes: u64) -> String {
    if bytes == 0 { "-".to_owned() } else { show_size(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_failed_says_why_and_one_without_a_manifest_is_listed() {
        let shown = Shown {
            id: "0123456789abcdef01234567".to_owned(),
            state: "failed",
            cause: Some("its memory was changed".to_owned()),
            image: None,
            cpus: None,
            memory_bytes: None,
            scratch_disk_bytes: None,
            disk_bytes: 4096,
            created_ns: None,
            used_ns: 0,
            now: 60_000_000_000,
        };
        let [line] = shown.lines(false).try_into().expect("one line");
        assert_eq!(line[0], "0123456789ab");
        assert_eq!((line[1].as_str(), line[7].as_str()), ("?", "failed: its memory was changed"));
    }
}
