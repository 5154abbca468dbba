//! `cellule events`: what happens to sandboxes.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use cellule::Host;
use cellule_supervisor::{Action, Event};

use crate::failure::Failure;
use crate::filters::{Filter, Filters, names_image};
use crate::listing::Format;
use crate::{host, json, library_failure, line, live, moment};

const FILTERS: [&str; 5] = ["type", "event", "sandbox", "image", "label"];

/// Print what happens to sandboxes, from now on and until interrupted
///
/// A line of the table has the time, what happened, the sandbox's id, and what else is known. As JSON, each is an object
/// on a line of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Begin at this time: 2024-05-01T12:00:00Z, seconds since 1970, or a time ago such as 10m
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    since: Option<i64>,
    /// End at this time
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    until: Option<i64>,
    /// Print only some: event=, sandbox=, image=, label=NAME[=VALUE] of sandboxes that are still there
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// How to print it
    #[arg(long, default_value = "table", value_enum, value_name = "FORMAT")]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let filters = check(&arguments.filter)?;
    let host = host::locate()?;
    let journal = host.events().map_err(|error| library_failure::of(&error))?;
    let failed = |error: std::io::Error| Failure::because("cannot read the events", &error);
    super::runtime()?.block_on(async {
        let begun = moment::now();
        let mut labels = Labels { host: &host, known: HashMap::new() };
        let mut printer = |event: &Event| {
            let wanted = arguments.until.is_none_or(|until| event.time_ns <= until);
            if wanted && fits(event, filters, || labels.of(event)) {
                print(event, arguments.format)
            } else {
                Ok(true)
            }
        };
        // Followed first, so that nothing falls between both; what both tell is told once.
        let mut follower = journal.follow().map_err(failed)?;
        let mut told = Vec::new();
        if let Some(since) = arguments.since {
            for event in journal.read_since(since).map_err(failed)? {
                if !printer(&event)? {
                    return Ok(ExitCode::SUCCESS);
                }
                told.push(event);
            }
            told.retain(|event| event.time_ns >= begun);
        }
        let following = async {
            loop {
                let event = follower.next().await.map_err(failed)?;
                if !told.contains(&event) && !printer(&event)? {
                    return Ok(());
                }
            }
        };
        match arguments.until {
            // That the time is over is what was asked for.
            Some(until) => tokio::time::timeout(moment::left(until), following).await.unwrap_or(Ok(()))?,
            None => following.await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn check(filters: &[Filter]) -> Result<Filters<'_>, Failure> {
    let filters = Filters::check(filters, &FILTERS)?;
    let known = |wanted: &str| Action::ALL.iter().any(|action| action.as_str() == wanted);
    if let Some(unknown) = filters.values("event").find(|wanted| !known(wanted)) {
        let words = Action::ALL.map(Action::as_str).join(", ");
        return Err(
            Failure::new(format!("there is no event {unknown:?}")).hint(format!("events are {words}"))
        );
    }
    if let Some(unknown) = filters.values("type").find(|wanted| *wanted != "sandbox") {
        return Err(Failure::new(format!("there are no events of the type {unknown:?}"))
            .hint("all events are of the type sandbox"));
    }
    Ok(filters)
}

fn fits(event: &Event, filters: Filters<'_>, labels: impl FnOnce() -> BTreeMap<String, String>) -> bool {
    let name = event.name.as_ref().map(ToString::to_string);
    filters.any("event", |wanted| wanted == event.action.as_str())
        && filters.any("sandbox", |wanted| {
            name.as_deref() == Some(wanted) || !wanted.is_empty() && event.id.as_str().starts_with(wanted)
        })
        && filters.any("image", |wanted| names_image(wanted, &event.image, ""))
        && (!filters.has("label") || filters.labels(&labels()))
}

/// The labels of sandboxes, remembered beyond their ends.
struct Labels<'a> {
    host: &'a Host,
    known: HashMap<String, BTreeMap<String, String>>,
}

impl Labels<'_> {
    fn of(&mut self, event: &Event) -> BTreeMap<String, String> {
        let id = event.id.to_string();
        if let Some(labels) = self.known.get(&id) {
            return labels.clone();
        }
        let labels = self.host.find(&id).map(|entry| entry.spec.labels).unwrap_or_default();
        self.known.insert(id, labels.clone());
        labels
    }
}

/// Prints one. False: nobody reads any more.
fn print(event: &Event, format: Format) -> Result<bool, Failure> {
    let text = match format {
        Format::Table => text(event),
        Format::Json | Format::Jsonl => json::line(event)?,
    };
    live::show(&text)
}

/// As Docker has it.
fn text(event: &Event) -> String {
    let mut known: Vec<(&str, &str)> =
        event.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    known.push(("image", &event.image));
    let name = event.name.as_ref().map(ToString::to_string);
    known.extend(name.as_deref().map(|name| ("name", name)));
    known.sort_unstable();
    let known: Vec<String> = known.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let words = format!(
        "{} sandbox {} {} ({})",
        moment::show(event.time_ns),
        event.action.as_str(),
        event.id,
        known.join(", ")
    );
    line::one_line(words.as_bytes()) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let value = serde_json::json!({
            "time_ns": 1, "id": "0123456789ab", "name": "web", "image": "debian:12", "action": "die",
            "attributes": { "exit_code": "3\u{1b}[2J" },
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_line_tells_when_what_which_and_the_rest() {
        let line = "1970-01-01T00:00:00.000000001Z sandbox die 0123456789ab (exit_code=3\u{fffd}[2J, image=debian:12, name=web)\n";
        assert_eq!(text(&event()), line);
    }

    #[test]
    fn each_filter_takes_what_it_names() {
        for (filter, taken) in [
            ("event=die", true),
            ("event=start", false),
            ("type=sandbox", true),
            ("sandbox=web", true),
            ("sandbox=0123", true),
            ("sandbox=we", false),
            ("sandbox=", false),
            ("image=debian", true),
            ("image=alpine", false),
            ("label=tier=back", true),
            ("label=tier=front", false),
        ] {
            let typed = [filter.parse().unwrap()];
            let labels = || BTreeMap::from([("tier".to_owned(), "back".to_owned())]);
            assert_eq!(fits(&event(), check(&typed).unwrap(), labels), taken, "{filter}");
        }
        for unknown in ["event=explode", "type=image", "volume=x"] {
            assert!(check(&[unknown.parse().unwrap()]).is_err(), "{unknown}");
        }
    }
}
