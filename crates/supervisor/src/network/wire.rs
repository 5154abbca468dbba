//! A network's settings and answers as messages of the supervisor's service.

use std::net::{IpAddr, SocketAddr};

use cellule_network::policy::{Base, MAX_RULES, Name, Policy, Protocol, Rule};
use cellule_network::{Answer, Forward, ForwardStatus, Whom};
use cellule_protocol::supervisor::v1;

use crate::warm::chain;

pub(crate) fn policy_to_wire(policy: &Policy) -> v1::SetPolicyRequest {
    let rules = policy.rules().iter().map(ToString::to_string).collect();
    v1::SetPolicyRequest { base: policy.base().to_string(), rules }
}

pub(crate) fn policy_from_wire(request: &v1::SetPolicyRequest) -> Result<Policy, String> {
    let base: Base = request.base.parse().map_err(|error| chain(&error))?;
    let parse = |text: &String| text.parse::<Rule>().map_err(|error| format!("{text:?}: {}", chain(&error)));
    let rules = request.rules.iter().take(MAX_RULES + 1).map(parse).collect::<Result<_, _>>()?;
    Policy::new(Some(base), rules).map_err(|error| chain(&error))
}

pub(crate) fn question_to_wire(whom: &Whom, port: u16, protocol: Protocol) -> v1::CheckNetworkRequest {
    let host = match whom {
        Whom::Address(address) => address.to_string(),
        Whom::Name(name) => name.to_string(),
    };
    v1::CheckNetworkRequest { host, port: port.into(), protocol: protocol.to_string() }
}

pub(crate) fn question_from_wire(request: &v1::CheckNetworkRequest) -> Result<(Whom, u16, Protocol), String> {
    let whom = match request.host.parse::<IpAddr>() {
        Ok(address) => Whom::Address(address),
        Err(_) => Whom::Name(request.host.parse::<Name>().map_err(|error| chain(&error))?),
    };
    let port = u16::try_from(request.port).map_err(|_| "there is no such port".to_owned())?;
    Ok((whom, port, protocol(&request.protocol)?))
}

pub(crate) fn answers_to_wire(answers: Vec<Answer>) -> v1::CheckNetworkResponse {
    let answer = |answer: Answer| v1::check_network_response::Answer {
        address: answer.address.map(|address| address.to_string()).unwrap_or_default(),
        allowed: answer.allowed,
        reason: answer.reason,
    };
    v1::CheckNetworkResponse { answers: answers.into_iter().map(answer).collect() }
}

pub(crate) fn answers_from_wire(response: v1::CheckNetworkResponse) -> Vec<Answer> {
    let answer = |answer: v1::check_network_response::Answer| Answer {
        address: answer.address.parse().ok(),
        allowed: answer.allowed,
        reason: answer.reason,
    };
    response.answers.into_iter().map(answer).collect()
}

pub(crate) fn port_to_wire(forward: Forward) -> v1::Port {
    let Forward { host, guest, protocol } = forward;
    v1::Port { host: host.to_string(), guest: guest.into(), protocol: protocol.to_string() }
}

pub(crate) fn port_from_wire(port: &v1::Port) -> Result<Forward, String> {
    let host: SocketAddr =
        port.host.parse().map_err(|_| format!("{:?} is no address and port", port.host))?;
    let guest = u16::try_from(port.guest).map_err(|_| "the guest has no such port".to_owned())?;
    Ok(Forward { host, guest, protocol: protocol(&port.protocol)? })
}

pub(crate) fn ports_to_wire(ports: Vec<ForwardStatus>) -> v1::PortsResponse {
    let port = |status: ForwardStatus| v1::ports_response::Status {
        port: Some(port_to_wire(status.forward)),
        is_up: status.is_up,
    };
    v1::PortsResponse { ports: ports.into_iter().map(port).collect() }
}

pub(crate) fn ports_from_wire(response: &v1::PortsResponse) -> Result<Vec<ForwardStatus>, String> {
    let port = |status: &v1::ports_response::Status| {
        let forward = port_from_wire(status.port.as_ref().ok_or("no port is named")?)?;
        Ok(ForwardStatus { forward, is_up: status.is_up })
    };
    response.ports.iter().map(port).collect()
}

fn protocol(text: &str) -> Result<Protocol, String> {
    text.parse().map_err(|_| format!("{text:?} is no protocol"))
}
