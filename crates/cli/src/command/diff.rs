//! `cellule diff`: what differs from the image.

use std::process::ExitCode;

use cellule_protocol::v1::difference::Kind;
use serde::Serialize;

use crate::failure::Failure;
use crate::line::one_line;
use crate::listing::Format;
use crate::{completion, host, json};

/// Print what differs from the image: A for added, C for changed, D for deleted
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// How to print it; the table has no header
    #[arg(long, default_value = "table", value_enum, value_name = "FORMAT")]
    format: Format,
}

/// One path that differs.
#[derive(Debug, Serialize)]
struct Line {
    kind: &'static str,
    path: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let differences = super::runtime()?.block_on(async {
        let mut sandbox = host::connect(&arguments.sandbox).await?;
        match sandbox.diff().await {
            Ok(differences) => Ok(differences),
            Err(error) => Err(host::explained(&mut sandbox, error).await),
        }
    })?;
    let lines: Vec<Line> = differences.iter().map(|one| line(one.kind(), &one.path)).collect();
    crate::answer(&render(&lines, arguments.format)?)?;
    Ok(ExitCode::SUCCESS)
}

fn line(kind: Kind, path: &[u8]) -> Line {
    let kind = match kind {
        Kind::Added => "A",
        Kind::Deleted => "D",
        // One of a later version's is a change too.
        Kind::Changed | Kind::Unspecified => "C",
    };
    Line { kind, path: String::from_utf8_lossy(path).into_owned() }
}

fn render(lines: &[Line], format: Format) -> Result<String, Failure> {
    match format {
        Format::Table => Ok(lines
            .iter()
            .map(|line| format!("{} {}\n", line.kind, one_line(line.path.as_bytes())))
            .collect()),
        Format::Json => json::pretty(lines),
        Format::Jsonl => lines.iter().map(json::line).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_a_letter_and_a_path_on_one_line() {
        let lines =
            [line(Kind::Added, b"/a\nD /etc"), line(Kind::Changed, b"/b"), line(Kind::Deleted, b"/c")];
        assert_eq!(render(&lines, Format::Table).unwrap(), "A /a\u{fffd}D /etc\nC /b\nD /c\n");
        let first = "{\"kind\":\"A\",\"path\":\"/a\\nD /etc\"}\n";
        assert!(render(&lines, Format::Jsonl).unwrap().starts_with(first));
    }
}
