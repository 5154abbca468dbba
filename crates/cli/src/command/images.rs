//! `cellule images`: lists what the store has.

use std::process::ExitCode;

use cellule_image::ImageInfo;

use crate::failure::Failure;
use crate::listing::{Listing, NoTrunc, Row, shown_id};
use crate::quantity::show_size;
use crate::{host, store};

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    trunc: NoTrunc,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let images = store::open(host::locate()?.home())?;
    let list = images.list().map_err(|error| store::failure("cannot list the images", &error))?;
    crate::answer(&arguments.listing.render(&list, arguments.trunc.no_trunc)?)?;
    Ok(ExitCode::SUCCESS)
}

impl Row<6> for ImageInfo {
    const HEADER: [&'static str; 6] = ["REPOSITORY", "TAG", "IMAGE ID", "PLATFORM", "SIZE", "ON DISK"];

    fn id(&self) -> String {
        self.id.to_string()
    }

    /// One for each name.
    fn lines(&self, full: bool) -> Vec<[String; 6]> {
        let id = if full { self.id.to_string() } else { shown_id(&self.id.hex(), false) };
        let line = |repository: String, tag: String| {
            let [content, disk] = [self.content_size, self.disk_size].map(show_size);
            [repository, tag, id.clone(), self.platform.to_string(), content, disk]
        };
        if self.names.is_empty() {
            return vec![line("<none>".to_owned(), "<none>".to_owned())];
        }
        let named = self.names.iter().map(|name| {
            // A name without its tag is the familiar form less what stands behind its last colon.
            let familiar = name.familiar();
            let tag = name.tag().unwrap_or("<none>").to_owned();
            let repository = familiar.strip_suffix(&format!(":{tag}")).unwrap_or(&familiar).to_owned();
            line(repository, tag)
        });
        named.collect()
    }
}
