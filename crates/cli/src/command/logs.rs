//! `cellule logs`: what came out of a sandbox, whether it runs or not.

mod console;
mod network;
mod output;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use cellule::{Entry, Host, LogOptions, LogSource};
use cellule_supervisor::{CONSOLE_LOG, LOGS, LogRecord};

use self::console::ConsoleReader;
use self::network::Connections;
use self::output::{Output, Stream};
use crate::failure::Failure;
use crate::line::one_line;
use crate::listing::Format;
use crate::{completion, host, library_failure, moment};

/// Print what the command of a sandbox wrote, or what became of its connections
///
/// What it wrote to standard error goes to standard error. Of a sandbox that was started several times, the log goes on;
/// of one that wrote much, the oldest is gone.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub(crate) struct Arguments {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// Go on with what is written from now on, until the sandbox has ended
    #[arg(short, long)]
    follow: bool,
    /// Begin at this time: 2024-05-01T12:00:00Z, seconds since 1970, or a time ago such as 10m
    #[arg(long, value_name = "TIME", value_parser = moment::parse, conflicts_with = "console")]
    since: Option<i64>,
    /// End at this time
    #[arg(long, value_name = "TIME", value_parser = moment::parse, conflicts_with = "console")]
    until: Option<i64>,
    /// Begin so many lines before the end; `all` is from the oldest on
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = parse_tail)]
    tail: Tail,
    /// Print the time before each line
    #[arg(short, long, conflicts_with = "console")]
    timestamps: bool,
    /// Print the guest's console instead: its kernel's messages
    #[arg(long, conflicts_with = "agent")]
    console: bool,
    /// Print instead what the agent in the guest has to say
    #[arg(long)]
    agent: bool,
    /// Print instead what became of its connections, each as it ended: who was reached or refused, and which rule decided
    #[arg(long, conflicts_with_all = ["console", "agent"])]
    network: bool,
    /// How to print connections; as JSON each is an object on a line
    #[arg(long, default_value = "table", value_enum, value_name = "FORMAT", requires = "network")]
    format: Format,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    All,
    Lines(u64),
}

impl Tail {
    fn lines(self) -> Option<u64> {
        match self {
            Self::All => None,
            Self::Lines(lines) => Some(lines),
        }
    }
}

fn parse_tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        number => number.parse().map(Tail::Lines).map_err(|_| "write a number of lines, or all".to_owned()),
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let entry = host.find(&arguments.sandbox).map_err(|error| library_failure::of(&error))?;
    let printed = super::runtime()?.block_on(async {
        if arguments.console {
            print_console(&host, &entry, arguments).await.map_err(PrintError::Io)
        } else {
            print(&host, &entry, arguments).await
        }
    });
    match printed {
        // Nobody reads any more.
        Err(PrintError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(PrintError::Io(error)) => Err(Failure::because("cannot print the log", &error)),
        Err(PrintError::Library(error)) => Err(library_failure::of(&error)),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// Why a log was not printed to its end.
enum PrintError {
    Io(io::Error),
    Library(cellule::Error),
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<cellule::Error> for PrintError {
    fn from(error: cellule::Error) -> Self {
        Self::Library(error)
    }
}

async fn print(host: &Host, entry: &Entry, arguments: &Arguments) -> Result<(), PrintError> {
    let options = LogOptions {
        source: match (arguments.network, arguments.agent) {
            (true, _) => LogSource::Network,
            (false, true) => LogSource::Agent,
            (false, false) => LogSource::Main,
        },
        follow: arguments.follow,
        tail: arguments.tail.lines(),
        since_ns: arguments.since,
    };
    let mut logs = host.logs(entry, options)?;
    let mut lines = Lines { timestamps: arguments.timestamps, foreign: arguments.agent, begun: [false; 2] };
    let mut connections = arguments.network.then(|| Connections::new(arguments.timestamps, arguments.format));
    let mut output = Output::new();
    loop {
        let mut next = tokio::time::timeout(Duration::ZERO, logs.next()).await;
        if next.is_err() {
            // What is there is shown before more is waited for.
            output.flush()?;
            let left = arguments.until.map_or(Duration::MAX, moment::left);
            next = tokio::time::timeout(left, logs.next()).await;
        }
        let next = next.unwrap_or(Ok(None))?;
        let Some(record) = next.filter(|record| arguments.until.is_none_or(|until| record.time_ns <= until))
        else {
            return Ok(output.flush()?);
        };
        if let Some(connections) = &mut connections {
            let (stream, text) = connections.text(&record);
            output.write(stream, text.as_bytes())?;
            continue;
        }
        let stream = if record.stderr { Stream::Error } else { Stream::Out };
        output.write(stream, &lines.text(&record))?;
    }
}

async fn print_console(host: &Host, entry: &Entry, arguments: &Arguments) -> io::Result<()> {
    let tail = arguments.tail.lines().map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
    let mut reader = ConsoleReader::open(&entry.path.join(LOGS).join(CONSOLE_LOG), tail)?;
    let mut output = Output::new();
    loop {
        // Looked at before the end is read: what came last is there once it has ended.
        let last = !arguments.follow || host::has_ended(host, entry.spec.id.as_str());
        while let Some(line) = reader.next(last)? {
            output.write(Stream::Out, format!("{}\n", one_line(&line)).as_bytes())?;
        }
        output.flush()?;
        if last {
            return Ok(());
        }
        tokio::time::sleep(host::LOOK).await;
    }
}

/// Makes text of records.
struct Lines {
    timestamps: bool,
    /// Whether it is not the program's own output, and so nothing that a terminal may obey.
    foreign: bool,
    /// Whether the line of standard output, and that of standard error, has begun already.
    begun: [bool; 2],
}

impl Lines {
    fn text(&mut self, record: &LogRecord) -> Vec<u8> {
        let begun = std::mem::replace(&mut self.begun[usize::from(record.stderr)], record.partial);
        let mut text = Vec::with_capacity(record.bytes.len() + 1);
        if self.timestamps && !begun {
            text.extend_from_slice(moment::show(record.time_ns).as_bytes());
            text.push(b' ');
        }
        if self.foreign {
            text.extend_from_slice(one_line(&record.bytes).as_bytes());
        } else {
            text.extend_from_slice(&record.bytes);
        }
        if !record.partial {
            text.push(b'\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stderr: bool, partial: bool, text: &str) -> LogRecord {
        LogRecord { time_ns: 1_000_000_000, stderr, partial, bytes: text.as_bytes().to_vec() }
    }

    fn text(timestamps: bool, foreign: bool, records: &[LogRecord]) -> String {
        let mut lines = Lines { timestamps, foreign, begun: [false; 2] };
        records.iter().map(|record| String::from_utf8(lines.text(record)).unwrap()).collect()
    }

    #[test]
    fn a_line_in_pieces_is_one_line_with_one_time() {
        let records = [record(false, true, "be"), record(true, false, "x"), record(false, false, "gun")];
        assert_eq!(text(false, false, &records), "bex\ngun\n");
        let time = "1970-01-01T00:00:01.000000000Z";
        assert_eq!(text(true, false, &records), format!("{time} be{time} x\ngun\n"));
    }

    #[test]
    fn output_is_passed_on_as_it_is_and_what_the_agent_says_is_not() {
        let records = [record(false, false, "\x1b[31mred")];
        assert_eq!(text(false, false, &records), "\x1b[31mred\n");
        assert_eq!(text(false, true, &records), "\u{fffd}[31mred\n");
    }

    #[test]
    fn a_tail_is_a_number_or_all() {
        assert_eq!(parse_tail("all"), Ok(Tail::All));
        assert_eq!(parse_tail("0"), Ok(Tail::Lines(0)));
        assert!(parse_tail("-1").is_err());
    }
}
