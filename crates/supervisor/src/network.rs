//! Owns a sandbox's network as its specification has it, and the gateway that comes of it.

pub(crate) mod wire;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use cellule_network::dns::{Dns, Servers};
use cellule_network::policy::{Base, Policy};
use cellule_network::{Config, Forward, Limits, Network, OpenConnection, Outcome, Record, Sink};
use cellule_protocol::network::{GATEWAY_V4, Mac};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::directory::LOGS;
use crate::failure::{Failure, FailureKind};
use crate::log::{LogWriter, NETWORK_LOG};

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
        format!("nameserver {GATEWAY_V4}\n{search}")
    }
}

/// A network that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) network: Arc<Network>,
    /// The ports of the host, those that were chosen among them.
    pub(crate) ports: Vec<Forward>,
}

/// Starts the network of a sandbox whose directory is `dir`, for the guest whose card's other end is `link`.
pub(crate) async fn start(
    spec: &NetworkSpec,
    dir: &Path,
    link: OwnedFd,
    mac: Mac,
    lost: Vec<OpenConnection>,
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
        secrets: None,
        neighbourhoods: Vec::new(),
        sink: sink(LogWriter::new(&dir.join(LOGS).join(NETWORK_LOG))),
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

/// The most records that are written each second: what a guest does on purpose is to fill no disk's queue.
const RECORDS: u32 = 500;

/// What a second's records came to.
struct Second {
    begun: Instant,
    written: u32,
    left_out: u64,
}

/// Writes records to a log, one on a line: what went well as standard output, what did not as standard error.
fn sink(writer: LogWriter) -> Sink {
    let second = Second { begun: Instant::now(), written: 0, left_out: 0 };
    let state = Mutex::new((writer, second));
    Box::new(move |record: Record| {
        let (writer, second) = &mut *state.lock().unwrap_or_else(PoisonError::into_inner);
        if second.begun.elapsed() >= Duration::from_secs(1) {
            *second = Second { begun: Instant::now(), written: 0, left_out: second.left_out };
        }
        if second.written == RECORDS {
            second.left_out += 1;
            return;
        }
        second.written += 1;
        let at = UNIX_EPOCH + Duration::from_nanos(u64::try_from(record.time_ns).unwrap_or(0));
        let left_out = std::mem::take(&mut second.left_out);
        if left_out > 0 {
            let line = format!("[cellule: {left_out} more in too short a time]\n");
            writer.append(true, line.as_bytes(), at);
        }
        let well = matches!(record.outcome, Outcome::Closed);
        if let Ok(mut line) = serde_json::to_vec(&record) {
            line.push(b'\n');
            writer.append(!well, &line, at);
        }
    })
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
