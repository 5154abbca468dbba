//! `cellule snapshot …`: sandboxes as they were at one moment.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cellule::{DiskSize, SavedSandbox, Snapshot, SnapshotError, SnapshotName, Snapshots};
use serde::Serialize;

use crate::failure::{self, Failure, printable};
use crate::listing::{Listing, NoTrunc, Row};
use crate::quantity::show_size;
use crate::sandbox_options::label;
use crate::{completion, host, json, library_failure, moment, output_file};

/// Manage snapshots: sandboxes as they were at one moment, to start others from
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Save a sandbox as it is now, memory and all, and let it go on; prints the snapshot's name
    Create {
        /// The sandbox's name, or what its id begins with
        #[arg(add = completion::sandbox())]
        sandbox: String,
        /// The snapshot's name; by default the sandbox's, with a number
        name: Option<SnapshotName>,
        /// A label, for whoever lists snapshots
        #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = label)]
        label: Vec<(String, String)>,
        /// Say nothing but the name
        #[arg(short, long)]
        quiet: bool,
    },
    /// List snapshots, the newest first
    Ls {
        #[command(flatten)]
        listing: Listing,
        #[command(flatten)]
        trunc: NoTrunc,
    },
    /// Show all that is known of snapshots, as JSON
    Inspect {
        /// Their names
        #[arg(required = true, value_name = "SNAPSHOT", add = completion::snapshot())]
        snapshots: Vec<SnapshotName>,
    },
    /// Write a snapshot as one file, for another host or another day; its image does not go with it
    Export {
        /// Write this file instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Its name
        #[arg(add = completion::snapshot())]
        snapshot: SnapshotName,
    },
    /// Take in a snapshot that was exported; prints its name
    Import {
        /// Read this file instead of standard input
        #[arg(short, long, value_name = "FILE")]
        input: Option<PathBuf>,
        /// Its name; by default the sandbox's that it was made of, with a number
        name: Option<SnapshotName>,
    },
    /// Remove snapshots; sandboxes that were started from them are left alone
    Rm {
        /// Their names
        #[arg(required = true, value_name = "SNAPSHOT", add = completion::snapshot())]
        snapshots: Vec<SnapshotName>,
    },
    /// Remove old snapshots
    Prune {
        /// Keep this many of each sandbox, the newest
        #[arg(long, value_name = "N")]
        keep: usize,
    },
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Create { sandbox, name, label, quiet } => {
            super::runtime()?.block_on(create(&sandbox, name, label.into_iter().collect(), quiet))
        }
        Command::Ls { listing, trunc } => list(&host::locate()?.snapshots(), listing, trunc.no_trunc),
        Command::Inspect { snapshots: names } => inspect(&host::locate()?.snapshots(), &names),
        Command::Export { output, snapshot } => {
            export(&host::locate()?.snapshots(), &snapshot, output.as_deref())
        }
        Command::Import { input, name } => import(input, name),
        Command::Rm { snapshots: names } => remove(&host::locate()?.snapshots(), &names),
        Command::Prune { keep } => prune(&host::locate()?.snapshots(), keep),
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn create(
    sandbox: &str,
    name: Option<SnapshotName>,
    labels: BTreeMap<String, String>,
    quiet: bool,
) -> Result<(), Failure> {
    let mut connected = host::connect(sandbox).await?;
    let made = connected.snapshot(name, labels).await.map_err(|error| library_failure::of(&error))?;
    crate::answer(&format!("{}\n", made.name))?;
    if !quiet {
        let paused = made.outcome.paused.as_secs_f64() * 1000.0;
        let size = show_size(made.files.disk_bytes());
        crate::say(&format!("{sandbox} stood still for {paused:.1} ms; the snapshot takes {size}\n"));
    }
    Ok(())
}

fn list(snapshots: &Snapshots, listing: Listing, full: bool) -> Result<(), Failure> {
    let list = snapshots.list().map_err(|error| failed("cannot list the snapshots", &error))?;
    let rows: Vec<Shown> = list.iter().map(Shown::of).collect();
    crate::answer(&listing.render(&rows, full)?)
}

fn inspect(snapshots: &Snapshots, names: &[SnapshotName]) -> Result<(), Failure> {
    let shown = names.iter().map(|name| {
        let files =
            snapshots.find(name).map_err(|error| failed(&format!("cannot inspect {name}"), &error))?;
        let disk_bytes = files.disk_bytes();
        Ok(Shown::of(&Snapshot { name: name.clone(), files: Ok(files), disk_bytes }))
    });
    crate::answer(&json::pretty(&shown.collect::<Result<Vec<_>, Failure>>()?)?)
}

fn export(snapshots: &Snapshots, name: &SnapshotName, output: Option<&Path>) -> Result<(), Failure> {
    let what = format!("cannot export {name}");
    let files = snapshots.find(name).map_err(|error| failed(&what, &error))?;
    // A memory is its user's alone.
    output_file::write(output, 0o600, |to| {
        snapshots.export(&files, to).map_err(|error| failed(&what, &error))
    })
}

fn import(input: Option<PathBuf>, name: Option<SnapshotName>) -> Result<(), Failure> {
    let host = host::locate()?;
    let from: Box<dyn io::Read + Send> = if let Some(path) = input {
        let file = File::open(&path);
        Box::new(file.map_err(|error| Failure::because(format!("cannot open {}", path.display()), &error))?)
    } else {
        output_file::refuse_terminal("an archive")?;
        Box::new(io::stdin())
    };
    let imported = super::runtime()?.block_on(host.import_snapshot(from, name));
    let (name, files) = imported.map_err(|error| library_failure::of(&error))?;
    crate::answer(&format!("{name}\n"))?;
    let saved = SavedSandbox::of(&files).ok();
    let missing = saved.filter(|saved| {
        saved.spec.image != "base"
            && host.images().is_ok_and(|images| images.inspect(&saved.spec.image_digest).is_err())
    });
    if let Some(SavedSandbox { spec, .. }) = missing {
        let (image, id) = (&spec.image, &spec.image_digest);
        let text = format!("it needs the image {image} ({id}), which is not here yet: cellule pull {image}");
        // An archive may be anybody's.
        crate::say(&format!("{}\n", printable(&text)));
    }
    Ok(())
}

fn remove(snapshots: &Snapshots, names: &[SnapshotName]) -> Result<(), Failure> {
    for name in names {
        snapshots.remove(name).map_err(|error| failed(&format!("cannot remove {name}"), &error))?;
        crate::answer(&format!("{name}\n"))?;
    }
    Ok(())
}

fn prune(snapshots: &Snapshots, keep: usize) -> Result<(), Failure> {
    let all = snapshots.list().map_err(|error| failed("cannot list the snapshots", &error))?;
    let (mut seen, mut freed) = (HashMap::new(), 0);
    // What cannot be read is nobody's, and stays: it is for a person to look at.
    for snapshot in all.iter().filter(|snapshot| snapshot.files.is_ok()) {
        let count = seen.entry(Shown::of(snapshot).sandbox).or_insert(0);
        *count += 1;
        if *count <= keep {
            continue;
        }
        let name = &snapshot.name;
        freed += snapshots.remove(name).map_err(|error| failed(&format!("cannot remove {name}"), &error))?;
        crate::answer(&format!("deleted {name}\n"))?;
    }
    crate::answer(&format!("freed {}\n", show_size(freed)))
}

fn failed(message: &str, error: &SnapshotError) -> Failure {
    let failure = Failure::because(message, error);
    match error {
        SnapshotError::NoSuchSnapshot(_) => failure.hint("cellule snapshot ls lists those that there are"),
        _ => failure,
    }
}

/// A snapshot as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    /// ready, or damaged.
    state: &'static str,
    /// What is wrong with it.
    cause: Option<String>,
    /// The sandbox, as it was called.
    sandbox: Option<String>,
    image: Option<String>,
    image_digest: Option<String>,
    cpus: Option<u32>,
    memory_bytes: Option<u64>,
    scratch_disk_bytes: Option<u64>,
    /// Whether its main program goes on.
    main: Option<bool>,
    created_ns: Option<i64>,
    disk_bytes: u64,
    labels: BTreeMap<String, String>,
    /// The engine, its version and its machine, and the frequency of the clock: where it can go on.
    origin: Option<String>,
}

impl Shown {
    fn of(snapshot: &Snapshot) -> Self {
        let mut shown = Self {
            name: snapshot.name.to_string(),
            state: "ready",
            cause: None,
            sandbox: None,
            image: None,
            image_digest: None,
            cpus: None,
            memory_bytes: None,
            scratch_disk_bytes: None,
            main: None,
            created_ns: None,
            disk_bytes: snapshot.disk_bytes,
            labels: BTreeMap::new(),
            origin: None,
        };
        let files = match &snapshot.files {
            Ok(files) => files,
            Err(error) => return shown.damaged(error),
        };
        let manifest = files.manifest();
        shown.created_ns = Some(manifest.saved_ns);
        shown.origin = Some(manifest.origin.to_string());
        if let Some(subject) = manifest.sandbox() {
            shown.sandbox = Some(subject.name.clone());
            shown.labels.clone_from(&subject.labels);
        }
        match SavedSandbox::of(files) {
            Ok(saved) => {
                shown.image = Some(saved.spec.image);
                shown.image_digest = Some(saved.spec.image_digest);
                shown.cpus = Some(saved.spec.cpus);
                shown.memory_bytes = Some(saved.spec.memory_mib << 20);
                shown.scratch_disk_bytes = saved.spec.disk.map(DiskSize::bytes);
                shown.main = Some(saved.main.is_some());
                shown
            }
            Err(error) => shown.damaged(&error),
        }
    }

    fn damaged(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        (self.state, self.cause) = ("damaged", Some(failure::line(error)));
        self
    }
}

impl Row<7> for Shown {
    const HEADER: [&'static str; 7] =
        ["SNAPSHOT", "SANDBOX", "IMAGE", "MEMORY", "ON DISK", "CREATED", "STATE"];

    fn id(&self) -> String {
        self.name.clone()
    }

    fn lines(&self, _full: bool) -> Vec<[String; 7]> {
        let unknown = || "?".to_owned();
        let state = match &self.cause {
            Some(cause) => format!("{}: {cause}", self.state),
            None => self.state.to_owned(),
        };
        let created = self.created_ns.map(|at| format!("{} ago", moment::since(at, moment::now())));
        vec![[
            self.name.clone(),
            self.sandbox.clone().unwrap_or_else(unknown),
            self.image.clone().unwrap_or_else(unknown),
            self.memory_bytes.map_or_else(unknown, show_size),
            show_size(self.disk_bytes),
            created.unwrap_or_else(unknown),
            state,
        ]]
    }
}
