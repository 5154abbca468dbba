//! How ports that lead into a sandbox are written and told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cellule::Sandbox;
use cellule::network::{Forward, Protocol};

use crate::failure::Failure;
use crate::library_failure;
use crate::report::Report;

/// Most ports that one option may name.
const RANGE_MAX: u16 = 1024;
/// What the gateway says of a port that it cannot have.
const LISTEN: &str = "cannot listen on";

/// What one `-p` gives: a forward, or one for each port of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forwards(pub(crate) Vec<Forward>);

/// `[IP:]HOST:GUEST[/tcp|udp]`, or `GUEST` alone for any port of the host.
pub(crate) fn parse_ports(text: &str) -> Result<Forwards, String> {
    let shape = || {
        "write it as 8080:80, 127.0.0.1:8080:80, [::1]:8080:80, 0:80 or 8000-8010:8000-8010/udp".to_owned()
    };
    let (places, protocol) = split_protocol(text).ok_or_else(shape)?;
    let (host, guest) = places.rsplit_once(':').unwrap_or(("0", places));
    let (address, host) = place(host).ok_or_else(shape)?;
    let guest = range(guest).ok_or_else(shape)?;
    let count = guest.1 - guest.0;
    if guest.0 == 0 {
        return Err("the sandbox has no port 0".to_owned());
    }
    check_length(guest)?;
    if host != (0, 0) && host.1 - host.0 != count {
        return Err("the two ranges must be of one length".to_owned());
    }
    let forward = |number: u16| {
        let port = if host == (0, 0) { 0 } else { host.0 + number };
        Forward { host: SocketAddr::new(address, port), guest: guest.0 + number, protocol }
    };
    Ok(Forwards((0..=count).map(forward).collect()))
}

/// What stands before `/tcp` or `/udp`; TCP is what is meant where nothing is said.
pub(crate) fn split_protocol(text: &str) -> Option<(&str, Protocol)> {
    match text.rsplit_once('/') {
        None => Some((text, Protocol::Tcp)),
        Some((place, "tcp")) => Some((place, Protocol::Tcp)),
        Some((place, "udp")) => Some((place, Protocol::Udp)),
        Some(_) => None,
    }
}

/// `[IP:]HOST`: where this host listens, on one port or a range of them; the loopback where no address is said.
pub(crate) fn place(text: &str) -> Option<(IpAddr, (u16, u16))> {
    let (address, ports) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, ports) = rest.split_once("]:")?;
            (address.parse::<Ipv6Addr>().ok()?.into(), ports)
        }
        None => match text.rsplit_once(':') {
            Some((address, ports)) => (address.parse::<Ipv4Addr>().ok()?.into(), ports),
            None => (Ipv4Addr::LOCALHOST.into(), text),
        },
    };
    Some((address, range(ports)?))
}

pub(crate) fn check_length((first, last): (u16, u16)) -> Result<(), String> {
    if last - first >= RANGE_MAX { Err(format!("a range can have {RANGE_MAX} ports")) } else { Ok(()) }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && (first > 0 || last == 0)).then_some((first, last))
}

/// As `cellule ps` shows it.
pub(crate) fn show(forward: &Forward) -> String {
    format!("{}->{}/{}", forward.host, forward.guest, forward.protocol)
}

/// Adds what helps to a failure that is, or has for a cause, that this host cannot listen.
pub(crate) fn hint(failure: Failure) -> Failure {
    let text = failure.render();
    if !text.contains(LISTEN) {
        failure
    } else if text.contains("Address already in use") {
        failure
            .hint("something listens there already: choose another port, or any that is free, such as 0:80")
    } else if text.contains("Permission denied") {
        failure.hint("ports below 1024 are root's: choose another, such as 8080:80")
    } else if text.contains("Cannot assign requested address") {
        failure.hint(
            "the address is none of this host's: 127.0.0.1 is for this host alone, 0.0.0.0 for everybody",
        )
    } else {
        failure
    }
}

/// Tells which ports of this host were chosen, where that was left to us.
pub(crate) fn tell_chosen(sandbox: &Sandbox, report: &Report) -> Result<(), Failure> {
    if sandbox.spec().network.ports.iter().all(|forward| forward.host.port() != 0) {
        return Ok(());
    }
    let entry = sandbox.host().find(sandbox.id()).map_err(|error| library_failure::of(&error))?;
    for forward in &entry.record.ports {
        report.warn(&format!("{} leads to port {}/{}", forward.host, forward.guest, forward.protocol));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwards(text: &str) -> Vec<String> {
        let show = |forward: &Forward| format!("{}>{}/{}", forward.host, forward.guest, forward.protocol);
        parse_ports(text).unwrap().0.iter().map(show).collect()
    }

    #[test]
    fn a_port_is_written_as_with_docker() {
        assert_eq!(forwards("8080:80"), ["127.0.0.1:8080>80/tcp"]);
        assert_eq!(forwards("80"), ["127.0.0.1:0>80/tcp"]);
        assert_eq!(forwards("0.0.0.0:0:80/udp"), ["0.0.0.0:0>80/udp"]);
        assert_eq!(forwards("[::1]:8080:80"), ["[::1]:8080>80/tcp"]);
        assert_eq!(forwards("8000-8001:9000-9001"), ["127.0.0.1:8000>9000/tcp", "127.0.0.1:8001>9001/tcp"]);
        assert_eq!(forwards("0:9000-9001").len(), 2);
        for bad in [
            "",
            "x",
            "1:2:3",
            "::1:80:80",
            "8080:80/sctp",
            "5-4:80",
            "1-2:80",
            "80:0",
            "70000:80",
            "1-60000:1-60000",
        ] {
            assert!(parse_ports(bad).is_err(), "{bad}");
        }
    }
}
