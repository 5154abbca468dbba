//! `cellule port …`: ports of this host that lead into running sandboxes.

use std::net::SocketAddr;
use std::process::ExitCode;

use cellule::network::{Forward, ForwardStatus, Protocol};
use cellule::{Entry, Host, Sandbox};
use serde::Serialize;

use crate::each::code;
use crate::failure::Failure;
use crate::listing::{FormatOption, Row};
use crate::ports::{Forwards, parse_ports, split_protocol};
use crate::{completion, host, library_failure, ports};

/// List, add and remove ports of this host that lead into a sandbox; if it does not run, for when it is started again
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List them, and whether somebody in the sandbox answers now
    #[command(visible_alias = "list")]
    Ls {
        /// The sandbox's name, or what its id begins with
        #[arg(add = completion::sandbox())]
        sandbox: String,
        #[command(flatten)]
        format: FormatOption,
    },
    /// Let ports lead into it, now and when it is started again; prints where this host listens
    Add {
        /// The sandbox's name, or what its id begins with
        #[arg(add = completion::sandbox())]
        sandbox: String,
        /// Such as 8080:80, 127.0.0.1:0:80 (any that is free), 80 (any that is free, to 80) or 5353:53/udp
        #[arg(required = true, value_name = "[IP:]HOST:GUEST[/tcp|udp]", value_parser = parse_ports)]
        ports: Vec<Forwards>,
    },
    /// Take ports away, now and when it is started again; connections that are open go on
    Rm {
        /// The sandbox's name, or what its id begins with
        #[arg(add = completion::sandbox())]
        sandbox: String,
        /// Such as 8080, 127.0.0.1:8080, 8000-8010 or 5353/udp
        #[arg(required = true, value_name = "[IP:]HOST[/tcp|udp]", value_parser = parse_places)]
        ports: Vec<Places>,
    },
}

/// Where this host listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    host: SocketAddr,
    protocol: Protocol,
}

/// One, or one for each port of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places(Vec<Place>);

/// `[IP:]HOST[/tcp|udp]`
fn parse_places(text: &str) -> Result<Places, String> {
    let shape = || {
        "write it as 8080, 127.0.0.1:8080, [::1]:8080, 8000-8010 or 5353/udp, without the guest's port"
            .to_owned()
    };
    let (place, protocol) = split_protocol(text).ok_or_else(shape)?;
    let (address, range) = ports::place(place).filter(|(_, (first, _))| *first > 0).ok_or_else(shape)?;
    ports::check_length(range)?;
    let place = |port| Place { host: SocketAddr::new(address, port), protocol };
    Ok(Places((range.0..=range.1).map(place).collect()))
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    super::runtime()?.block_on(async {
        match command {
            Command::Ls { sandbox, format } => list(&sandbox, format).await,
            Command::Add { sandbox, ports } => add(&sandbox, &ports).await,
            Command::Rm { sandbox, ports } => remove(&sandbox, &ports).await,
        }
    })
}

/// A sandbox whose ports are to be seen or changed.
enum Target {
    Running(Box<Sandbox>),
    /// What is changed is so when it is started again.
    Stopped(Host, Box<Entry>),
}

impl Target {
    async fn find(name: &str) -> Result<Self, Failure> {
        let failed = |error: cellule::Error| library_failure::of(&error);
        let host = host::locate()?;
        let entry = host.find(name).map_err(failed)?;
        if entry.is_live() {
            return Ok(Self::Running(Box::new(Sandbox::open(host, entry).await.map_err(failed)?)));
        }
        Ok(Self::Stopped(host, Box::new(entry)))
    }

    async fn add(&mut self, forward: Forward) -> Result<Forward, cellule::Error> {
        match self {
            Self::Running(sandbox) => sandbox.add_port(forward).await,
            Self::Stopped(host, entry) => host.add_port(entry, forward).map(|()| forward),
        }
    }

    async fn remove(&mut self, place: Place) -> Result<(), cellule::Error> {
        let Place { host: at, protocol } = place;
        match self {
            Self::Running(sandbox) => sandbox.remove_port(at, protocol).await,
            Self::Stopped(host, entry) => host.remove_port(entry, at, protocol),
        }
    }
}

async fn list(name: &str, format: FormatOption) -> Result<ExitCode, Failure> {
    let rows: Vec<Line> = match Target::find(name).await? {
        Target::Running(mut sandbox) => {
            let statuses = sandbox.ports().await.map_err(|error| library_failure::of(&error))?;
            statuses.into_iter().map(Line::of).collect()
        }
        Target::Stopped(_, entry) => entry.spec.network.ports.iter().copied().map(Line::stopped).collect(),
    };
    crate::answer(&format.render(&rows, false)?)?;
    Ok(ExitCode::SUCCESS)
}

async fn add(name: &str, ports: &[Forwards]) -> Result<ExitCode, Failure> {
    let mut sandbox = Target::find(name).await?;
    let mut failed = false;
    for forward in ports.iter().flat_map(|forwards| &forwards.0) {
        match sandbox.add(*forward).await {
            Ok(added) => crate::answer(&format!("{}\n", added.host))?,
            Err(error) => {
                let mut failure =
                    Failure::new(format!("cannot let {} lead into {name}", ports::show(forward)));
                failure.cause(crate::failure::line(&error));
                crate::say(&ports::hint(failure).render());
                failed = true;
            }
        }
    }
    Ok(code(failed))
}

async fn remove(name: &str, places: &[Places]) -> Result<ExitCode, Failure> {
    let mut sandbox = Target::find(name).await?;
    let mut failed = false;
    for place in places.iter().flat_map(|places| &places.0) {
        match sandbox.remove(*place).await {
            Ok(()) => crate::answer(&format!("{}\n", place.host))?,
            Err(error) => {
                let hint = format!("those that there are: cellule port ls {name}");
                crate::say(&library_failure::of(&error).hint(hint).render());
                failed = true;
            }
        }
    }
    Ok(code(failed))
}

/// A port, and whether somebody answers.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    forward: Forward,
    /// up, waiting or stopped.
    state: &'static str,
}

impl Line {
    /// Of a sandbox that does not run.
    fn stopped(forward: Forward) -> Self {
        Self { forward, state: "stopped" }
    }

    fn of(ForwardStatus { forward, is_up }: ForwardStatus) -> Self {
        Self { forward, state: if is_up { "up" } else { "waiting" } }
    }
}

impl Row<2> for Line {
    const HEADER: [&'static str; 2] = ["PORT", "STATE"];

    fn id(&self) -> String {
        self.forward.host.to_string()
    }

    fn lines(&self, _full: bool) -> Vec<[String; 2]> {
        vec![[ports::show(&self.forward), self.state.to_owned()]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_it_is_listed() {
        for (text, host, protocol) in [
            ("8080", "127.0.0.1:8080", Protocol::Tcp),
            ("0.0.0.0:8080/tcp", "0.0.0.0:8080", Protocol::Tcp),
            ("[::1]:53/udp", "[::1]:53", Protocol::Udp),
        ] {
            let place = Place { host: host.parse().unwrap(), protocol };
            assert_eq!(parse_places(text), Ok(Places(vec![place])), "{text}");
        }
        let Places(range) = parse_places("[::1]:8000-8002/udp").unwrap();
        assert_eq!(range.iter().map(|place| place.host.port()).collect::<Vec<_>>(), [8000, 8001, 8002]);
        for bad in ["", "0", "x", "8080:80", "8080/sctp", "127.0.0.1", "0-3", "3-2", "1-2000", "::1:80"] {
            assert!(parse_places(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn programs_read_a_port_as_inspect_tells_it() {
        let forward = parse_ports("8080:80").unwrap().0[0];
        let line = Line::of(ForwardStatus { forward, is_up: false });
        assert_eq!(line.lines(false), [["127.0.0.1:8080->80/tcp", "waiting"]]);
        let json = serde_json::json!({
            "host": "127.0.0.1:8080", "guest": 80, "protocol": "tcp", "state": "waiting",
        });
        assert_eq!(serde_json::to_value(&line).unwrap(), json);
    }
}
