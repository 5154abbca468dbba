//! `cellule pull`: gets an image without running it.

use std::process::ExitCode;
use std::sync::Arc;

use cellule_image::{Policy, Source};

use crate::failure::Failure;
use crate::host;
use crate::store::{self, GetOptions};
use crate::watch::Watch;

/// Get an image from a registry, an OCI layout, an archive, a tar or a directory
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The image: a reference, oci:DIR[:TAG], docker-archive:FILE, or a path
    image: String,
    #[command(flatten)]
    get: GetOptions,
    /// Print nothing but the image's id
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let home = host.home();
    let images = store::open(home)?;
    let watch = Arc::new(Watch::new(arguments.quiet));
    let options = arguments.get.options(&watch);
    let failed =
        |error| store::named_failure(format!("cannot pull {}", arguments.image), &error, &arguments.image);
    let source: Source =
        arguments.image.parse().map_err(|error| failed(cellule_image::Error::Source(error)))?;
    let image = super::runtime()?.block_on(images.pull(&source, Policy::Always, &options));
    watch.clear();
    let image = image.map_err(failed)?;
    if arguments.quiet {
        crate::answer(&format!("{}\n", image.info.id))?;
    } else {
        crate::answer(&format!("{}\ndigest {}\n", arguments.image, image.info.manifest_digest))?;
    }
    Ok(ExitCode::SUCCESS)
}
