//! Owns the question beforehand: what would become of a connection, by the code that decides on connections.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr;

use crate::address::HOST_NAME;
use crate::dns::{Admission, Gate, Over, RecordType};
use crate::gateway::{Gateway, Place, destination};
use crate::policy::{Name, Protocol};
use crate::record::OWN_NETWORK;
use crate::tcp::DNS_PORT;

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Who is at an address.
    Address(IpAddr),
    /// Who has a name.
    Name(Name),
}

/// What the policy says of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The address; none if the name itself is refused, or nobody's.
    pub address: Option<IpAddr>,
    /// Whether a connection would be allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
}

/// What would become of a connection.
pub(crate) async fn check(gateway: Rc<Gateway>, whom: Whom, port: u16, protocol: Protocol) -> Vec<Answer> {
    let name = match whom {
        Whom::Address(address) => {
            let names = gateway.names.borrow().of(address, std::time::Instant::now());
            return vec![of_address(&gateway, SocketAddr::new(address, port), protocol, &names)];
        }
        Whom::Name(name) if name.as_str() == HOST_NAME => {
            return vec![of_host(&gateway, None, port)];
        }
        Whom::Name(name) => name,
    };
    if let Some(addresses) = gateway.neighbours.find(name.as_str()) {
        let of = |address| of_address(&gateway, SocketAddr::new(address, port), protocol, &[]);
        return addresses.map(of).to_vec();
    }
    let lookup = {
        let policy = gateway.policy.borrow();
        let decision = policy.decide_name(&name, None, None);
        if decision.allowed { Ok(()) } else { Err(decision.reason.explain(&policy).to_string()) }
    };
    if let Err(why) = lookup {
        return vec![Answer {
            address: None,
            allowed: false,
            reason: format!("the name is not looked up: {why}"),
        }];
    }
    let found = Found::default();
    let mut failed = false;
    for kind in [RecordType::A, RecordType::AAAA] {
        if let Some(query) = query(&name, kind) {
            let answer = gateway.dns.answer(&query, Over::Tcp, &found).await;
            failed |= answer
                .and_then(|answer| Message::from_vec(&answer).ok())
                .is_none_or(|answer| answer.metadata.response_code == ResponseCode::ServFail);
        }
    }
    let found = found.0.into_inner();
    if found.is_empty() {
        let reason = if failed {
            "the name servers do not answer, or not what can be used"
        } else {
            "the name servers give no address for it"
        };
        return vec![Answer { address: None, allowed: false, reason: reason.to_owned() }];
    }
    let of =
        |address| of_address(&gateway, SocketAddr::new(address, port), protocol, std::slice::from_ref(&name));
    found.into_iter().map(of).collect()
}

fn of_address(gateway: &Gateway, to: SocketAddr, protocol: Protocol, names: &[Name]) -> Answer {
    let address = Some(to.ip());
    match gateway.place(to.ip()) {
        Place::Outside => {}
        Place::Gateway if to.port() == DNS_PORT && protocol != Protocol::Icmp => {
            let reason = "it is the sandbox's name server".to_owned();
            return Answer { address, allowed: true, reason };
        }
        Place::Host if protocol != Protocol::Icmp => return of_host(gateway, address, to.port()),
        Place::Neighbour => {
            let reason = gateway.neighbours.reason(to.ip());
            let nobody = || "nobody on the sandbox's networks is there".to_owned();
            return Answer { address, allowed: reason.is_some(), reason: reason.unwrap_or_else(nobody) };
        }
        Place::Host | Place::Gateway | Place::Nobody => {
            return Answer { address, allowed: false, reason: OWN_NETWORK.to_owned() };
        }
    }
    let policy = gateway.policy.borrow();
    let decision = policy.decide(&destination(to, protocol, names));
    Answer { address, allowed: decision.allowed, reason: decision.reason.explain(&policy).to_string() }
}

fn of_host(gateway: &Gateway, address: Option<IpAddr>, port: u16) -> Answer {
    let allowed = gateway.exposed.borrow().contains_key(&port);
    let reason =
        if allowed { "the host's port is exposed" } else { "no port of the host is exposed as this" };
    Answer { address, allowed, reason: reason.to_owned() }
}

fn query(name: &Name, kind: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(rr::Name::from_ascii(name.as_str()).ok()?, kind));
    message.to_vec().ok()
}

/// Addresses that a look-up gave, which the guest does not learn of.
#[derive(Debug, Default)]
struct Found(RefCell<Vec<IpAddr>>);

impl Gate for Found {
    fn admit(&self, _name: &str, _kind: RecordType) -> Admission {
        Admission::Forward
    }

    fn learned(&self, _name: &str, address: IpAddr, _ttl: Duration) {
        let mut found = self.0.borrow_mut();
        if !found.contains(&address) {
            found.push(address);
        }
    }
}
