//! What became of a sandbox's connections, for people and for programs.

use std::fmt::Write as _;

use cellule::LogRecord;
use cellule::network::{Direction, Outcome, Protocol, Record};
use cellule::secrets::SecretRecord;

use super::output::Stream;
use crate::line::one_line;
use crate::listing::Format;
use crate::quantity::{show_duration, show_size};
use crate::{json, moment};

/// Makes text of the log's records, each of which is one of a connection's as JSON.
pub(super) struct Connections {
    timestamps: bool,
    format: Format,
    /// What came of a line of which more is to come.
    begun: Vec<u8>,
}

impl Connections {
    pub(super) fn new(timestamps: bool, format: Format) -> Self {
        Self { timestamps, format, begun: Vec::new() }
    }

    /// A line, once all of it is there. What went well and what did not stand together, in the order in which they were.
    pub(super) fn text(&mut self, piece: &LogRecord) -> (Stream, String) {
        self.begun.extend_from_slice(&piece.bytes);
        if piece.partial {
            return (Stream::Out, String::new());
        }
        let line = std::mem::take(&mut self.begun);
        let (stream, mut text) = match (self.format, Said::read(&line)) {
            (Format::Table, Some(said)) => (Stream::Out, one_line(said.words().as_bytes())),
            (Format::Table, None) => (Stream::Out, one_line(&line)),
            (Format::Json | Format::Jsonl, Some(said)) => {
                return (Stream::Out, json::line(&said).unwrap_or_default());
            }
            // Such as that some were left out: nothing that whoever reads JSON could read.
            (Format::Json | Format::Jsonl, None) => (Stream::Error, one_line(&line)),
        };
        if self.timestamps {
            text.insert_str(0, &format!("{} ", moment::show(piece.time_ns)));
        }
        text.push('\n');
        (stream, text)
    }
}

/// What a line is about.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Said {
    Connection(Record),
    Secret(SecretRecord),
}

impl Said {
    fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    fn words(&self) -> String {
        match self {
            Self::Connection(record) => words(record),
            Self::Secret(SecretRecord { secret, host, event, .. }) => {
                let secret = secret.as_deref().unwrap_or("-");
                let host = host.as_ref().map(|host| format!(" at {host}")).unwrap_or_default();
                format!("secret {secret}{host}: {event}")
            }
        }
    }
}

/// A connection in words.
fn words(record: &Record) -> String {
    let outcome = match record.outcome {
        Outcome::Denied => "denied",
        Outcome::Failed => "failed",
        Outcome::Closed => "closed",
        Outcome::Reset => "reset",
    };
    let mut text = format!("{outcome:<6} {:<4} ", record.protocol.to_string());
    let remote = match record.protocol {
        Protocol::Icmp => record.remote.ip().to_string(),
        Protocol::Tcp | Protocol::Udp => record.remote.to_string(),
    };
    match record.direction {
        Direction::Out => _ = write!(text, "to {remote}"),
        Direction::In => _ = write!(text, "from {remote} to port {}", record.guest_port),
    }
    if let Some(name) = &record.name {
        _ = write!(text, " ({name})");
    }
    _ = write!(text, ": {}", record.reason);
    if record.outcome != Outcome::Denied || record.sent + record.received > 0 {
        let (sent, received) = (show_size(record.sent), show_size(record.received));
        let took = show_duration(record.took());
        _ = write!(text, "; {sent} sent, {received} received in {took}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            time_ns: 5,
            direction: Direction::Out,
            protocol: Protocol::Tcp,
            remote: "203.0.113.1:443".parse().unwrap(),
            guest_port: 40000,
            name: Some("example.com".to_owned()),
            outcome: Outcome::Closed,
            reason: "rule 1: allow example.com".to_owned(),
            sent: 517,
            received: 20_480,
            took_us: 34_000,
        }
    }

    fn piece(partial: bool, bytes: &[u8]) -> LogRecord {
        LogRecord { time_ns: 1_000_000_000, stderr: true, partial, bytes: bytes.to_vec() }
    }

    fn text(timestamps: bool, format: Format, bytes: &[u8]) -> (Stream, String) {
        Connections::new(timestamps, format).text(&piece(false, bytes))
    }

    #[test]
    fn a_connection_is_a_line_for_people() {
        let line = |record: &Record| text(false, Format::Table, &serde_json::to_vec(record).unwrap());
        assert_eq!(
            line(&record()),
            (
                Stream::Out,
                "closed tcp  to 203.0.113.1:443 (example.com): rule 1: allow example.com; \
                 517 B sent, 20.48 kB received in 34 ms\n"
                    .to_owned()
            )
        );
        let denied = Record {
            outcome: Outcome::Denied,
            protocol: Protocol::Icmp,
            name: Some("a\nb\x1b[2J".to_owned()),
            sent: 0,
            received: 0,
            ..record()
        };
        assert_eq!(
            line(&denied).1,
            "denied icmp to 203.0.113.1 (a\u{fffd}b\u{fffd}[2J): rule 1: allow example.com\n"
        );
        let came = Record { direction: Direction::In, name: None, guest_port: 80, ..record() };
        assert!(line(&came).1.starts_with("closed tcp  from 203.0.113.1:443 to port 80: "));
    }

    #[test]
    fn what_is_said_of_a_secret_is_a_line_too() {
        let record = SecretRecord {
            time_ns: 5,
            secret: Some("TOKEN".to_owned()),
            host: Some("api.example.com".to_owned()),
            event: "its value has expired, and there is no other".to_owned(),
        };
        let bytes = serde_json::to_vec(&record).unwrap();
        let line = text(false, Format::Table, &bytes).1;
        assert_eq!(line, "secret TOKEN at api.example.com: its value has expired, and there is no other\n");
        let line = text(false, Format::Json, &bytes).1;
        assert_eq!(serde_json::from_str::<SecretRecord>(&line).unwrap(), record);
    }

    #[test]
    fn programs_read_each_as_json_and_nothing_else() {
        let bytes = serde_json::to_vec(&record()).unwrap();
        let (stream, line) = text(true, Format::Json, &bytes);
        assert_eq!((stream, serde_json::from_str::<Record>(&line).unwrap()), (Stream::Out, record()));
        assert!(line.ends_with('\n'));
        let (stream, line) = text(false, Format::Json, b"[cellule: 3 more in too short a time]");
        assert_eq!((stream, line.as_str()), (Stream::Error, "[cellule: 3 more in too short a time]\n"));
    }

    #[test]
    fn a_line_in_pieces_is_one_and_has_its_time_if_asked_for() {
        let bytes = serde_json::to_vec(&record()).unwrap();
        let mut connections = Connections::new(true, Format::Table);
        let (first, rest) = bytes.split_at(20);
        assert_eq!(connections.text(&piece(true, first)).1, "");
        let line = connections.text(&piece(false, rest)).1;
        assert!(line.starts_with("1970-01-01T00:00:01.000000000Z closed tcp "), "{line}");
    }
}
