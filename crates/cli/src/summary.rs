//! What a line says of a sandbox: the words that people know from Docker for its state, and the same for programs.

use std::collections::BTreeMap;

use cellule::network::Forward;
use cellule::{Entry, State};
use serde::Serialize;

use crate::failure::{OWN_FAILURE, TIMED_OUT};
use crate::{moment, ports};

/// A cause longer than this is cut off in a table.
const CAUSE_CHARACTERS: usize = 60;
/// A command longer than this is cut off in a table.
const COMMAND_CHARACTERS: usize = 20;
/// More ports than this are counted in a table.
const PORTS: usize = 4;

/// One sandbox in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) image: String,
    pub(crate) image_digest: String,
    /// The main program and its arguments.
    pub(crate) command: Option<Vec<String>>,
    pub(crate) created_ns: i64,
    pub(crate) started_ns: Option<i64>,
    pub(crate) ended_ns: Option<i64>,
    pub(crate) state: State,
    /// What the table says of the state.
    pub(crate) status: String,
    pub(crate) exit_code: Option<u8>,
    /// Why it failed, or ended by itself.
    pub(crate) cause: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// The ports of this host that lead into one that runs.
    pub(crate) ports: Vec<Forward>,
}

impl Summary {
    /// What is known of an entry at this moment.
    pub(crate) fn of(entry: &Entry, now: i64) -> Self {
        let Entry { spec, record, .. } = entry;
        let mut summary = Self {
            id: spec.id.to_string(),
            name: entry.name.as_ref().map(ToString::to_string),
            image: spec.image.clone(),
            image_digest: spec.image_digest.clone(),
            command: spec.main.as_ref().map(|main| main.argv.clone()),
            created_ns: spec.created_ns,
            started_ns: record.started_ns,
            ended_ns: record.ended_ns,
            state: record.state,
            status: String::new(),
            exit_code: exit_code(entry),
            cause: record.cause.clone(),
            labels: spec.labels.clone(),
            ports: if entry.is_live() { record.ports.clone() } else { Vec::new() },
        };
        summary.status = summary.words(now);
        summary
    }

    /// The state in Docker's words, and in words of their own where Docker has none.
    fn words(&self, now: i64) -> String {
        let up = || format!("Up {}", moment::since(self.started_ns.unwrap_or(now), now));
        let ago =
            || self.ended_ns.map(|ended| format!(" {} ago", moment::since(ended, now))).unwrap_or_default();
        match (self.state, self.exit_code, &self.cause) {
            (State::Created, _, _) => "Created".to_owned(),
            (State::Starting, _, _) => "Starting".to_owned(),
            (State::Running, _, _) => up(),
            (State::Pausing | State::Paused | State::Resuming, _, _) => format!("{} (Paused)", up()),
            (State::Saving, _, _) => format!("{} (Saving)", up()),
            (State::Stopping, _, _) => format!("{} (Stopping)", up()),
            (State::Stopped, Some(code), _) => format!("Exited ({code}){}", ago()),
            (State::Stopped, None, Some(cause)) => format!("Stopped{}: {cause}", ago()),
            (State::Stopped, None, None) => format!("Stopped{}", ago()),
            (State::Failed, _, Some(cause)) => format!("Failed: {cause}"),
            (State::Failed, _, None) => "Failed".to_owned(),
        }
    }

    /// The words for the state, as they fit into a table.
    pub(crate) fn short_status(&self, full: bool) -> String {
        let room = CAUSE_CHARACTERS + "Failed: ".len();
        cut(self.status.lines().next().unwrap_or_default(), if full { usize::MAX } else { room })
    }

    /// The ports, as Docker shows them; of many, the first ones.
    pub(crate) fn short_ports(&self, full: bool) -> String {
        let most = if full { usize::MAX } else { PORTS };
        let mut shown: Vec<String> = self.ports.iter().take(most).map(ports::show).collect();
        if self.ports.len() > most {
            shown.push(format!("{} more", self.ports.len() - most));
        }
        shown.join(", ")
    }

    /// The command in quotes, as Docker shows it.
    pub(crate) fn short_command(&self, full: bool) -> String {
        let Some(command) = &self.command else { return "<none>".to_owned() };
        let line = command.join(" ");
        format!("\"{}\"", cut(&line.replace('\n', " "), if full { usize::MAX } else { COMMAND_CHARACTERS }))
    }
}

/// The number that `run` would have ended with: the code of the main program, or what stands for its end by a signal or
/// its time limit. None if it did not end, or nobody knows how.
pub(crate) fn exit_code(entry: &Entry) -> Option<u8> {
    let exit = entry.record.main.as_ref()?.exit.as_ref()?;
    exit_number(exit.timed_out, exit.code, exit.signal)
}

fn exit_number(timed_out: bool, code: Option<u8>, signal: Option<i32>) -> Option<u8> {
    if timed_out {
        return Some(TIMED_OUT);
    }
    code.or_else(|| signal.map(|signal| u8::try_from(signal.saturating_add(128)).unwrap_or(OWN_FAILURE)))
}

fn cut(text: &str, room: usize) -> String {
    match text.char_indices().nth(room) {
        None => text.to_owned(),
        // The mark takes the place of the last character.
        Some(_) => text.chars().take(room - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    pub(crate) const NOW: i64 = 1_000_000 * SECOND;

    /// One that has run for five minutes.
    pub(crate) fn summary(state: State) -> Summary {
        Summary {
            id: "0123456789ab".to_owned(),
            name: Some("web".to_owned()),
            image: "debian:12".to_owned(),
            image_digest: "sha256:feedface".to_owned(),
            command: Some(vec!["sh".to_owned(), "-c".to_owned(), "echo hello; sleep 100".to_owned()]),
            created_ns: NOW - 600 * SECOND,
            started_ns: Some(NOW - 300 * SECOND),
            ended_ns: None,
            state,
            status: String::new(),
            exit_code: None,
            cause: None,
            labels: BTreeMap::new(),
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_state_is_told_in_dockers_words() {
        let live = |state| summary(state).words(NOW);
        assert_eq!(live(State::Created), "Created");
        assert_eq!(live(State::Starting), "Starting");
        assert_eq!(live(State::Running), "Up 5 minutes");
        assert_eq!(live(State::Paused), "Up 5 minutes (Paused)");
        assert_eq!(live(State::Stopping), "Up 5 minutes (Stopping)");
        let ended = |state, exit_code, cause: Option<&str>| {
            let ended_ns = Some(NOW - 180 * SECOND);
            Summary { ended_ns, exit_code, cause: cause.map(Into::into), ..summary(state) }.words(NOW)
        };
        assert_eq!(ended(State::Stopped, Some(0), None), "Exited (0) 3 minutes ago");
        assert_eq!(ended(State::Stopped, None, None), "Stopped 3 minutes ago");
        assert_eq!(ended(State::Stopped, None, Some("killed")), "Stopped 3 minutes ago: killed");
        assert_eq!(ended(State::Failed, Some(0), Some("the guest panicked")), "Failed: the guest panicked");
    }

    #[test]
    fn an_end_by_a_signal_or_a_time_limit_has_its_number() {
        assert_eq!(exit_number(false, Some(3), None), Some(3));
        assert_eq!(exit_number(false, None, Some(9)), Some(137));
        assert_eq!(exit_number(true, Some(0), None), Some(TIMED_OUT));
        assert_eq!(exit_number(false, None, None), None);
        assert_eq!(exit_number(false, None, Some(i32::MAX)), Some(OWN_FAILURE));
    }

    #[test]
    fn long_commands_and_causes_are_cut_off_unless_all_is_asked_for() {
        let mut summary = summary(State::Failed);
        assert_eq!(summary.short_command(false), "\"sh -c echo hello; s…\"");
        assert!(summary.short_command(true).ends_with("sleep 100\""));
        summary.command = None;
        assert_eq!(summary.short_command(false), "<none>");
        summary.status = format!("Failed: {}\nsecond line", "é".repeat(100));
        assert_eq!(summary.short_status(false).chars().count(), 68);
        assert_eq!(summary.short_status(true).chars().count(), 108);
    }

    #[test]
    fn ports_are_shown_as_docker_does_and_many_are_counted() {
        let ports = (0..6).map(|number| Forward {
            host: ([127, 0, 0, 1], 8000 + number).into(),
            guest: 80,
            protocol: cellule::network::Protocol::Tcp,
        });
        let mut summary = Summary { ports: ports.collect(), ..summary(State::Running) };
        let shown = summary.short_ports(false);
        assert!(shown.starts_with("127.0.0.1:8000->80/tcp, 127.0.0.1:8001->80/tcp, "), "{shown}");
        assert!(shown.ends_with("127.0.0.1:8003->80/tcp, 2 more"), "{shown}");
        assert!(summary.short_ports(true).ends_with(", 127.0.0.1:8005->80/tcp"));
        summary.ports.clear();
        assert_eq!(summary.short_ports(false), "");
    }

    #[test]
    fn programs_read_the_state_as_one_word() {
        let json = serde_json::to_value(summary(State::Paused)).unwrap();
        assert_eq!((&json["state"], &json["exit_code"]), (&"paused".into(), &serde_json::Value::Null));
    }
}
