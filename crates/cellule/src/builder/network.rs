//! What is asked of a sandbox's network.

use std::net::SocketAddr;

use cellule_network::Forward;
use cellule_network::policy::{Base, Policy, Rule};
use cellule_supervisor::{NetworkName, NetworkSpec};

use super::Builder;
use crate::Error;
use crate::secrets::SecretArgument;

/// What is asked for, before it is known whether it can be.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    base: Option<Base>,
    rules: Vec<Rule>,
    pub(super) trust_host_ca: bool,
    pub(super) secrets: Vec<SecretArgument>,
    rest: NetworkSpec,
}

impl Wish {
    pub(super) fn spec(&self) -> Result<NetworkSpec, Error> {
        let policy = Policy::new(self.base, self.rules.clone()).map_err(Error::Policy)?;
        Ok(NetworkSpec { policy, ..self.rest.clone() })
    }

    pub(super) fn networks(&self) -> &[NetworkName] {
        &self.rest.networks
    }
}

impl Builder {
    /// What programs may reach where no rule says. Without it, naming what is allowed refuses the rest, and else it is the
    /// internet, without this host's own networks.
    pub fn network(mut self, base: Base) -> Self {
        self.network.base = Some(base);
        self
    }

    /// Adds a rule about what programs may reach. The first that matches decides.
    ///
    #[cfg_attr(not(cellule_guest), doc = "```no_run")]
    #[cfg_attr(cellule_guest, doc = "```")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let sandbox = cellule::Sandbox::builder("base")?
    ///     .rule("allow example.com:443".parse()?)
    ///     .rule("allow *.example.org".parse()?)
    ///     .start()
    ///     .await?;
    /// # sandbox.end().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn rule(mut self, rule: Rule) -> Self {
        self.network.rules.push(rule);
        self
    }

    /// Lets a port of this host lead to one of the guest. Port 0 is any that is free; [`Sandbox::ports`](crate::Sandbox::ports)
    /// tells which.
    pub fn port(mut self, forward: Forward) -> Self {
        self.network.rest.ports.push(forward);
        self
    }

    /// Lets programs reach a port of this host's loopback, as port `guest` of `host.cellule.internal`.
    pub fn expose_host(mut self, port: u16, guest: u16) -> Self {
        self.network.rest.exposed.insert(guest, port);
        self
    }

    /// Puts the sandbox on a [named network](crate::Host::networks): those on it reach one another by their names, whatever else
    /// they may reach.
    pub fn join(mut self, network: NetworkName) -> Self {
        if !self.network.rest.networks.contains(&network) {
            self.network.rest.networks.push(network);
        }
        self
    }

    /// Gives programs a placeholder for this secret, in the variable that is its name. Hosts that are meant to get the secret get
    /// its value, where a program sends the placeholder over TLS, in a header or the query of a request.
    ///
    #[cfg_attr(not(cellule_guest), doc = "```no_run")]
    #[cfg_attr(cellule_guest, doc = "```")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let sandbox = cellule::Sandbox::builder("base")?
    ///     .secret("TOKEN=value:the-real-token@api.example.com".parse()?)
    ///     .start()
    ///     .await?;
    /// let token = sandbox.command("sh").args(["-c", "echo $TOKEN"]).output().await?.stdout;
    /// assert!(token.starts_with(b"cellule-secret-"));
    /// # sandbox.end().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn secret(mut self, secret: SecretArgument) -> Self {
        self.network.secrets.push(secret);
        self
    }

    /// Asks this name server, in place of those that this host asks.
    pub fn name_server(mut self, server: SocketAddr) -> Self {
        self.network.rest.name_servers.push(server);
        self
    }

    /// Looks for short names in this domain, in place of those that this host looks in.
    pub fn search_domain(mut self, domain: impl Into<String>) -> Self {
        self.network.rest.search.push(domain.into());
        self
    }

    /// Whether names in this host's `/etc/hosts` are names for programs too.
    pub fn hosts_file(mut self, used: bool) -> Self {
        self.network.rest.hosts_file = used;
        self
    }

    /// How many bytes a second programs may send, and get.
    pub fn bandwidth(mut self, bytes: u64) -> Self {
        self.network.rest.bandwidth = Some(bytes);
        self
    }

    /// How many connections a second programs may begin.
    pub fn connection_rate(mut self, connections: u64) -> Self {
        self.network.rest.connection_rate = Some(connections);
        self
    }
}
