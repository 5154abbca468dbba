//! The options that describe a sandbox's network, shared by the commands that make one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cellule::Builder;
use cellule::network::{Action, Base, Forward, Protocol, Rule};
use clap::parser::ValueSource;

use crate::quantity;

/// Most ports that one option may name.
const RANGE_MAX: u16 = 1024;

/// How a sandbox reaches others, and they it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkOptions {
    /// What programs may reach where no rule says: none, public (the internet without this host's own networks) or all.
    /// Without it, --allow refuses the rest, and else it is public
    #[arg(long, value_name = "WHAT")]
    network: Option<Base>,
    #[command(flatten)]
    rules: RuleOptions,
    /// Let a port of this host lead to one of the sandbox, such as 8080:80, 127.0.0.1:0:80 (any that is free),
    /// [::1]:8000-8010:8000-8010 or 5353:53/udp; without an address it is this host's loopback
    #[arg(short, long, value_name = "[IP:]HOST:GUEST[/tcp|udp]", value_parser = parse_ports)]
    publish: Vec<Forwards>,
    /// Let programs reach a port of this host's loopback, as host.cellule.internal
    #[arg(long, value_name = "PORT[:GUESTPORT]", value_parser = parse_exposed)]
    expose_host: Vec<(u16, u16)>,
    /// Ask this name server in place of those that this host asks
    #[arg(long, value_name = "IP[:PORT]", value_parser = parse_server)]
    dns: Vec<SocketAddr>,
    /// Look for short names in this domain, in place of those that this host looks in
    #[arg(long, value_name = "DOMAIN", requires = "dns")]
    dns_search: Vec<String>,
    /// Let programs look up the names in this host's /etc/hosts
    #[arg(long)]
    host_names: bool,
    /// The most that programs may send, and get, each second
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_size)]
    bandwidth: Option<u64>,
    /// The most connections that programs may begin each second
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    connection_rate: Option<u64>,
}

impl NetworkOptions {
    /// Puts what was asked into the description of a sandbox.
    pub(crate) fn apply(&self, mut builder: Builder) -> Builder {
        if let Some(base) = self.network {
            builder = builder.network(base);
        }
        builder = self.rules.rules().into_iter().fold(builder, Builder::rule);
        builder =
            self.publish.iter().flat_map(|forwards| &forwards.0).fold(builder, |b, forward| b.port(*forward));
        builder = self.expose_host.iter().fold(builder, |b, (port, guest)| b.expose_host(*port, *guest));
        builder = self.dns.iter().fold(builder, |b, server| b.name_server(*server));
        builder = self.dns_search.iter().fold(builder, Builder::search_domain);
        if let Some(bytes) = self.bandwidth {
            builder = builder.bandwidth(bytes);
        }
        if let Some(connections) = self.connection_rate {
            builder = builder.connection_rate(connections);
        }
        builder.hosts_file(self.host_names)
    }
}

/// Rules in the order in which they were given: clap itself keeps the order of each option alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleOptions {
    rules: Vec<Rule>,
}

impl RuleOptions {
    pub(crate) fn rules(&self) -> Vec<Rule> {
        self.rules.clone()
    }
}

/// The target of a rule, checked where it was typed.
fn parse_target(text: &str) -> Result<String, String> {
    Rule::new(Action::Allow, text).map(|_| text.to_owned()).map_err(|error| chain(&error))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl clap::Args for RuleOptions {
    fn augment_args(command: clap::Command) -> clap::Command {
        let rule = |name: &'static str, help: &'static str| {
            clap::Arg::new(name)
                .long(name)
                .value_name("HOST[:PORTS][/PROTOCOL]")
                .help(help)
                .action(clap::ArgAction::Append)
                .value_parser(parse_target)
        };
        command
            .arg(rule(
                "allow",
                "Let programs reach this: example.com, *.example.com (all below it), 10.0.0.0/8, [2001:db8::1]:443, \
                 *:80,443. The first rule of --allow and --deny that matches decides",
            ))
            .arg(rule("deny", "Refuse programs this"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for RuleOptions {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let mut rules = Vec::new();
        for (name, action) in [("allow", Action::Allow), ("deny", Action::Deny)] {
            let given = matches.value_source(name) == Some(ValueSource::CommandLine);
            let (Some(targets), Some(places)) = (matches.get_many::<String>(name), matches.indices_of(name))
            else {
                continue;
            };
            for (target, place) in targets.zip(places).filter(|_| given) {
                let rule = Rule::new(action, target).map_err(|error| {
                    clap::Error::raw(clap::error::ErrorKind::ValueValidation, chain(&error))
                })?;
                rules.push((place, rule));
            }
        }
        rules.sort_by_key(|(place, _)| *place);
        Ok(Self { rules: rules.into_iter().map(|(_, rule)| rule).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What one `-p` gives: a forward, or one for each port of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forwards(pub(crate) Vec<Forward>);

/// `[IP:]HOST:GUEST[/tcp|udp]`, or `GUEST` alone for any port of the host.
pub(crate) fn parse_ports(text: &str) -> Result<Forwards, String> {
    let shape = || {
        "write it as 8080:80, 127.0.0.1:8080:80, [::1]:8080:80, 0:80 or 8000-8010:8000-8010/udp".to_owned()
    };
    let (places, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((places, "tcp")) => (places, Protocol::Tcp),
        Some((places, "udp")) => (places, Protocol::Udp),
        Some(_) => return Err(shape()),
    };
    let (host, guest) = places.rsplit_once(':').unwrap_or(("0", places));
    let (address, host) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once("]:").ok_or_else(shape)?;
            (IpAddr::V6(address.parse::<Ipv6Addr>().map_err(|_| shape())?), port)
        }
        None => match host.rsplit_once(':') {
            Some((address, port)) => (IpAddr::V4(address.parse::<Ipv4Addr>().map_err(|_| shape())?), port),
            None => (Ipv4Addr::LOCALHOST.into(), host),
        },
    };
    let (host, guest) = (range(host).ok_or_else(shape)?, range(guest).ok_or_else(shape)?);
    let count = guest.1 - guest.0;
    if guest.0 == 0 {
        return Err("the sandbox has no port 0".to_owned());
    }
    if count >= RANGE_MAX {
        return Err(format!("a range can have {RANGE_MAX} ports"));
    }
    if host != (0, 0) && host.1 - host.0 != count {
        return Err("the two ranges must be of one length".to_owned());
    }
    let forward = |number: u16| {
        let port = if host == (0, 0) { 0 } else { host.0 + number };
        Forward { host: SocketAddr::new(address, port), guest: guest.0 + number, protocol }
    };
    Ok(Forwards((0..=count).map(forward).collect()))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && (first > 0 || last == 0)).then_some((first, last))
}

fn parse_exposed(text: &str) -> Result<(u16, u16), String> {
    let (port, guest) = text.split_once(':').unwrap_or((text, text));
    let parse = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    parse(port).zip(parse(guest)).ok_or_else(|| "write it as 5432 or 5432:15432".to_owned())
}

/// A name server's address, with port 53 where none is given.
fn parse_server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    address
        .or_else(|_| text.parse())
        .map_err(|_| "write it as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        network: NetworkOptions,
    }

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

    #[test]
    fn rules_keep_the_order_in_which_they_were_typed() {
        let words =
            ["x", "--deny", "a.example", "--allow", "*.example", "--deny", "10.0.0.0/8", "--allow", "*:443"];
        let rules = Program::try_parse_from(words).unwrap().network.rules.rules();
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        assert_eq!(rules, ["deny a.example", "allow *.example", "deny 10.0.0.0/8", "allow *:443"]);
        let error = Program::try_parse_from(["x", "--allow", "10.0.0.1/8"]).unwrap_err().to_string();
        assert!(error.contains("10.0.0.0/8"), "{error}");
    }
}
