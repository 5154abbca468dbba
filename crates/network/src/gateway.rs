//! Owns what all connections of one guest share, and gives each of the guest's packets to what it is for.
//!
//! ```text
//!            ┌ ARP, neighbours: the gateway is everywhere
//!   frame ──▶│ TCP ──▶ connection there is ──▶ its stack (relay)
//!            │         SYN ──▶ policy ──▶ host's connect ──▶ a new stack        refused: "prohibited", at once
//!            │ UDP ──▶ name server (dns) │ policy ──▶ a socket of the host's (udp)
//!            └ echo ──▶ policy ──▶ a socket of the host's (echo)
//!   what is for a neighbour's address goes to the neighbour's gateway, whatever the policy says (neighbours)
//! ```
//! All of it runs on one thread, in tasks that share it through `Rc`; nothing is borrowed while a task waits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::address::{
    GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, HOST_NAME, HOST_V4, HOST_V6, PREFIX_V4, PREFIX_V6,
};
use crate::dns::Dns;
use crate::echo::Echoes;
use crate::forward::Forwards;
use crate::names::Names;
use crate::neighbours::Neighbours;
use crate::outbox::Outbox;
use crate::outside::{self, Outside};
use crate::packet::{self, Frame, Packet, Payload};
use crate::policy::{Decision, Destination, Name, Policy, Protocol, embedded_v4};
use crate::rate::Rate;
use crate::record::{Direction, Outcome, Record, Sink};
use crate::reply::{self, Unreachable};
use crate::secrets::Secrets;
use crate::share::Shares;
use crate::tcp::Connections;
use crate::udp::Exchanges;
use crate::visit::{Visit, Visits};
use crate::{Figures, Limits, tcp, udp};

/// One guest's network.
pub(crate) struct Gateway {
    pub(crate) outbox: Outbox,
    pub(crate) outside: Outside,
    pub(crate) policy: RefCell<Policy>,
    pub(crate) names: RefCell<Names>,
    pub(crate) dns: Dns,
    /// Ports of the address that stands for the host, and which port of its loopback each is.
    pub(crate) exposed: RefCell<HashMap<u16, u16>>,
    pub(crate) connections: Connections,
    pub(crate) exchanges: Exchanges,
    pub(crate) echoes: Echoes,
    pub(crate) forwards: Forwards,
    pub(crate) neighbours: Neighbours,
    pub(crate) limits: Limits,
    pub(crate) rates: Rates,
    pub(crate) shares: Shares,
    pub(crate) visits: RefCell<Option<Visits>>,
    /// What is put in for some hosts.
    pub(crate) secrets: Option<Rc<Secrets>>,
    sink: Sink,
    dropped: Cell<u64>,
    seed: Cell<u64>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("figures", &self.figures()).finish_non_exhaustive()
    }
}

/// How fast a guest may be.
#[derive(Debug)]
pub(crate) struct Rates {
    /// Bytes of data from the guest.
    pub(crate) sent: Rate,
    /// Bytes of data to the guest.
    pub(crate) received: Rate,
    /// New connections and exchanges.
    pub(crate) connections: Rate,
}

impl Rates {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            sent: Rate::of_bytes(limits.bandwidth),
            received: Rate::of_bytes(limits.bandwidth),
            connections: Rate::of_connections(limits.connection_rate),
        }
    }
}

/// What a connection is told as, once it has ended.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) direction: Direction,
    pub(crate) protocol: Protocol,
    pub(crate) remote: SocketAddr,
    pub(crate) guest_port: u16,
    pub(crate) name: Option<Name>,
    /// Which rule allowed it.
    pub(crate) reason: String,
    pub(crate) began: Instant,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// A place that one of the guest's packets goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The gateway itself.
    Gateway,
    /// What stands for the host.
    Host,
    /// The guest's network has nobody there.
    Nobody,
    /// Where neighbours are. Whether one is there is another matter.
    Neighbour,
    /// Elsewhere.
    Outside,
}

impl Gateway {
    pub(crate) fn new(
        outbox: Outbox,
        policy: Policy,
        dns: Dns,
        limits: Limits,
        sink: Sink,
        seed: u64,
    ) -> Self {
        Self {
            outbox,
            outside: Outside::default(),
            policy: RefCell::new(policy),
            names: RefCell::default(),
            dns,
            exposed: RefCell::default(),
            connections: Connections::default(),
            exchanges: Exchanges::default(),
            echoes: Echoes::default(),
            forwards: Forwards::default(),
            neighbours: Neighbours::default(),
            rates: Rates::new(&limits),
            shares: Shares::new(&limits),
            limits,
            visits: RefCell::new(None),
            secrets: None,
            sink,
            dropped: Cell::new(0),
            seed: Cell::new(seed),
        }
    }

    /// Takes a frame from the guest.
    pub(crate) fn take(self: &Rc<Self>, frame: &[u8]) {
        // Whatever a guest finds that makes this panic costs it one connection at most, and nobody else anything.
        let taken = catch_unwind(AssertUnwindSafe(|| self.dispatch(frame)));
        if taken.is_err() {
            self.dropped.set(self.dropped.get() + 1);
            tracing::error!(length = frame.len(), "a frame made the gateway panic; it was dropped");
        }
    }

    pub(crate) fn dispatch(self: &Rc<Self>, frame: &[u8]) {
        let Ok(parsed) = packet::parse(frame) else {
            return self.dropped.set(self.dropped.get() + 1);
        };
        if let Some(mac) = packet::sender(frame) {
            self.outbox.set_guest(mac);
        }
        match parsed {
            Frame::WhoHas4 { address, asks, mac } => {
                if in_network(address.into()) && address != GUEST_V4 && (asks == GUEST_V4) {
                    reply::is_at(&self.outbox, address, asks, mac);
                }
            }
            Frame::WhoHas6 { address } => {
                if in_network(address.into()) && address != GUEST_V6 {
                    reply::is_at_v6(&self.outbox, address);
                }
            }
            Frame::Packet(packet) => self.packet(&packet),
        }
    }

    fn packet(self: &Rc<Self>, packet: &Packet<'_>) {
        match &packet.payload {
            Payload::Tcp(segment) => tcp::take(self, packet, segment),
            Payload::Udp { from, to, data } => udp::take(self, packet, (*from, *to), data),
            Payload::Echo { ident, sequence, data } => match self.place(packet.to) {
                Place::Gateway | Place::Host => {
                    reply::echo(&self.outbox, packet.to, (*ident, *sequence), data);
                }
                Place::Neighbour if self.neighbours.answers(packet.to) => {
                    reply::echo(&self.outbox, packet.to, (*ident, *sequence), data);
                }
                Place::Nobody | Place::Neighbour => {
                    reply::unreachable(&self.outbox, packet, Unreachable::Host);
                }
                Place::Outside => crate::echo::take(self, packet, (*ident, *sequence), data),
            },
            Payload::Other if packet.to.is_multicast() => {}
            Payload::Other => reply::unreachable(&self.outbox, packet, Unreachable::Protocol),
        }
    }

    /// What is at an address, as far as the guest sees it.
    pub(crate) fn place(&self, address: IpAddr) -> Place {
        match address {
            IpAddr::V4(GATEWAY_V4) | IpAddr::V6(GATEWAY_V6) => Place::Gateway,
            IpAddr::V4(HOST_V4) | IpAddr::V6(HOST_V6) => Place::Host,
            address if in_network(address) => Place::Nobody,
            address if self.neighbours.has(address) => Place::Neighbour,
            // The same in another form is nobody's.
            IpAddr::V6(address)
                if address.to_ipv4_mapped().is_some_and(|v4| self.place(v4.into()) != Place::Outside) =>
            {
                Place::Nobody
            }
            _ => Place::Outside,
        }
    }

    /// Whether the guest may reach what an account is of; the account gets the name that it is known by, and why.
    pub(crate) fn decide(&self, account: &mut Account) -> Decision {
        let mut names = self.names.borrow().of(account.remote.ip(), Instant::now());
        let policy = self.policy.borrow();
        let decision = policy.decide(&destination(account.remote, account.protocol, &names));
        account.reason = decision.reason.explain(&policy).to_string();
        account.name = names.drain(..).next();
        decision
    }

    /// Whether the guest may still reach `to`.
    pub(crate) fn allows(&self, to: SocketAddr, protocol: Protocol) -> bool {
        let names = self.names.borrow().of(to.ip(), Instant::now());
        self.policy.borrow().decide(&destination(to, protocol, &names)).allowed
    }

    /// Where on the host's loopback an account of what stands for the host leads, if that is exposed; the account is told so.
    pub(crate) fn exposed(&self, account: &mut Account) -> Option<SocketAddr> {
        let port = *self.exposed.borrow().get(&account.remote.port())?;
        account.name = HOST_NAME.parse().ok();
        account.reason = format!("port {port} of the host is exposed");
        Some((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Whether a connection to `to` may be for the name that it shows; if not, why.
    pub(crate) fn judge(&self, to: SocketAddr, shown: &Name) -> Result<(), String> {
        if self.place(to.ip()) == Place::Host {
            // What is exposed is, by whatever name.
            return Ok(());
        }
        let policy = self.policy.borrow();
        let decision = policy.decide_shown(&destination(to, Protocol::Tcp, &[]), shown);
        if decision.allowed { Ok(()) } else { Err(decision.reason.explain(&policy).to_string()) }
    }

    /// Whether a connection to `to` must show a name, as things are now.
    pub(crate) fn wants_name(&self, to: SocketAddr) -> bool {
        let names = self.names.borrow().of(to.ip(), Instant::now());
        let decision = self.policy.borrow().decide(&destination(to, Protocol::Tcp, &names));
        !decision.allowed || decision.by_name
    }

    /// Tells that somebody came in, until the result is dropped.
    pub(crate) fn visit(&self) -> Option<Visit> {
        self.visits.borrow().as_ref().map(|visits| visits())
    }

    /// What there is at present.
    pub(crate) fn figures(&self) -> Figures {
        Figures {
            connections: self.connections.count(),
            dropped_from_guest: self.dropped.get(),
            dropped_to_guest: self.outbox.dropped(),
        }
    }

    /// A seed that nobody else has, for sequence numbers that a guest cannot guess from others.
    pub(crate) fn seed(&self) -> u64 {
        // SplitMix64: each step of the counter gives another number.
        let next = self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.seed.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Tells what became of a connection.
    pub(crate) fn record(&self, account: Account, outcome: Outcome, why: Option<String>) {
        let time_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        (self.sink)(Record {
            time_ns: i64::try_from(time_ns).unwrap_or(i64::MAX),
            direction: account.direction,
            protocol: account.protocol,
            remote: account.remote,
            guest_port: account.guest_port,
            name: account.name.map(|name| name.to_string()),
            outcome,
            reason: why.unwrap_or(account.reason),
            sent: account.sent,
            received: account.received,
            took_us: u64::try_from(account.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
    }
}

impl Account {
    pub(crate) fn new(protocol: Protocol, remote: SocketAddr, guest_port: u16) -> Self {
        Self {
            direction: Direction::Out,
            protocol,
            remote,
            guest_port,
            name: None,
            reason: String::new(),
            began: Instant::now(),
            sent: 0,
            received: 0,
        }
    }
}

pub(crate) fn destination(to: SocketAddr, protocol: Protocol, names: &[Name]) -> Destination<'_> {
    let (address, port) = (to.ip(), to.port());
    let embedded = embedded_v4(address).map(IpAddr::from);
    let is_hosts_own = outside::is_own(address) || embedded.is_some_and(outside::is_own);
    Destination { address, port, protocol, names, is_hosts_own }
}

/// Whether an address is in the network that guest and gateway are in.
fn in_network(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => (address.to_bits() ^ GUEST_V4.to_bits()) >> (32 - PREFIX_V4) == 0,
        IpAddr::V6(address) => (address.to_bits() ^ GUEST_V6.to_bits()) >> (128 - PREFIX_V6) == 0,
    }
}
