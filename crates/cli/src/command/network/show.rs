//! `cellule network show`: a sandbox's network for people.

use cellule::network::{Base, HOST_NAME};
use cellule::{Entry, GuestSecret};

use crate::quantity::show_size;
use crate::{ports, table};

pub(super) fn text(entry: &Entry) -> String {
    let network = &entry.spec.network;
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut row = |what: String, value: String| rows.push([what, value]);
    for (index, rule) in network.policy.rules().iter().enumerate() {
        row(format!("rule {}", index + 1), rule.to_string());
    }
    let base = match network.policy.base() {
        Base::None => "none: all the rest is refused",
        Base::Public => "public: the internet, without this host's own networks",
        Base::All => "all: everything that can be reached",
    };
    row("otherwise".to_owned(), base.to_owned());
    let forwards = if entry.is_live() { &entry.record.ports } else { &network.ports };
    for forward in forwards {
        row("port".to_owned(), ports::show(forward));
    }
    for (guest, host) in &network.exposed {
        row("exposed".to_owned(), format!("{HOST_NAME}:{guest} is port {host} of this host"));
    }
    for server in &network.name_servers {
        row("name server".to_owned(), server.to_string());
    }
    if network.hosts_file {
        row("names".to_owned(), "this host's hosts file too".to_owned());
    }
    for domain in &network.search {
        row("search".to_owned(), domain.clone());
    }
    if let Some(bytes) = network.bandwidth {
        row("bandwidth".to_owned(), format!("{}/s each way", show_size(bytes)));
    }
    if let Some(rate) = network.connection_rate {
        row("connections".to_owned(), format!("{rate}/s"));
    }
    for name in &network.networks {
        row("network".to_owned(), name.to_string());
    }
    let authorities = entry.spec.authorities.matches("BEGIN CERTIFICATE").count();
    if authorities > 0 {
        row("trusted".to_owned(), format!("{authorities} of this host's certificate authorities"));
    }
    for GuestSecret { secret, .. } in &network.secrets {
        let hosts: Vec<String> = secret.hosts.iter().map(ToString::to_string).collect();
        let body = if secret.in_body { ", in bodies too" } else { "" };
        row(
            "secret".to_owned(),
            format!("{} from {} for {}{body}", secret.name, secret.source, hosts.join(", ")),
        );
    }
    table::render(["WHAT", "VALUE"], &rows)
}
