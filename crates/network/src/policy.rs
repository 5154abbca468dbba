//! What a guest may reach: the rules, and what they decide. No I/O happens here.
//!
//! The first rule that matches decides; where none does, the [`Base`]. Three things are stronger than a rule's text, because a guest, or the
//! owner of a name that it may look up, would use them as ways round it:
//!
//! - Some addresses are refused whatever is allowed: [`AddressClass::is_never`].
//! - A name's owner chooses its addresses. So a rule that allows a name, or everything, opens neither what is not public nor the host's own
//!   addresses (unless the base is [`Base::All`]): such a rule is passed over, and one with the address must follow.
//! - A name can be checked only in what shows it. So a rule that allows a name does not allow UDP unless it says `/udp`.
//!
//! One address may have many names, whose rules differ. The rules are gone through once for each name by which the guest found the
//! address, and it is allowed if they allow it by one of them: a rule that denies one name must not take all its neighbours in a
//! content delivery network with it. What the guest then asks for there (in TLS's SNI, in HTTP's Host) is to be checked with
//! [`Policy::decide_shown`]. UDP and ICMP show no name: there one name that a rule denies is enough.
//!
//! A rule that denies a name keeps it from being looked up and asked for. It does not deny the addresses to who knows them.

mod class;
mod name;
mod pattern;
mod reason;
mod rule;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::slice;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::class::{AddressClass, embedded_v4};
pub use self::name::{Name, NameError};
pub use self::pattern::{Pattern, PatternError};
pub use self::reason::Reason;
pub use self::rule::{Action, Ports, Protocol, Rule, RuleError, Target};

/// The most rules: all may be looked at for every connection.
pub const MAX_RULES: usize = 4096;

/// What is so where no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// Nothing is allowed.
    None,
    /// The internet is, but for the host's own addresses in it.
    Public,
    /// Everything is that can be.
    All,
}

/// A text that names no base.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of none, public and all")]
pub struct InvalidBase(String);

/// What a guest may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Policy {
    base: Base,
    rules: Vec<Rule>,
    has_name_rules: bool,
}

/// Why rules make no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// More than can be looked at for every connection.
    #[error("there are {0} rules, and {MAX_RULES} at most can be")]
    TooManyRules(usize),
}

/// Where a guest wants to go.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// The address.
    pub address: IpAddr,
    /// The port; ICMP has none.
    pub port: u16,
    /// How.
    pub protocol: Protocol,
    /// The names by which the guest was given the address. The rules are gone through for each: their number must have a limit.
    pub names: &'a [Name],
    /// Whether a connection would end at the host itself. Whoever finds out asks the same of [`embedded_v4`].
    pub is_hosts_own: bool,
}

/// What a policy says of a destination or a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// Whether it may be reached.
    pub allowed: bool,
    /// Why, or why not.
    pub reason: Reason,
    /// Whether it depends on the name: a TCP connection must then show one that [`Policy::decide_shown`] allows. Otherwise it need not show
    /// one, but must not show one that is refused.
    pub by_name: bool,
}

impl Policy {
    /// A policy of rules in their order. Where no base is given, naming what is allowed refuses the rest; else it is [`Base::Public`].
    ///
    /// # Errors
    /// There are more than [`MAX_RULES`].
    pub fn new(base: Option<Base>, rules: Vec<Rule>) -> Result<Self, PolicyError> {
        if rules.len() > MAX_RULES {
            return Err(PolicyError::TooManyRules(rules.len()));
        }
        let allows = rules.iter().any(|rule| rule.action() == Action::Allow);
        let base = base.unwrap_or(if allows { Base::None } else { Base::Public });
        let has_name_rules = rules.iter().any(Rule::goes_by_name);
        Ok(Self { base, rules, has_name_rules })
    }

    /// What is so where no rule matches.
    pub fn base(&self) -> Base {
        self.base
    }

    /// The rules, in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a rule goes by name, so that it matters what connections show of theirs even where the address was allowed without.
    pub fn has_name_rules(&self) -> bool {
        self.has_name_rules
    }

    /// Whether a destination may be reached.
    pub fn decide(&self, to: &Destination<'_>) -> Decision {
        let spot = Spot::new(to);
        if spot.class.is_never() {
            return Decision::refuse(Reason::Never(spot.address, spot.class));
        }
        if to.names.is_empty() || !self.has_name_rules {
            return self.first_match(&spot, None);
        }
        let (mut allowed, mut refused, mut denied) = (None, None, None);
        for name in to.names {
            let decision = self.first_match(&spot, Some(name));
            let first = if decision.allowed { &mut allowed } else { &mut refused };
            first.get_or_insert(decision);
            if !decision.allowed && decision.by_name {
                denied.get_or_insert(decision);
            }
        }
        match (allowed, denied) {
            (Some(_), Some(denied)) if to.protocol != Protocol::Tcp => denied,
            (Some(allowed), Some(_)) => Decision { by_name: true, ..allowed },
            // If it is allowed to who knows no name, it is to who knows one, whichever rule comes first.
            (Some(allowed), None) => {
                let by_name = allowed.by_name && !self.first_match(&spot, None).allowed;
                Decision { by_name, ..allowed }
            }
            (None, _) => refused.unwrap_or_else(|| self.first_match(&spot, None)),
        }
    }

    /// Whether a connection may go on after it showed for which name it is, in TLS's SNI or HTTP's Host, however the guest found the address.
    pub fn decide_shown(&self, to: &Destination<'_>, shown: &Name) -> Decision {
        self.decide(&Destination { names: slice::from_ref(shown), ..*to })
    }

    /// Whether a name may be looked up, or reached at whatever address it has.
    ///
    /// What is not known of the connection may still be anything: a name is refused if every connection to it would be, as far as rules
    /// with names say. Rules with addresses say nothing of names; so with [`Base::None`] and no others names are refused, since a
    /// question to a name server is a way out too.
    pub fn decide_name(&self, name: &Name, port: Option<u16>, protocol: Option<Protocol>) -> Decision {
        for (index, rule) in self.rules.iter().enumerate() {
            let by_name = match rule.target() {
                Target::Any => false,
                Target::Domain(pattern) if pattern.matches(name) => true,
                Target::Domain(_) | Target::Network(_) => continue,
            };
            let (allowed, matches) = match rule.action() {
                Action::Allow => (true, rule.may_cover(port, protocol)),
                Action::Deny => (false, rule.surely_covers(port, protocol)),
            };
            if matches {
                return Decision { allowed, reason: Reason::Rule(index), by_name };
            }
        }
        let mut allowing = self.rules.iter().filter(|rule| rule.action() == Action::Allow).peekable();
        let only_addresses = allowing.peek().is_some() && allowing.all(|rule| !rule.goes_by_name());
        match self.base {
            Base::None if only_addresses => Decision::refuse(Reason::OnlyAddresses),
            Base::None => Decision::refuse(Reason::Base(self.base)),
            Base::Public | Base::All => Decision::allow(Reason::Base(self.base)),
        }
    }

    /// What the rules say if the host is found under this name alone, or under none.
    fn first_match(&self, spot: &Spot, name: Option<&Name>) -> Decision {
        // The first rule that would have allowed it, had it been a stronger one: if it is refused in the end, that is what to tell.
        let mut passed_over = None;
        for (index, rule) in self.rules.iter().enumerate() {
            if !rule.covers(spot.port, spot.protocol) || !spot.is_in(rule, name) {
                continue;
            }
            let by_name = rule.goes_by_name();
            let reason = Reason::Rule(index);
            if rule.action() == Action::Deny {
                let reason = passed_over.unwrap_or(reason);
                return Decision { allowed: false, reason, by_name };
            }
            let closed =
                (self.base != Base::All && !rule.target().opens_all()).then(|| spot.closed(index)).flatten();
            let hidden = by_name && spot.protocol == Protocol::Udp && rule.protocol() != Some(Protocol::Udp);
            match closed.or(hidden.then_some(Reason::RuleNotUdp(index))) {
                Some(weak) => _ = passed_over.get_or_insert(weak),
                None => return Decision { allowed: true, reason, by_name },
            }
        }
        let base = self.base_decision(spot);
        match passed_over {
            Some(reason) if !base.allowed => Decision::refuse(reason),
            _ => base,
        }
    }

    fn base_decision(&self, spot: &Spot) -> Decision {
        match self.base {
            Base::Public if spot.class != AddressClass::Public => {
                Decision::refuse(Reason::NotPublic(spot.address, spot.class))
            }
            Base::Public if spot.is_hosts_own => Decision::refuse(Reason::HostsOwn(spot.address)),
            Base::None => Decision::refuse(Reason::Base(self.base)),
            Base::Public | Base::All => Decision::allow(Reason::Base(self.base)),
        }
    }
}

/// The internet, and nothing else.
impl Default for Policy {
    fn default() -> Self {
        Self { base: Base::Public, rules: Vec::new(), has_name_rules: false }
    }
}

impl Decision {
    fn allow(reason: Reason) -> Self {
        Self { allowed: true, reason, by_name: false }
    }

    fn refuse(reason: Reason) -> Self {
        Self { allowed: false, reason, by_name: false }
    }
}

/// A destination without its names, in the form in which rules are held against it.
struct Spot {
    address: IpAddr,
    embedded: Option<Ipv4Addr>,
    class: AddressClass,
    port: u16,
    protocol: Protocol,
    is_hosts_own: bool,
}

impl Spot {
    fn new(to: &Destination<'_>) -> Self {
        let address = to.address.to_canonical();
        Self {
            address,
            embedded: embedded_v4(address),
            class: AddressClass::of(address),
            port: to.port,
            protocol: to.protocol,
            is_hosts_own: to.is_hosts_own,
        }
    }

    /// Whether a rule's hosts include it. What a translator would make of the address is denied with it, but not allowed with it.
    fn is_in(&self, rule: &Rule, name: Option<&Name>) -> bool {
        let target = rule.target();
        target.matches_host(self.address, name)
            || rule.action() == Action::Deny && self.embedded.is_some_and(|inner| target.has_v4(inner))
    }

    /// Why a rule that does not name the address does not open it.
    fn closed(&self, index: usize) -> Option<Reason> {
        if self.class != AddressClass::Public {
            Some(Reason::RuleNotPublic(index, self.address, self.class))
        } else if self.is_hosts_own {
            Some(Reason::RuleHostsOwn(index, self.address))
        } else {
            None
        }
    }
}

/// A policy as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    base: Option<Base>,
    #[serde(default)]
    rules: Vec<Rule>,
}

impl TryFrom<Text> for Policy {
    type Error = PolicyError;

    fn try_from(text: Text) -> Result<Self, Self::Error> {
        Self::new(text.base, text.rules)
    }
}

impl From<Policy> for Text {
    fn from(policy: Policy) -> Self {
        Self { base: Some(policy.base), rules: policy.rules }
    }
}

impl FromStr for Base {
    type Err = InvalidBase;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "public" => Ok(Self::Public),
            "all" => Ok(Self::All),
            _ => Err(InvalidBase(text.to_owned())),
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Public => "public",
            Self::All => "all",
        })
    }
}

#[cfg(test)]
mod tests;
