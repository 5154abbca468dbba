//! `cellule fs watch`: what changes.

use std::process::ExitCode;

use cellule::WatchEvent;
use serde::Serialize;

use super::{Place, absolute, done};
use crate::failure::Failure;
use crate::line::one_line;
use crate::listing::Format;
use crate::{host, json, live};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Watch all directories below too
    #[arg(short, long)]
    recursive: bool,
    /// How to print it; as JSON, each change is an object on a line of its own
    #[arg(long, default_value = "table", value_enum, value_name = "FORMAT")]
    format: Format,
    #[command(flatten)]
    place: Place,
}

/// A change.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// What a renamed one is called now.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    directory: bool,
}

pub(super) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(&arguments.place.sandbox).await?;
    let watch = sandbox.files().watch(absolute(&arguments.place.path), arguments.recursive).await;
    let mut watch = done(&mut sandbox, watch).await?;
    while let Some(event) = watch.next().await {
        let event = done(&mut sandbox, event).await?;
        if !print(&line(&event), arguments.format)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints one. False: nobody reads any more.
fn print(line: &Line, format: Format) -> Result<bool, Failure> {
    let text = match format {
        Format::Table => text(line),
        Format::Json | Format::Jsonl => json::line(line)?,
    };
    live::show(&text)
}

fn line(event: &WatchEvent) -> Line {
    let text = |path: &[u8]| Some(String::from_utf8_lossy(path).into_owned());
    let at = |event, path: &[u8], directory| Line { event, path: text(path), to: None, directory };
    match event {
        WatchEvent::Created { path, directory } => at("created", path, *directory),
        WatchEvent::Modified { path, directory } => at("modified", path, *directory),
        WatchEvent::Attributes { path, directory } => at("attributes", path, *directory),
        WatchEvent::Deleted { path, directory } => at("deleted", path, *directory),
        WatchEvent::Renamed { from, to, directory } => {
            Line { to: text(to), ..at("renamed", from, *directory) }
        }
        WatchEvent::Overflow => Line { event: "overflow", path: None, to: None, directory: false },
        WatchEvent::Gone => Line { event: "gone", path: None, to: None, directory: false },
    }
}

/// The event, and the path; a directory's has a slash at its end.
fn text(line: &Line) -> String {
    let shown = |path: &Option<String>| {
        let slash = if line.directory { "/" } else { "" };
        path.as_deref().map(|path| one_line(path.as_bytes()) + slash)
    };
    match (shown(&line.path), shown(&line.to)) {
        (Some(path), Some(to)) => format!("{} {path} -> {to}\n", line.event),
        (Some(path), None) => format!("{} {path}\n", line.event),
        _ => format!("{}\n", line.event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_a_word_and_its_paths_on_one_line() {
        let path = |path: &str| path.as_bytes().to_vec();
        let shown = |event: WatchEvent| text(&line(&event));
        assert_eq!(shown(WatchEvent::Created { path: path("/d"), directory: true }), "created /d/\n");
        assert_eq!(
            shown(WatchEvent::Modified { path: path("/a\nb"), directory: false }),
            "modified /a\u{fffd}b\n"
        );
        let renamed = WatchEvent::Renamed { from: path("/a"), to: path("/b"), directory: false };
        assert_eq!(shown(renamed), "renamed /a -> /b\n");
        assert_eq!(shown(WatchEvent::Overflow), "overflow\n");
    }

    #[test]
    fn programs_get_only_the_paths_that_there_are() {
        let json = |event| serde_json::to_string(&line(&event)).unwrap();
        let deleted = WatchEvent::Deleted { path: b"/a".to_vec(), directory: false };
        assert_eq!(json(deleted), "{\"event\":\"deleted\",\"path\":\"/a\",\"directory\":false}");
        assert_eq!(json(WatchEvent::Gone), "{\"event\":\"gone\",\"directory\":false}");
    }
}
