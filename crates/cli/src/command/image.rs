//! `cellule image …`: what is done with images besides getting and running them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use cellule::Host;
use cellule_image::{
    Digest, Error, ImageConfig, Import, ImportFrom, LoadFrom, PruneOptions, Reference, RemoveOptions, Source,
    Store,
};

use crate::failure::Failure;
use crate::output_file::{self, refuse_terminal};
use crate::quantity::show_size;
use crate::store::{self, GetOptions};
use crate::watch::Watch;
use crate::{host, json};

/// Manage images
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print all that is known of images, as JSON
    Inspect {
        /// Names, ids, or beginnings of ids
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove images, or names of them
    Rm {
        /// Names, ids, or beginnings of ids
        #[arg(required = true)]
        images: Vec<String>,
        /// Remove an image that has several names, or is used, all the same
        #[arg(short, long)]
        force: bool,
    },
    /// Remove images without a name, and whatever belongs to no image
    Prune {
        /// Remove images that have names too
        #[arg(short, long)]
        all: bool,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Make an image of a root filesystem: a tar, a directory, or `-` for a tar on standard input
    Import {
        /// Set one of the image's settings, written as in a Dockerfile: `CMD ["/bin/sh"]`
        #[arg(short, long, value_name = "INSTRUCTION")]
        change: Vec<String>,
        #[command(flatten)]
        get: GetOptions,
        /// The tar or directory
        source: String,
        /// The image's name
        name: Option<Reference>,
    },
    /// Load the images of an archive that `docker save` or `cellule image save` wrote
    Load {
        /// Read this file instead of standard input
        #[arg(short, long, value_name = "FILE")]
        input: Option<PathBuf>,
        #[command(flatten)]
        get: GetOptions,
    },
    /// Write images to an archive that `docker load` reads
    Save {
        /// Write this file instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Names, ids, or beginnings of ids
        #[arg(required = true)]
        images: Vec<String>,
    },
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let images = store::open(host.home())?;
    match command {
        Command::Inspect { images: names } => inspect(&images, &names),
        Command::Rm { images: names, force } => {
            remove(&images, &names, &RemoveOptions { force, in_use: in_use(&host)? })
        }
        Command::Prune { all, dry_run } => {
            prune(&images, &PruneOptions { dry_run, all, in_use: in_use(&host)? })
        }
        Command::Import { change, get, source, name } => import(&images, &change, &get, &source, name),
        Command::Load { input, get } => load(&images, input, &get),
        Command::Save { output, images: names } => save(&images, output.as_deref(), &names),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn inspect(images: &Store, names: &[String]) -> Result<(), Failure> {
    let infos = names.iter().map(|name| {
        images.inspect(name).map_err(|error| store::failure(format!("cannot inspect {name}"), &error))
    });
    let infos = infos.collect::<Result<Vec<_>, _>>()?;
    crate::answer(&json::pretty(&infos)?)
}

/// The images that sandboxes need, those included that do not run now.
fn in_use(host: &Host) -> Result<BTreeMap<Digest, String>, Failure> {
    host.images_in_use().map_err(|error| Failure::because("cannot look which images sandboxes use", &error))
}

fn remove(images: &Store, names: &[String], options: &RemoveOptions) -> Result<(), Failure> {
    for name in names {
        let removed = images.remove(name, options);
        let removed = removed.map_err(|error| store::failure(format!("cannot remove {name}"), &error))?;
        for name in &removed.untagged {
            crate::answer(&format!("untagged {name}\n"))?;
        }
        if let Some(id) = &removed.deleted {
            crate::answer(&format!("deleted {id}, {}\n", show_size(removed.bytes)))?;
        }
    }
    Ok(())
}

fn prune(images: &Store, options: &PruneOptions) -> Result<(), Failure> {
    let dry_run = options.dry_run;
    let pruned = images.prune(options).map_err(|error| store::failure("cannot prune the images", &error))?;
    let verb = if dry_run { "would delete" } else { "deleted" };
    let mut text = String::new();
    for (id, names) in &pruned.images {
        let names = names.iter().map(|name| format!(" {name}")).collect::<String>();
        _ = writeln!(text, "{verb} {id}{names}");
    }
    let freed = if dry_run { "would free" } else { "freed" };
    _ = writeln!(text, "{freed} {}", show_size(pruned.bytes()));
    crate::answer(&text)
}

fn import(
    images: &Store,
    changes: &[String],
    get: &GetOptions,
    source: &str,
    name: Option<Reference>,
) -> Result<(), Failure> {
    let failed = |error: Error| store::failure(format!("cannot import {source}"), &error);
    let mut config = ImageConfig::default();
    for change in changes {
        config.apply(change).map_err(|error| Failure::because(format!("--change {change:?}"), &error))?;
    }
    let from = match source {
        "-" => {
            refuse_terminal("a tar")?;
            ImportFrom::Reader(Box::new(std::io::stdin()))
        }
        // A name without a prefix is a file here: registries have nothing to import.
        path => match path.parse() {
            Ok(Source::Tar(path)) => ImportFrom::Tar(path),
            Ok(Source::Directory(path)) => ImportFrom::Directory(path),
            _ if Path::new(path).is_dir() => ImportFrom::Directory(path.into()),
            _ => ImportFrom::Tar(path.into()),
        },
    };
    let watch = Arc::new(Watch::new(false));
    let options = get.options(&watch);
    let image = super::runtime()?.block_on(images.import(from, Import { name, config }, &options));
    watch.clear();
    crate::answer(&format!("{}\n", image.map_err(failed)?.info.id))
}

fn load(images: &Store, input: Option<PathBuf>, get: &GetOptions) -> Result<(), Failure> {
    let from = if let Some(path) = &input {
        LoadFrom::File(path.clone())
    } else {
        refuse_terminal("an archive")?;
        LoadFrom::Reader(Box::new(std::io::stdin()))
    };
    let watch = Arc::new(Watch::new(false));
    let options = get.options(&watch);
    let loaded = super::runtime()?.block_on(images.load(from, &options));
    watch.clear();
    let what = input.map_or_else(|| "the archive".to_owned(), |path| path.display().to_string());
    for image in loaded.map_err(|error| store::failure(format!("cannot load {what}"), &error))? {
        let names = image.info.names.iter().map(|name| format!(" {}", name.familiar())).collect::<String>();
        crate::answer(&format!("loaded {}{names}\n", image.info.id))?;
    }
    Ok(())
}

fn save(images: &Store, output: Option<&Path>, names: &[String]) -> Result<(), Failure> {
    let failed = |error: Error| store::failure("cannot save", &error);
    output_file::write(output, 0o644, |to| images.save(names, to).map_err(failed))
}
