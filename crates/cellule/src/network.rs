//! What sandboxes may reach, and the ways into them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

pub use cellule_network::policy::{
    Action, Base, InvalidBase, Name, NameError, Policy, PolicyError, Protocol, Rule, RuleError,
};
pub use cellule_network::{Answer, Direction, Forward, ForwardStatus, HOST_NAME, Outcome, Record, Whom};
use cellule_supervisor::{NetworkName, NetworkSpec};

use crate::secrets::SecretArgument;

/// What of a snapshot's network is another in a sandbox that is [started from it](crate::Host::start_from_with). What is not
/// said is as in the snapshot.
///
/// A snapshot may come from anywhere, so that it opens neither this host nor its networks; what is said here may, since
/// whoever starts the sandbox says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkChanges {
    /// What programs may reach, all of it.
    pub policy: Option<Policy>,
    /// The ports of this host that lead in. Without it they are the snapshot's, at ports of this host that are free.
    pub ports: Option<Vec<Forward>>,
    /// Ports of [`HOST_NAME`], and which port of this host's loopback each is.
    pub exposed: Option<BTreeMap<u16, u16>>,
    /// Name servers, and the domains to search for short names, in place of this host's.
    pub name_servers: Option<(Vec<SocketAddr>, Vec<String>)>,
    /// Whether names in this host's `/etc/hosts` are names for programs too.
    pub hosts_file: Option<bool>,
    /// Bytes each second, each way.
    pub bandwidth: Option<u64>,
    /// New connections each second.
    pub connection_rate: Option<u64>,
    /// Secrets: a snapshot brings none. Programs of the snapshot have the placeholders of those that it had by the same names.
    pub secrets: Vec<SecretArgument>,
    /// The named networks that the sandbox is on: a snapshot brings none.
    pub networks: Vec<NetworkName>,
}

impl NetworkChanges {
    /// The network with what is said of it.
    pub(crate) fn of(self, network: NetworkSpec) -> NetworkSpec {
        let (name_servers, search) = self.name_servers.unwrap_or((network.name_servers, network.search));
        NetworkSpec {
            policy: self.policy.unwrap_or(network.policy),
            ports: self.ports.unwrap_or(network.ports),
            exposed: self.exposed.unwrap_or(network.exposed),
            name_servers,
            search,
            hosts_file: self.hosts_file.unwrap_or(network.hosts_file),
            bandwidth: self.bandwidth.or(network.bandwidth),
            connection_rate: self.connection_rate.or(network.connection_rate),
            secrets: network.secrets,
            networks: self.networks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_it_was() {
        let forward = |port| Forward {
            host: SocketAddr::from(([127, 0, 0, 1], port)),
            guest: 80,
            protocol: Protocol::Tcp,
        };
        let was = NetworkSpec { ports: vec![forward(0)], bandwidth: Some(1), ..NetworkSpec::default() };
        assert_eq!(NetworkChanges::default().of(was.clone()), was);
        let policy = Policy::new(Some(Base::All), Vec::new()).unwrap();
        let changes = NetworkChanges {
            policy: Some(policy.clone()),
            ports: Some(vec![forward(8080)]),
            ..NetworkChanges::default()
        };
        let is = changes.of(was);
        assert_eq!((is.policy, is.ports, is.bandwidth), (policy, vec![forward(8080)], Some(1)));
    }
}
