//! Why a text is no rule. No message repeats its source.

use ipnet::IpNet;

use crate::policy::pattern::PatternError;

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Longer than any rule.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// It begins with something else.
    #[error("a rule begins with \"allow \" or \"deny \", not {0:?}")]
    Action(String),
    /// It is not about anything.
    #[error("the host is missing: a name, *, an address or a network such as 10.0.0.0/8")]
    NoHost,
    /// It is an address of a page.
    #[error("{0:?} is a URL: the host alone is wanted, as in example.com:443")]
    Url(String),
    /// A word after the last slash.
    #[error("{0:?} is no protocol: tcp, udp or icmp is wanted after the last /")]
    Protocol(String),
    /// Neither a port nor more of them.
    #[error("{0:?} is no list of ports from 1 to 65535, such as 443 or 80,8000-8010")]
    Ports(String),
    /// More ranges than are looked at for every packet.
    #[error("it lists more than {0} ports and ranges")]
    TooManyPorts(usize),
    /// ICMP with ports.
    #[error("icmp has no ports")]
    IcmpPorts,
    /// A bracket too few, or one around something else.
    #[error(
        "{0:?} is wrong: brackets stand around an IPv6 address, as in [2001:db8::1]:443 or [2001:db8::/32]:443"
    )]
    Brackets(String),
    /// A number that is no address.
    #[error("{0:?} is no address: four decimal numbers are wanted, as in 10.0.0.1, or an IPv6 address")]
    Address(String),
    /// A prefix that no address has.
    #[error("{0:?} is no network: the length of its prefix is wanted after the /, as in 10.0.0.0/8")]
    Prefix(String),
    /// An address where a network was to be.
    #[error("{given:?} has bits beyond its prefix: the network is {network}")]
    HostBits {
        /// What was given.
        given: String,
        /// What was meant, perhaps.
        network: IpNet,
    },
    /// Neither a name nor a pattern.
    #[error("{host:?} is no name of a host")]
    Name {
        /// What was given.
        host: String,
        /// In which way.
        #[source]
        source: PatternError,
    },
}
