//! `cellule ps`: lists sandboxes.

use std::process::ExitCode;

use cellule::State;

use crate::failure::Failure;
use crate::filters::{Filter, Filters, names_image};
use crate::listing::{Listing, NoTrunc, Row};
use crate::summary::Summary;
use crate::{host, library_failure, moment};

const FILTERS: [&str; 6] = ["name", "id", "status", "label", "ancestor", "exited"];
/// What `status` can be: our states, and Docker's word for one that has ended.
const STATES: [&str; 10] = [
    "created", "starting", "running", "pausing", "paused", "resuming", "stopping", "stopped", "exited",
    "failed",
];

/// List sandboxes
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Show those too that do not run
    #[arg(short, long)]
    all: bool,
    /// Show only some: name=, id=, status=, label=NAME[=VALUE], ancestor=IMAGE, exited=CODE
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// Show the NUMBER made last, whether they run or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Show the one made last, whether it runs or not
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
    #[command(flatten)]
    trunc: NoTrunc,
    #[command(flatten)]
    listing: Listing,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let filters = check(&arguments.filter)?;
    let host = host::locate()?;
    let surveyed = || host.survey();
    let survey = surveyed().map_err(|error| library_failure::of(&error))?;
    // One that cannot be read hides no other.
    for damaged in &survey.damaged {
        crate::say(&Failure::because("a sandbox is left out of the list", damaged).render());
    }
    let now = moment::now();
    let all = survey.entries.iter().map(|entry| Summary::of(entry, now));
    let last = if arguments.latest { Some(1) } else { arguments.last };
    let shown = choose(all, filters, arguments.all, last);
    let rows: Vec<Line> = shown.into_iter().map(|summary| Line { summary, now }).collect();
    crate::answer(&arguments.listing.render(&rows, arguments.trunc.no_trunc)?)?;
    Ok(ExitCode::SUCCESS)
}

fn check(filters: &[Filter]) -> Result<Filters<'_>, Failure> {
    let filters = Filters::check(filters, &FILTERS)?;
    if let Some(unknown) = filters.values("status").find(|status| !STATES.contains(status)) {
        let known = STATES.join(", ");
        return Err(Failure::new(format!("{unknown:?} is no state")).hint(format!("states are {known}")));
    }
    if let Some(wrong) = filters.values("exited").find(|code| code.parse::<u8>().is_err()) {
        return Err(Failure::new(format!("{wrong:?} is no exit code, which is a number from 0 to 255")));
    }
    Ok(filters)
}

/// Those that are to be shown, of all from the newest to the oldest.
fn choose(
    all: impl Iterator<Item = Summary>,
    filters: Filters<'_>,
    ended_too: bool,
    last: Option<usize>,
) -> Vec<Summary> {
    let ended_too = ended_too || last.is_some() || filters.has("status") || filters.has("exited");
    all.filter(|summary| ended_too || summary.state.is_live())
        .filter(|summary| fits(summary, filters))
        .take(last.unwrap_or(usize::MAX))
        .collect()
}

fn fits(summary: &Summary, filters: Filters<'_>) -> bool {
    let name = summary.name.as_deref().unwrap_or_default();
    let state = summary.state.to_string();
    filters.any("name", |wanted| name.contains(wanted))
        && filters.any("id", |wanted| summary.id.starts_with(&wanted.to_ascii_lowercase()))
        && filters
            .any("status", |wanted| wanted == state || wanted == "exited" && summary.state == State::Stopped)
        && filters.any("ancestor", |wanted| names_image(wanted, &summary.image, &summary.image_digest))
        && filters
            .any("exited", |wanted| summary.exit_code == wanted.parse().ok() && summary.exit_code.is_some())
        && filters.labels(&summary.labels)
}

/// A line, as of some moment.
#[derive(Debug, serde::Serialize)]
struct Line {
    #[serde(flatten)]
    summary: Summary,
    #[serde(skip)]
    now: i64,
}

impl Row<7> for Line {
    const HEADER: [&'static str; 7] =
        ["SANDBOX ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];

    fn id(&self) -> String {
        self.summary.id.clone()
    }

    fn lines(&self, full: bool) -> Vec<[String; 7]> {
        let Self { summary, now } = self;
        vec![[
            summary.id.clone(),
            summary.image.clone(),
            summary.short_command(full),
            format!("{} ago", moment::since(summary.created_ns, *now)),
            summary.short_status(full),
            summary.short_ports(full),
            summary.name.clone().unwrap_or_default(),
        ]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::{NOW, summary};

    /// The ids that are shown, of a running one, one that exited with 3, one that failed, and one never started.
    fn shown(words: &[&str], all: bool, newest: Option<usize>) -> String {
        let typed: Vec<Filter> = words.iter().map(|word| word.parse().unwrap()).collect();
        let with = |id: &str, state| Summary { id: id.to_owned(), ..summary(state) };
        let mut exited =
            Summary { exit_code: Some(3), name: Some("db".to_owned()), ..with("e", State::Stopped) };
        exited.labels.insert("tier".to_owned(), "back".to_owned());
        let failed = Summary { image: "alpine".to_owned(), name: None, ..with("f", State::Failed) };
        let list = [with("a", State::Running), exited, failed, with("c", State::Created)];
        choose(list.into_iter(), check(&typed).unwrap(), all, newest)
            .into_iter()
            .map(|summary| summary.id)
            .collect()
    }

    #[test]
    fn those_that_run_are_shown_unless_more_is_asked_for() {
        assert_eq!(shown(&[], false, None), "a");
        assert_eq!(shown(&[], true, None), "aefc");
        assert_eq!(shown(&[], false, Some(2)), "ae");
        assert_eq!(shown(&["status=stopped", "status=failed"], false, None), "ef");
    }

    #[test]
    fn each_filter_takes_what_it_names() {
        for (filter, ids) in [
            ("name=eb", "ac"),
            ("id=e", "e"),
            ("id=E", "e"),
            ("status=exited", "e"),
            ("status=created", "c"),
            ("label=tier", "e"),
            ("label=tier=front", ""),
            ("ancestor=debian", "aec"),
            ("ancestor=alpine:latest", "f"),
            ("exited=3", "e"),
            ("exited=0", ""),
        ] {
            assert_eq!(shown(&[filter], true, None), ids, "{filter}");
        }
        assert_eq!(shown(&["name=web", "status=running"], true, None), "a");
    }

    #[test]
    fn what_cannot_be_filtered_by_is_an_error() {
        for word in ["status=gone", "exited=256", "exited=x", "volume=x"] {
            assert!(check(&[word.parse().unwrap()]).is_err(), "{word}");
        }
    }

    #[test]
    fn a_line_has_the_columns_that_docker_has() {
        let mut summary = summary(State::Running);
        summary.status = "Up 5 minutes".to_owned();
        summary.ports.extend(crate::ports::parse_ports("8080:80/udp").unwrap().0);
        let line = Line { summary, now: NOW };
        let [cells] = line.lines(false).try_into().unwrap();
        let cells: [String; 7] = cells;
        assert_eq!(
            cells.each_ref().map(String::as_str),
            [
                "0123456789ab",
                "debian:12",
                "\"sh -c echo hello; s…\"",
                "10 minutes ago",
                "Up 5 minutes",
                "127.0.0.1:8080->80/udp",
                "web"
            ]
        );
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!(
            (&json["name"], &json["state"], json.get("now")),
            (&"web".into(), &"running".into(), None)
        );
    }
}
