//! `cellule images`: lists what the store has.

use std::process::ExitCode;

use cellule_image::ImageInfo;

use crate::failure::Failure;
use crate::quantity::show_size;
use crate::{home, store, table};

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// How to list them
    #[arg(long, default_value = "table", value_enum)]
    format: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// One JSON array
    Json,
    /// One JSON object on each line
    Jsonl,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let images = store::open(&home::locate()?)?;
    let list = images.list().map_err(|error| store::failure("cannot list the images", &error))?;
    crate::answer(
        &render(&list, arguments).map_err(|error| Failure::because("cannot print the images", &error))?,
    )?;
    Ok(ExitCode::SUCCESS)
}

fn render(list: &[ImageInfo], arguments: &Arguments) -> serde_json::Result<String> {
    if arguments.quiet {
        return Ok(list.iter().map(|image| format!("{}\n", image.id)).collect());
    }
    match arguments.format {
        Format::Table => Ok(table(list)),
        Format::Json => Ok(serde_json::to_string_pretty(list)? + "\n"),
        Format::Jsonl => list.iter().map(|image| Ok(serde_json::to_string(image)? + "\n")).collect(),
    }
}

fn table(list: &[ImageInfo]) -> String {
    let mut rows = Vec::new();
    for image in list {
        let short_id = image.id.hex().chars().take(12).collect::<String>();
        let row = |repository: String, tag: String| {
            let platform = image.platform.to_string();
            [
                repository,
                tag,
                short_id.clone(),
                platform,
                show_size(image.content_size),
                show_size(image.disk_size),
            ]
        };
        if image.names.is_empty() {
            rows.push(row("<none>".to_owned(), "<none>".to_owned()));
        }
        for name in &image.names {
            // A name without its tag is the familiar form less what stands behind its last colon.
            let familiar = name.familiar();
            let tag = name.tag().unwrap_or("<none>").to_owned();
            let repository = familiar.strip_suffix(&format!(":{tag}")).unwrap_or(&familiar).to_owned();
            rows.push(row(repository, tag));
        }
    }
    table::render(["REPOSITORY", "TAG", "IMAGE ID", "PLATFORM", "SIZE", "ON DISK"], &rows)
}
