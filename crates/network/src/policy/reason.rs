//! Why something was allowed or refused, in words for logs and for people who ask.

use std::fmt;
use std::net::IpAddr;

use super::class::AddressClass;
use super::{Base, Policy};

/// What decided. It is small and refers to the policy's rules, since one is made for every connection and few are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A rule, by its place among the rules.
    Rule(usize),
    /// No rule: what is so for the rest.
    Base(Base),
    /// No policy allows such an address.
    Never(IpAddr, AddressClass),
    /// It is not part of the internet, and no rule was about it.
    NotPublic(IpAddr, AddressClass),
    /// It is an address of the host's own, and no rule was about it.
    HostsOwn(IpAddr),
    /// A rule allows the name, or everything, which does not open an address that is not public.
    RuleNotPublic(usize, IpAddr, AddressClass),
    /// The same of an address of the host's own.
    RuleHostsOwn(usize, IpAddr),
    /// A rule allows the name, which datagrams do not show.
    RuleNotUdp(usize),
    /// No rule allows a name; there are some for addresses.
    OnlyAddresses,
}

impl Reason {
    /// The reason in words. The policy is the one that decided.
    pub fn explain(self, policy: &Policy) -> impl fmt::Display + '_ {
        Explanation { reason: self, policy }
    }
}

struct Explanation<'a> {
    reason: Reason,
    policy: &'a Policy,
}

impl Explanation<'_> {
    fn rule(&self, f: &mut fmt::Formatter<'_>, index: usize) -> fmt::Result {
        write!(f, "rule {}", index.saturating_add(1))?;
        match self.policy.rules().get(index) {
            Some(rule) => write!(f, ": {rule}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Rule(index) => self.rule(f, index),
            Reason::Base(Base::None) => f.write_str("no rule allows it (--network none)"),
            Reason::Base(base) => write!(f, "--network {base}"),
            Reason::Never(address, class) => {
                write!(f, "{address} is {class}, which is never reached")?;
                match class {
                    AddressClass::Loopback => f.write_str("; --expose-host leads to this host's services"),
                    _ => Ok(()),
                }
            }
            Reason::NotPublic(address, class) => {
                write!(f, "{address} is {class} (--network public refuses it)")
            }
            Reason::HostsOwn(address) => {
                write!(f, "{address} is an address of the host's own (--network public refuses it)")
            }
            Reason::RuleNotPublic(index, address, class) => {
                self.rule(f, index)?;
                write!(f, ", but {address} is {class}: only a rule with the address opens it")
            }
            Reason::RuleHostsOwn(index, address) => {
                self.rule(f, index)?;
                write!(f, ", but {address} is the host's own: only a rule with the address opens it")
            }
            Reason::RuleNotUdp(index) => {
                self.rule(f, index)?;
                f.write_str(", but a datagram does not show its name: only a rule with /udp allows it")
            }
            Reason::OnlyAddresses => f.write_str("rules allow addresses alone, no name (--network none)"),
        }
    }
}
