//! Which servers are asked: the host's, or those that were given.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use resolv_conf::{Config, ScopedIp};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

use super::watched::Watched;

const PORT: u16 = 53;
/// As many of the host's as its C library asks.
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 32;
/// A name's length.
const MAX_DOMAIN: usize = 253;

/// The servers that questions are forwarded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// Those in the host's `/etc/resolv.conf`, as it is when a question comes.
    Host,
    /// Others.
    Given {
        /// They are asked in this order.
        servers: Vec<SocketAddr>,
        /// The domains that the guest is to complete names with.
        search: Vec<String>,
    },
}

/// Where the servers come from.
#[derive(Debug)]
pub(super) enum Source {
    File(Watched<Upstream>),
    Given(Rc<Upstream>),
}

/// The servers, and how they are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<String>,
    /// How often each is asked.
    pub(super) rounds: u32,
    /// How long each may take, in all rounds but the last.
    pub(super) quick: Duration,
    /// How long each may take in the last.
    pub(super) patient: Duration,
    /// How long all may take.
    pub(super) total: Duration,
    /// Datagrams are not to be used.
    pub(super) tcp_only: bool,
}

impl Source {
    pub(super) fn new(servers: Servers) -> Self {
        match servers {
            Servers::Host => Self::file("/etc/resolv.conf".into()),
            Servers::Given { servers, search } => Self::Given(Rc::new(Upstream::new(servers, search))),
        }
    }

    fn file(path: PathBuf) -> Self {
        Self::File(Watched::new(path, Upstream::parse))
    }

    pub(super) fn current(&self) -> Rc<Upstream> {
        match self {
            Self::File(file) => file.get(),
            Self::Given(given) => given.clone(),
        }
    }
}

impl Upstream {
    /// With the times that the C library has by default, but that a first try is shorter: the guest has this
    /// server only, and asks it again after 5 seconds, before which the second of the host's should have answered.
    pub(super) fn new(servers: Vec<SocketAddr>, search: Vec<String>) -> Self {
        Self {
            servers,
            search,
            rounds: 2,
            quick: Duration::from_secs(2),
            patient: Duration::from_secs(5),
            total: Duration::from_secs(15),
            tcp_only: false,
        }
    }

    /// As in resolv.conf(5): what is not understood is passed over, and without a server it is one on this host.
    fn parse(text: &[u8]) -> Self {
        let (config, _errors) = Config::parse_with_errors(text);
        let mut servers: Vec<_> = config.nameservers.iter().take(MAX_SERVERS).filter_map(address).collect();
        if config.nameservers.is_empty() {
            servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        let search = config.get_last_search_or_domain().filter_map(|domain| search_domain(domain));
        Self {
            rounds: config.attempts.clamp(1, 3),
            patient: Duration::from_secs(u64::from(config.timeout.clamp(2, 5))),
            tcp_only: config.use_vc,
            ..Self::new(servers, search.take(MAX_SEARCH).collect())
        }
    }
}

/// A domain that can be written into another such file.
fn search_domain(text: &str) -> Option<String> {
    let domain = text.trim_end_matches('.').to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fits = !domain.is_empty() && domain.len() <= MAX_DOMAIN && domain.bytes().all(plain);
    fits.then_some(domain)
}

/// The address; `None` if it is on a link that the host has not.
fn address(server: &ScopedIp) -> Option<SocketAddr> {
    match server {
        ScopedIp::V6(address, Some(scope)) => {
            let scope = scope.parse().ok().or_else(|| {
                let any = socket(AddressFamily::INET6, SocketType::DGRAM, None).ok()?;
                name_to_index(any, scope).ok()
            })?;
            Some(SocketAddrV6::new(*address, PORT, 0, scope).into())
        }
        server => Some((IpAddr::from(server), PORT).into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        Upstream::parse(text.as_bytes()).servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_hosts_servers_are_asked_in_their_order() {
        let text = "# by hand\nnameserver 10.0.0.2\nnameserver ::1\nnonsense\nnameserver x\nnameserver fe80::1%lo\n\
                    nameserver 9.9.9.9\noptions timeout:30 attempts:9 use-vc\nsearch a.example. B.example . x/y\n";
        let upstream = Upstream::parse(text.as_bytes());
        assert_eq!(addresses(text), ["10.0.0.2:53", "[::1]:53", "[fe80::1%1]:53"]);
        assert_eq!((upstream.rounds, upstream.patient, upstream.tcp_only), (3, Duration::from_secs(5), true));
        assert_eq!(upstream.search, ["a.example", "b.example"]);
    }

    #[test]
    fn without_a_server_it_is_one_on_the_host() {
        assert_eq!(addresses(""), ["127.0.0.1:53"]);
        assert_eq!(addresses("domain a.example\n\u{0}\u{feff}\n"), ["127.0.0.1:53"]);
        let missing = Source::file("/nonexistent/resolv.conf".into());
        assert_eq!(*missing.current(), Upstream::parse(b""));
    }

    #[test]
    fn a_server_on_a_link_that_is_not_there_is_passed_over() {
        assert_eq!(addresses("nameserver fe80::1%none0\nnameserver fe80::1%7\n"), ["[fe80::1%7]:53"]);
    }

    proptest! {
        #[test]
        fn no_file_makes_the_parser_panic(text in "((nameserver|search|options|sortlist|domain) ?[ -~é]{0,30}\n){0,5}") {
            let upstream = Upstream::parse(text.as_bytes());
            prop_assert!(upstream.servers.len() <= MAX_SERVERS && upstream.search.len() <= MAX_SEARCH);
        }
    }
}
