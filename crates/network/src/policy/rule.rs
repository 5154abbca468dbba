//! One rule: what it is about, and whether that is allowed.
//!
//! Its text is `allow` or `deny`, then `HOST[:PORTS][/PROTOCOL]`:
//!
//! | part | forms |
//! |---|---|
//! | host | `example.com` (itself only), `*.example.com` (all below it), `*` (all names and addresses), `10.1.2.3`, `10.0.0.0/8`, `2001:db8::/32` |
//! | ports | `443`, `8000-8010`, `80,443,8000-8010`; behind an IPv6 address in brackets: `[2001:db8::1]:443` |
//! | protocol | `tcp`, `udp`, `icmp`: `10.0.0.0/8:5432/tcp` |
//!
//! What is left out is not looked at: `example.com` is all its ports by all protocols. A rule with ports is not about ICMP, which has none.

mod error;
mod ports;
mod text;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::error::RuleError;
pub use self::ports::Ports;
use super::name::Name;
use super::pattern::Pattern;

/// What becomes of what a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It may be reached.
    Allow,
    /// It may not.
    Deny,
}

/// A protocol above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
    /// Echoes.
    Icmp,
}

/// The hosts that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// All of them, whether they have a name or not.
    Any,
    /// Those that were found under a name.
    Domain(Pattern),
    /// Those with an address: a network without bits beyond its prefix, and an IPv4 one if it can be.
    Network(IpNet),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    action: Action,
    target: Target,
    ports: Option<Ports>,
    protocol: Option<Protocol>,
}

impl Rule {
    /// The rule of a text such as `example.com:443`, which is without its action.
    ///
    /// # Errors
    /// The text is none of a rule.
    pub fn new(action: Action, text: &str) -> Result<Self, RuleError> {
        text::parse(action, text)
    }

    /// What becomes of what it is about.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The hosts that it is about.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The ports that it is about, if not all.
    pub fn ports(&self) -> Option<&Ports> {
        self.ports.as_ref()
    }

    /// The protocol that it is about, if not all.
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// Whether it goes by name: nothing that only has an address matches it.
    pub(super) fn goes_by_name(&self) -> bool {
        matches!(self.target, Target::Domain(_))
    }

    /// Whether a port of a protocol is among what it is about.
    pub(super) fn covers(&self, port: u16, protocol: Protocol) -> bool {
        self.protocol.is_none_or(|own| own == protocol)
            && self.ports.as_ref().is_none_or(|own| protocol != Protocol::Icmp && own.contains(port))
    }

    /// The same of what is not all known: whether it is about all that it may be.
    pub(super) fn surely_covers(&self, port: Option<u16>, protocol: Option<Protocol>) -> bool {
        let has =
            |ports: &Ports| protocol != Some(Protocol::Icmp) && port.is_some_and(|port| ports.contains(port));
        self.protocol.is_none_or(|own| protocol == Some(own)) && self.ports.as_ref().is_none_or(has)
    }

    /// The same of what is not all known: whether it is about some of what it may be.
    pub(super) fn may_cover(&self, port: Option<u16>, protocol: Option<Protocol>) -> bool {
        let has =
            |ports: &Ports| protocol != Some(Protocol::Icmp) && port.is_none_or(|port| ports.contains(port));
        self.protocol.is_none_or(|own| protocol.is_none_or(|protocol| protocol == own))
            && self.ports.as_ref().is_none_or(has)
    }
}

impl Target {
    /// Whether it is the host at `address`, found under `name`.
    pub(super) fn matches_host(&self, address: IpAddr, name: Option<&Name>) -> bool {
        match self {
            Self::Any => true,
            Self::Domain(pattern) => name.is_some_and(|name| pattern.matches(name)),
            Self::Network(network) => network.contains(&address),
        }
    }

    /// Whether it is a network in which the IPv4 address is.
    pub(super) fn has_v4(&self, address: Ipv4Addr) -> bool {
        matches!(self, Self::Network(IpNet::V4(network)) if network.contains(&address))
    }

    /// Whether it names addresses, and so may open those that are not public. A whole family of addresses is what people write for "the
    /// internet": it opens no more than `*`.
    pub(super) fn opens_all(&self) -> bool {
        matches!(self, Self::Network(network) if network.prefix_len() > 0)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

#[cfg(test)]
mod tests;
