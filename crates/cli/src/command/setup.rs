//! `cellule setup`: makes the boot bundle.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use cellule_boot::{Bundle, KernelSource, SourceRecord};

use crate::failure::Failure;
use crate::quantity::{show_duration, show_size};
use crate::watch::Watch;
use crate::{host, library_failure, setup, store};

/// Make the boot bundle: the guest's kernel and modules, the agent, and the image `base`
///
/// The kernel comes from Debian's package for virtual machines, through this host's apt and without root, unless another
/// is named. A bundle that is there and whole is kept.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Use this kernel, a bzImage or an ELF with a PVH entry
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The modules of that kernel, a directory such as /lib/modules/6.12.9
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Use this host's own kernel and modules
    #[arg(long, conflicts_with = "kernel")]
    host_kernel: bool,
    /// Make the bundle anew, from Debian's newest package unless a kernel is named
    #[arg(long)]
    force: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    let host = host::locate()?;
    let home = host.home();
    let source = match (arguments.kernel, arguments.host_kernel, arguments.force) {
        (Some(kernel), ..) => Some(KernelSource::Files { kernel, modules: arguments.modules }),
        (None, true, _) => Some(KernelSource::Host { release: None }),
        (None, false, true) => Some(KernelSource::for_this_host()),
        (None, false, false) => None,
    };
    let watch = Watch::new(arguments.quiet);
    let bundle = setup::setup(home, source, &|progress| watch.boot(progress));
    watch.clear();
    let bundle = bundle?;

    let images = store::open(home)?;
    let options = cellule_image::Options::default();
    let added = super::runtime()?.block_on(cellule::add_base_image(&images, &bundle, &options));
    added.map_err(|error| library_failure::of(&error))?;
    if !arguments.quiet {
        crate::answer(&describe(&bundle))?;
        crate::say(&format!("cellule: ready after {}\n", show_duration(begun.elapsed())));
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(bundle: &Bundle) -> String {
    let manifest = &bundle.manifest;
    let kernel = &manifest.contents.kernel;
    let source = match &kernel.source {
        SourceRecord::Debian { package, version } => format!("Debian's package {package} {version}"),
        SourceRecord::File { path } => path.display().to_string(),
    };
    let size: u64 = manifest.files.values().map(|file| file.size).sum();
    format!(
        "bundle {}\nkernel {} from {source}\nsize   {}\n",
        &bundle.id[..12],
        kernel.release,
        show_size(size)
    )
}
