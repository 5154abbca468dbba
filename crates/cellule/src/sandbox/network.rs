//! What is asked of a running sandbox's network.

use std::net::SocketAddr;

use cellule_network::policy::{Policy, Protocol};
use cellule_network::{Answer, Forward, ForwardStatus, Whom};

use cellule_supervisor::{Entry, NetworkSpec};

use super::Sandbox;
use crate::{Error, Host};

impl Host {
    /// Changes what the programs of a sandbox that does not run may reach when it is started again.
    ///
    /// # Errors
    /// It runs, or is gone.
    pub fn set_policy(&self, entry: &Entry, policy: &Policy) -> Result<(), Error> {
        self.change_network(entry, |network| {
            network.policy = policy.clone();
            Ok(())
        })
    }

    /// Has a port of this host lead into a sandbox that does not run, when it is started again.
    ///
    /// # Errors
    /// The port leads into it already; it runs, or is gone.
    pub fn add_port(&self, entry: &Entry, forward: Forward) -> Result<(), Error> {
        self.change_network(entry, |network| {
            let is_same = |other: &Forward| other.host == forward.host && other.protocol == forward.protocol;
            if forward.host.port() != 0 && network.ports.iter().any(is_same) {
                let (value, why) = (forward.host.to_string(), "it leads into the sandbox already");
                return Err(Error::Option { option: "port", value, why });
            }
            network.ports.push(forward);
            Ok(())
        })
    }

    /// Has a port of this host not lead any more into a sandbox that does not run.
    ///
    /// # Errors
    /// It does not; the sandbox runs, or is gone.
    pub fn remove_port(&self, entry: &Entry, host: SocketAddr, protocol: Protocol) -> Result<(), Error> {
        self.change_network(entry, |network| {
            let before = network.ports.len();
            network.ports.retain(|forward| forward.host != host || forward.protocol != protocol);
            if network.ports.len() < before {
                return Ok(());
            }
            let (value, why) = (host.to_string(), "it does not lead into the sandbox");
            Err(Error::Option { option: "port", value, why })
        })
    }

    fn change_network(
        &self,
        entry: &Entry,
        change: impl FnOnce(&mut NetworkSpec) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let dir = self.sandboxes()?.lock(&entry.spec.id)?;
        let mut spec = dir.spec()?;
        change(&mut spec.network)?;
        Ok(dir.update_spec(&spec)?)
    }
}

impl Sandbox {
    /// Changes what its programs may reach, now and when it is started again. Connections that are not allowed any more are
    /// reset.
    ///
    /// # Errors
    /// The sandbox does not run.
    pub async fn set_policy(&mut self, policy: &Policy) -> Result<(), Error> {
        Ok(self.link.set_policy(policy).await?)
    }

    /// What would become of a connection, by the code that decides on connections: an answer for each address.
    ///
    /// # Errors
    /// The sandbox does not run.
    pub async fn check_network(
        &mut self,
        whom: &Whom,
        port: u16,
        protocol: Protocol,
    ) -> Result<Vec<Answer>, Error> {
        Ok(self.link.check_network(whom, port, protocol).await?)
    }

    /// The ports of this host that lead into it, and whether the guest's ports answer now.
    ///
    /// # Errors
    /// The sandbox does not run.
    pub async fn ports(&mut self) -> Result<Vec<ForwardStatus>, Error> {
        Ok(self.link.ports().await?)
    }

    /// Lets a port of this host lead into it, now and when it is started again. The result has the port that was chosen.
    ///
    /// # Errors
    /// The port is taken, or the sandbox does not run.
    pub async fn add_port(&mut self, forward: Forward) -> Result<Forward, Error> {
        Ok(self.link.add_port(forward).await?)
    }

    /// Takes away a port of this host that leads into it. Connections that are open go on.
    ///
    /// # Errors
    /// There is none, or the sandbox does not run.
    pub async fn remove_port(&mut self, host: SocketAddr, protocol: Protocol) -> Result<(), Error> {
        Ok(self.link.remove_port(host, protocol).await?)
    }
}
