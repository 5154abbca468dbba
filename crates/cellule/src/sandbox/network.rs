//! What is asked of a running sandbox's network.

use std::net::SocketAddr;

use cellule_network::policy::{Policy, Protocol};
use cellule_network::{Answer, Forward, ForwardStatus, Whom};

use cellule_supervisor::Entry;

use super::Sandbox;
use crate::{Error, Host};

impl Host {
    /// Changes what the programs of a sandbox that does not run may reach when it is started again.
    ///
    /// # Errors
    /// It runs, or is gone.
    pub fn set_policy(&self, entry: &Entry, policy: &Policy) -> Result<(), Error> {
        let dir = self.sandboxes()?.lock(&entry.spec.id)?;
        let mut spec = dir.spec()?;
        spec.network.policy = policy.clone();
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
