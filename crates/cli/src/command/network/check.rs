//! `cellule network check`: what would become of a connection.

use std::net::{IpAddr, Ipv6Addr};
use std::process::ExitCode;

use cellule::network::{Answer, Name, NameError, Protocol, Whom};
use serde::Serialize;

use crate::failure::Failure;
use crate::line::one_line;
use crate::listing::{FormatOption, Row};
use crate::network_options::chain;
use crate::{host, library_failure};

/// The exit code where something is refused.
const REFUSED: u8 = 1;

/// To where, and by which protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    whom: Whom,
    port: u16,
    protocol: Protocol,
}

/// `HOST:PORT[/PROTOCOL]`, or `HOST/icmp`.
pub(super) fn parse(text: &str) -> Result<Question, String> {
    let (place, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((place, protocol)) => (place, protocol.parse().map_err(|error| chain(&error))?),
    };
    let (host, port) = split(place)?;
    let port = match (port, protocol) {
        (None, Protocol::Icmp) => 0,
        (Some(_), Protocol::Icmp) => return Err("ICMP has no ports: write it as example.com/icmp".to_owned()),
        (None, _) => {
            return Err(format!(
                "say which port: {}:443",
                if is_v6(host) { format!("[{host}]") } else { host.to_owned() }
            ));
        }
        (Some(port), _) => port
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("{port:?} is no port, which is a number from 1 to 65535"))?,
    };
    let whom = if let Ok(address) = host.parse() {
        Whom::Address(address)
    } else {
        let neither =
            |error: NameError| format!("{host:?} is neither a name nor an address: {}", chain(&error));
        Whom::Name(host.parse::<Name>().map_err(neither)?)
    };
    Ok(Question { whom, port, protocol })
}

/// The host, and the port if there is one.
fn split(place: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, port) = rest
            .split_once(']')
            .filter(|(host, _)| is_v6(host))
            .ok_or("only an IPv6 address stands in brackets")?;
        return match port.strip_prefix(':') {
            _ if port.is_empty() => Ok((host, None)),
            Some(port) => Ok((host, Some(port))),
            None => Err("behind the bracket comes a colon and the port".to_owned()),
        };
    }
    Ok(match place.rsplit_once(':') {
        Some(_) if is_v6(place) => (place, None),
        Some((host, port)) if is_v6(host) => {
            return Err(format!("put the address in brackets: [{host}]:{port}"));
        }
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    })
}

fn is_v6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

pub(super) async fn check(name: &str, to: &Question, format: FormatOption) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(name).await?;
    let answers = sandbox.check_network(&to.whom, to.port, to.protocol).await;
    let answers = answers.map_err(|error| library_failure::of(&error))?;
    let rows: Vec<Line> = answers.into_iter().map(Line::of).collect();
    crate::answer(&format.render(&rows, false)?)?;
    let allowed = rows.iter().all(|row| row.allowed);
    Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// What is said of one address.
#[derive(Debug, Serialize)]
struct Line {
    allowed: bool,
    /// None if the name itself is refused, has no address, or is the host's.
    address: Option<IpAddr>,
    reason: String,
}

impl Line {
    fn of(Answer { address, allowed, reason }: Answer) -> Self {
        Self { allowed, address, reason }
    }
}

impl Row<3> for Line {
    const HEADER: [&'static str; 3] = ["VERDICT", "ADDRESS", "REASON"];

    fn id(&self) -> String {
        self.address.map(|address| address.to_string()).unwrap_or_default()
    }

    fn lines(&self, _full: bool) -> Vec<[String; 3]> {
        let verdict = if self.allowed { "allowed" } else { "refused" };
        let address = self.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        vec![[verdict.to_owned(), address, one_line(self.reason.as_bytes())]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_a_host_a_port_and_a_protocol() {
        let address = |text: &str| Whom::Address(text.parse().unwrap());
        let name = |text: &str| Whom::Name(text.parse().unwrap());
        for (text, whom, port, protocol) in [
            ("example.com:443", name("example.com"), 443, Protocol::Tcp),
            ("10.0.0.1:53/udp", address("10.0.0.1"), 53, Protocol::Udp),
            ("[2001:db8::1]:443/tcp", address("2001:db8::1"), 443, Protocol::Tcp),
            ("[2001:db8::1]/icmp", address("2001:db8::1"), 0, Protocol::Icmp),
            ("2001:db8::1/icmp", address("2001:db8::1"), 0, Protocol::Icmp),
            ("example.com/icmp", name("example.com"), 0, Protocol::Icmp),
        ] {
            assert_eq!(parse(text), Ok(Question { whom, port, protocol }), "{text}");
        }
    }

    #[test]
    fn what_is_no_question_says_how_to_write_it() {
        for (text, words) in [
            ("example.com", "example.com:443"),
            ("2001:db8::1", "[2001:db8::1]:443"),
            ("2001:db8:0:0:0:0:0:1:443", "brackets"),
            ("example.com:0", "no port"),
            ("example.com:70000", "no port"),
            ("example.com:443/icmp", "no ports"),
            ("example.com:443/sctp", "sctp"),
            ("[example.com]:443", "IPv6"),
            ("[::1]443", "colon"),
            ("10.1:443", "neither"),
            (":443", "neither"),
            ("", ":443"),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        }
    }

    #[test]
    fn a_verdict_is_a_line_whatever_a_reason_holds() {
        let answer = Answer { address: None, allowed: false, reason: "a\nb".to_owned() };
        let [line] = Line::of(answer).lines(false).try_into().expect("one line");
        assert_eq!(line, ["refused", "-", "a\u{fffd}b"]);
    }
}
