//! What there is to know of a sandbox's network.

use cellule_network::Forward;
use cellule_supervisor::{Entry, GuestSecret};
use schemars::JsonSchema;
use serde::Serialize;

/// How a sandbox reaches others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectNetwork {
    /// What is so where no rule matches: none, public or all.
    pub mode: String,
    /// The rules in their order, each beginning with allow or deny.
    pub rules: Vec<String>,
    /// The ports of this host that lead in; while it runs, those that were chosen.
    pub ports: Vec<InspectPort>,
    /// Ports of `host.cellule.internal`.
    pub exposed: Vec<InspectExposed>,
    /// Name servers in place of this host's.
    pub name_servers: Vec<String>,
    /// The domains that are searched for short names in place of this host's.
    pub search: Vec<String>,
    /// The most bytes a second, each way.
    pub bandwidth_bytes: Option<u64>,
    /// The most new connections a second.
    pub connection_rate: Option<u64>,
    /// The named networks that it is on.
    pub networks: Vec<String>,
    /// The secrets that programs have placeholders of. Nothing here knows a value.
    pub secrets: Vec<InspectSecret>,
    /// What the guest calls itself.
    pub hostname: String,
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectSecret {
    /// The variable that has the placeholder.
    pub name: String,
    /// Where the value comes from.
    pub source: String,
    /// The hosts that get it.
    pub hosts: Vec<String>,
    /// Whether the placeholder is looked for in bodies of requests too.
    pub in_body: bool,
}

/// A port of this host that leads in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectPort {
    /// The address and port of this host; port 0 is any.
    pub host: String,
    /// The guest's port.
    pub guest: u16,
    /// tcp or udp.
    pub protocol: String,
}

/// A port of this host's loopback that programs can reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectExposed {
    /// The port of `host.cellule.internal`.
    pub guest: u16,
    /// The port of this host's loopback.
    pub host: u16,
}

impl InspectNetwork {
    pub(super) fn of(entry: &Entry) -> Self {
        let Entry { spec, record, .. } = entry;
        let network = &spec.network;
        let ports = if entry.is_live() { &record.ports } else { &network.ports };
        let port = |forward: &Forward| InspectPort {
            host: forward.host.to_string(),
            guest: forward.guest,
            protocol: forward.protocol.to_string(),
        };
        let secret = |GuestSecret { secret, .. }: &GuestSecret| InspectSecret {
            name: secret.name.clone(),
            source: secret.source.to_string(),
            hosts: secret.hosts.iter().map(ToString::to_string).collect(),
            in_body: secret.in_body,
        };
        Self {
            mode: network.policy.base().to_string(),
            rules: network.policy.rules().iter().map(ToString::to_string).collect(),
            ports: ports.iter().map(port).collect(),
            exposed: network
                .exposed
                .iter()
                .map(|(guest, host)| InspectExposed { guest: *guest, host: *host })
                .collect(),
            name_servers: network.name_servers.iter().map(ToString::to_string).collect(),
            search: network.search.clone(),
            bandwidth_bytes: network.bandwidth,
            connection_rate: network.connection_rate,
            networks: network.networks.iter().map(ToString::to_string).collect(),
            secrets: network.secrets.iter().map(secret).collect(),
            hostname: spec.hostname.clone(),
        }
    }
}
