//! Owns a sandbox's network as its specification has it, and the gateway that comes of it.

mod log;
pub(crate) mod wire;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cellule_network::dns::{Dns, Servers};
use cellule_network::policy::{Base, Policy};
use cellule_network::secrets::Secrets;
use cellule_network::{Config, Forward, Limits, Neighbourhood, Network, OpenConnection};
use cellule_protocol::network::{GATEWAY_V4, Mac};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

pub(crate) use self::log::NetworkLog;
use crate::failure::{Failure, FailureKind};
use crate::name::NetworkName;
use crate::secrets::GuestSecret;

/// A sandbox's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// What may be reached.
    pub policy: Policy,
    /// Ports of the host that lead into the guest.
    pub ports: Vec<Forward>,
    /// Ports of the name that stands for the host, and which port of the host's loopback each is.
    pub exposed: BTreeMap<u16, u16>,
    /// Name servers in place of the host's.
    pub name_servers: Vec<SocketAddr>,
    /// Domains to search for short names, in place of the host's, if there are name servers in place of the host's.
    pub search: Vec<String>,
    /// Whether names in the host's file of hosts are names in the guest too.
    pub hosts_file: bool,
    /// Bytes each second, each way.
    pub bandwidth: Option<u64>,
    /// New connections each second.
    pub connection_rate: Option<u64>,
    /// What the guest has placeholders of.
    pub secrets: Vec<GuestSecret>,
    /// The named networks that it is on.
    pub networks: Vec<NetworkName>,
}

impl NetworkSpec {
    fn servers(&self) -> Servers {
        if self.name_servers.is_empty() && self.search.is_empty() {
            Servers::Host
        } else {
            Servers::Given { servers: self.name_servers.clone(), search: self.search.clone() }
        }
    }

    /// What the guest's `/etc/resolv.conf` says.
    pub(crate) fn resolv_conf(&self) -> String {
        let search = Dns::new(self.servers()).search();
        let search = if search.is_empty() { String::new() } else { format!("search {}\n", search.join(" ")) };
        // A neighbour's name is one as it is: with a domain behind it, it would be asked of the host's servers first.
        let options = if self.networks.is_empty() { "" } else { "options ndots:0\n" };
        format!("nameserver {GATEWAY_V4}\n{search}{options}")
    }
}

/// A network that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) network: Arc<Network>,
    /// The ports of the host, those that were chosen among them.
    pub(crate) ports: Vec<Forward>,
}

/// Starts the network of a sandbox, for the guest whose card's other end is `link`.
pub(crate) async fn start(
    spec: &NetworkSpec,
    link: OwnedFd,
    mac: Mac,
    lost: Vec<OpenConnection>,
    secrets: Option<Secrets>,
    neighbourhoods: Vec<Neighbourhood>,
    log: NetworkLog,
) -> Result<Running, Failure> {
    // Each connection of a guest's has a descriptor.
    let files = getrlimit(Resource::Nofile);
    _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let config = Config {
        policy: spec.policy.clone(),
        servers: spec.servers(),
        hosts_file: spec.hosts_file,
        exposed: spec.exposed.iter().map(|(guest, host)| (*guest, *host)).collect(),
        limits: Limits {
            bandwidth: spec.bandwidth,
            connection_rate: spec.connection_rate,
            ..Limits::default()
        },
        mac,
        lost,
        secrets,
        neighbourhoods,
        sink: Box::new(move |record| log.connection(&record)),
    };
    let network = Network::start(link, config).map_err(|error| failed(&error))?;
    let mut ports = Vec::with_capacity(spec.ports.len());
    for forward in &spec.ports {
        ports.push(network.publish(*forward).await.map_err(|error| failed(&error))?);
    }
    Ok(Running { network: Arc::new(network), ports })
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(FailureKind::Network, "the sandbox's network cannot be started", Some(error))
}

/// A network for a guest that is nobody's yet: whatever its programs want of it, they hear at once that it may not be.
pub(crate) fn refusing(link: &OwnedFd) -> Result<Network, Failure> {
    let link = link.try_clone().map_err(|error| failed(&error))?;
    let config = Config {
        policy: Policy::new(Some(Base::None), Vec::new()).map_err(|error| failed(&error))?,
        servers: Servers::Given { servers: Vec::new(), search: Vec::new() },
        hosts_file: false,
        exposed: HashMap::new(),
        limits: Limits::default(),
        mac: [0; 6],
        lost: Vec::new(),
        secrets: None,
        neighbourhoods: Vec::new(),
        sink: Box::new(drop),
    };
    Network::start(link, config).map_err(|error| failed(&error))
}
