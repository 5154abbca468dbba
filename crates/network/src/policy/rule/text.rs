//! Rules as people write them. The grammar is in the parent module.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::{Action, Ports, Protocol, Rule, RuleError, Target};
use crate::policy::name::NameError;
use crate::policy::pattern::PatternError;

/// The longest text of a rule: the longest name and the most ports fit.
const LONGEST: usize = 1024;

pub(super) fn parse(action: Action, text: &str) -> Result<Rule, RuleError> {
    if text.len() > LONGEST {
        return Err(RuleError::TooLong(LONGEST));
    }
    if text.contains("://") {
        return Err(RuleError::Url(text.to_owned()));
    }
    let (rest, protocol) = split_protocol(text)?;
    let (host, ports) = split_ports(rest)?;
    let ports: Option<Ports> = ports.map(str::parse).transpose()?;
    if ports.is_some() && protocol == Some(Protocol::Icmp) {
        return Err(RuleError::IcmpPorts);
    }
    Ok(Rule { action, target: target(host)?, ports, protocol })
}

/// A slash is before a prefix's length too: what follows that begins with a digit.
fn split_protocol(text: &str) -> Result<(&str, Option<Protocol>), RuleError> {
    match text.rsplit_once('/') {
        Some((rest, last)) if !last.starts_with(|first: char| first.is_ascii_digit()) => {
            Ok((rest, Some(last.parse()?)))
        }
        _ => Ok((text, None)),
    }
}

/// The host, with the brackets that are around it, and the ports.
fn split_ports(text: &str) -> Result<(&str, Option<&str>), RuleError> {
    if text.starts_with('[') {
        let wrong = || RuleError::Brackets(text.to_owned());
        let end = text.find(']').ok_or_else(wrong)? + 1;
        let (host, rest) = text.split_at(end);
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((host, Some(ports))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(wrong()),
        };
    }
    match text.split_once(':') {
        // More than one: an IPv6 address.
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, ports)) => Ok((host, Some(ports))),
        None => Ok((text, None)),
    }
}

fn target(host: &str) -> Result<Target, RuleError> {
    if host.is_empty() {
        return Err(RuleError::NoHost);
    }
    if host == "*" {
        return Ok(Target::Any);
    }
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bare.is_some_and(|bare| !bare.contains(':')) {
        return Err(RuleError::Brackets(host.to_owned()));
    }
    let bare = bare.unwrap_or(host);
    if bare.contains(['/', ':']) || bare.parse::<Ipv4Addr>().is_ok() {
        return network(bare).map(Target::Network);
    }
    match bare.parse() {
        Ok(pattern) => Ok(Target::Domain(pattern)),
        Err(PatternError::Name(NameError::Numeric)) => Err(RuleError::Address(bare.to_owned())),
        Err(source) => Err(RuleError::Name { host: bare.to_owned(), source }),
    }
}

fn network(text: &str) -> Result<IpNet, RuleError> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| RuleError::Address(address.to_owned()))?;
    let Some(prefix) = prefix else {
        return Ok(IpNet::from(address.to_canonical()));
    };
    let wrong = || RuleError::Prefix(text.to_owned());
    if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let prefix = prefix.parse().map_err(|_| wrong())?;
    let network = IpNet::new(address, prefix).map_err(|_| wrong())?;
    if network.addr() != network.network() {
        return Err(RuleError::HostBits { given: text.to_owned(), network: canonical(network.trunc()) });
    }
    Ok(canonical(network))
}

/// Destinations are looked at in their canonical form, so networks must be in theirs.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let inner = mapped.addr().to_ipv4_mapped();
    let prefix = mapped.prefix_len().checked_sub(96);
    let inner = inner.zip(prefix).and_then(|(inner, prefix)| Ipv4Net::new(inner, prefix).ok());
    inner.map_or(network, IpNet::V4)
}

impl FromStr for Protocol {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "icmp" => Ok(Self::Icmp),
            _ => Err(RuleError::Protocol(text.to_owned())),
        }
    }
}

/// A rule with its action, such as `allow example.com:443`.
impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > LONGEST + "allow ".len() {
            return Err(RuleError::TooLong(LONGEST));
        }
        let (action, rest) = text.split_once(' ').unwrap_or((text, ""));
        let action = match action {
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            _ => return Err(RuleError::Action(action.to_owned())),
        };
        Self::new(action, rest.trim())
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.action)?;
        match (&self.target, &self.ports) {
            (Target::Any, _) => f.write_str("*")?,
            (Target::Domain(pattern), _) => pattern.fmt(f)?,
            (Target::Network(network @ IpNet::V6(_)), Some(_)) => write!(f, "[{}]", Short(network))?,
            (Target::Network(network), _) => Short(network).fmt(f)?,
        }
        if let Some(ports) = &self.ports {
            write!(f, ":{ports}")?;
        }
        if let Some(protocol) = self.protocol {
            write!(f, "/{protocol}")?;
        }
        Ok(())
    }
}

/// A network of one address is written as that address.
struct Short<'a>(&'a IpNet);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}
