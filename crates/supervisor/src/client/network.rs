//! What is asked of a running sandbox's network.

use std::net::SocketAddr;

use cellule_network::policy::{Policy, Protocol};
use cellule_network::{Answer, Forward, ForwardStatus, Whom};
use cellule_protocol::supervisor::v1;

use super::{Sandbox, SandboxError};
use crate::network::wire;
use crate::secrets::SecretValues;

impl Sandbox {
    /// Says the values of its secrets, for which its start waits. Only who started it can.
    ///
    /// # Errors
    /// The sandbox refuses, or is gone.
    pub async fn give_secrets(&mut self, values: SecretValues) -> Result<(), SandboxError> {
        let request = v1::GiveSecretsRequest { values: Some(values.into()) };
        let answer = self.supervisor.give_secrets(request).await;
        self.answered(answer).await.map(drop)
    }

    /// What copies of it are to be given.
    ///
    /// # Errors
    /// The sandbox is gone.
    pub async fn secrets(&mut self) -> Result<SecretValues, SandboxError> {
        let answer = self.supervisor.take_secrets(v1::TakeSecretsRequest {}).await;
        let values = self.answered(answer).await?.values.unwrap_or_default();
        SecretValues::try_from(values).map_err(|error| SandboxError::Refused { message: error.to_string() })
    }

    /// Changes what the sandbox may reach, now and when it is started again.
    ///
    /// # Errors
    /// The sandbox refuses, or is gone.
    pub async fn set_policy(&mut self, policy: &Policy) -> Result<(), SandboxError> {
        let answer = self.supervisor.set_policy(wire::policy_to_wire(policy)).await;
        self.changed(answer).await.map(drop)
    }

    /// What would become of a connection: an answer for each address.
    ///
    /// # Errors
    /// The sandbox does not run, or is gone.
    pub async fn check_network(
        &mut self,
        whom: &Whom,
        port: u16,
        protocol: Protocol,
    ) -> Result<Vec<Answer>, SandboxError> {
        let answer = self.supervisor.check_network(wire::question_to_wire(whom, port, protocol)).await;
        Ok(wire::answers_from_wire(self.changed(answer).await?))
    }

    /// The ports of the host that lead in, and whether the guest's answer.
    ///
    /// # Errors
    /// The sandbox does not run, or is gone.
    pub async fn ports(&mut self) -> Result<Vec<ForwardStatus>, SandboxError> {
        let answer = self.supervisor.ports(v1::PortsRequest {}).await;
        let ports = self.changed(answer).await?;
        wire::ports_from_wire(&ports).map_err(|message| SandboxError::Refused { message })
    }

    /// Lets a port of the host lead in, now and when the sandbox is started again. Gives it with the port that was chosen.
    ///
    /// # Errors
    /// The port is taken; the sandbox refuses, or is gone.
    pub async fn add_port(&mut self, forward: Forward) -> Result<Forward, SandboxError> {
        let request = v1::AddPortRequest { port: Some(wire::port_to_wire(forward)) };
        let answer = self.supervisor.add_port(request).await;
        let added = self.changed(answer).await?.port.unwrap_or_default();
        wire::port_from_wire(&added).map_err(|message| SandboxError::Refused { message })
    }

    /// Takes away a port of the host that leads in.
    ///
    /// # Errors
    /// There is none; the sandbox refuses, or is gone.
    pub async fn remove_port(&mut self, host: SocketAddr, protocol: Protocol) -> Result<(), SandboxError> {
        let port = wire::port_to_wire(Forward { host, guest: 0, protocol });
        let answer = self.supervisor.remove_port(v1::RemovePortRequest { port: Some(port) }).await;
        self.changed(answer).await.map(drop)
    }
}
