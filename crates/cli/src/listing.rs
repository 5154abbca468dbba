//! What all listings have in common: `--format`, `--quiet`, and how the rows become text.

use serde::Serialize;

use crate::failure::Failure;
use crate::{json, table};

/// The options of a listing.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Listing {
    /// Print ids alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) format: FormatOption,
}

/// `--format` alone, for what has no ids.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct FormatOption {
    /// How to print it
    #[arg(long, default_value = "table", value_enum, value_name = "FORMAT")]
    pub(crate) format: Format,
}

/// `--no-trunc`, for listings that cut long texts off.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct NoTrunc {
    /// Print ids and other long texts in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

/// A form of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns
    Table,
    /// One JSON array
    Json,
    /// One JSON object on each line
    Jsonl,
}

/// Something that a listing of `N` columns can hold. As JSON it is whole; the table is for people.
pub(crate) trait Row<const N: usize>: Serialize {
    /// What stands above the columns.
    const HEADER: [&'static str; N];

    /// What `--quiet` prints.
    fn id(&self) -> String;

    /// The lines of the table, mostly one. Cells need no escaping. `full` asks for what is cut off otherwise.
    fn lines(&self, full: bool) -> Vec<[String; N]>;
}

impl Listing {
    /// The text of a listing. `full` is what `--no-trunc` says.
    ///
    /// # Errors
    /// A row has no form in JSON.
    pub(crate) fn render<const N: usize, R: Row<N>>(self, rows: &[R], full: bool) -> Result<String, Failure> {
        if self.quiet {
            return Ok(rows.iter().map(|row| crate::failure::printable(&row.id()) + "\n").collect());
        }
        self.format.render(rows, full)
    }
}

impl FormatOption {
    /// The text of a listing. `full` is what `--no-trunc` says.
    ///
    /// # Errors
    /// A row has no form in JSON.
    pub(crate) fn render<const N: usize, R: Row<N>>(self, rows: &[R], full: bool) -> Result<String, Failure> {
        match self.format {
            Format::Table => {
                let lines: Vec<_> = rows.iter().flat_map(|row| row.lines(full)).collect();
                Ok(table::render(R::HEADER, &lines))
            }
            Format::Json => json::pretty(rows),
            Format::Jsonl => rows.iter().map(json::line).collect(),
        }
    }
}

/// The first twelve digits of an id, as Docker shows them; all of it if `full`.
pub(crate) fn shown_id(id: &str, full: bool) -> String {
    if full { id.to_owned() } else { id.chars().take(12).collect() }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Serialize)]
    struct Thing {
        id: &'static str,
        names: Vec<&'static str>,
    }

    impl Row<2> for Thing {
        const HEADER: [&'static str; 2] = ["ID", "NAME"];

        fn id(&self) -> String {
            self.id.to_owned()
        }

        fn lines(&self, full: bool) -> Vec<[String; 2]> {
            self.names.iter().map(|name| [shown_id(self.id, full), (*name).to_owned()]).collect()
        }
    }

    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        listing: Listing,
        #[command(flatten)]
        trunc: NoTrunc,
    }

    fn render(words: &[&str]) -> String {
        let things = [
            Thing { id: "0123456789abcdef", names: vec!["a", "b"] },
            Thing { id: "fed", names: vec!["c\u{9b}2J"] },
        ];
        let words = Words::try_parse_from([&["list"], words].concat()).unwrap();
        words.listing.render(&things, words.trunc.no_trunc).unwrap()
    }

    #[test]
    fn a_table_has_a_line_for_each_name_and_no_control_characters() {
        assert_eq!(
            render(&[]),
            "ID             NAME\n0123456789ab   a\n0123456789ab   b\nfed            c\u{fffd}2J\n"
        );
        assert!(render(&["--no-trunc"]).contains("0123456789abcdef   a\n"));
    }

    #[test]
    fn quiet_prints_whole_ids_alone_whatever_the_format() {
        assert_eq!(render(&["-q"]), "0123456789abcdef\nfed\n");
        assert_eq!(render(&["--quiet", "--format", "json"]), "0123456789abcdef\nfed\n");
    }

    #[test]
    fn json_is_one_array_and_jsonl_an_object_a_line() {
        let all: serde_json::Value = serde_json::from_str(&render(&["--format", "json"])).unwrap();
        assert_eq!(all[1]["names"][0], "c\u{9b}2J");
        let text = render(&["--format=jsonl"]);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(serde_json::Value::from(lines), all);
        assert!(!text.contains('\u{9b}'));
    }

    #[test]
    fn an_empty_listing_is_a_header_an_empty_array_or_nothing() {
        let text = |format| FormatOption { format }.render::<2, Thing>(&[], false).unwrap();
        assert_eq!(text(Format::Table), "ID   NAME\n");
        assert_eq!(text(Format::Json), "[]\n");
        assert_eq!(text(Format::Jsonl), "");
    }
}
