//! Owns the guest's datagrams: the name server's, and exchanges with the outside, each with a socket of the host's own that is connected
//! to the one place that the guest sent to. So nobody else's datagrams come in, and an answer goes to the port that asked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::dns::{Admission, Gate, Over, RecordType};
use crate::gateway::{Account, Gateway, Place};
use crate::neighbours;
use crate::packet::Packet;
use crate::policy::{Name, Protocol};
use crate::record::{Outcome, REVOKED};
use crate::reply::{self, Unreachable};
use crate::tcp::{DNS_PORT, Key};

/// How long an exchange is kept after its last datagram: longer once there was an answer (RFC 4787 asks for minutes).
pub(crate) const UNANSWERED: Duration = Duration::from_secs(30);
pub(crate) const ANSWERED: Duration = Duration::from_secs(180);
/// The longest datagram.
const DATAGRAM_MAX: usize = 65_535;
/// How long a client may leave a connection to the name server idle.
const DNS_IDLE: Duration = Duration::from_secs(30);
/// Queries over UDP that are answered at a time.
const QUERIES: usize = 256;

/// The exchanges of a guest.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    open: RefCell<HashMap<Key, Rc<Exchange>>>,
    queries: Cell<usize>,
}

#[derive(Debug)]
struct Exchange {
    socket: UdpSocket,
    last: Cell<Instant>,
    sent: Cell<u64>,
    revoked: Notify,
}

impl Exchanges {
    /// Ends what the policy does not allow any more.
    pub(crate) fn review(gateway: &Gateway) {
        for (key, exchange) in gateway.exchanges.open.borrow().iter() {
            if gateway.place(key.remote.ip()) == Place::Outside && !gateway.allows(key.remote, Protocol::Udp)
            {
                exchange.revoked.notify_one();
            }
        }
    }
}

/// Takes a datagram from the guest.
pub(crate) fn take(gateway: &Rc<Gateway>, packet: &Packet<'_>, (from, to): (u16, u16), data: &[u8]) {
    let remote = SocketAddr::new(packet.to, to);
    let key = Key { guest_port: from, remote };
    let known = gateway.exchanges.open.borrow().get(&key).map(Rc::clone);
    if let Some(exchange) = known {
        return exchange.send(gateway, data);
    }
    let place = gateway.place(packet.to);
    match place {
        _ if packet.to.is_multicast() => {}
        Place::Gateway if to == DNS_PORT => query(gateway, key, data),
        Place::Nobody => reply::unreachable(&gateway.outbox, packet, Unreachable::Host),
        Place::Gateway if gateway.forwards.clients.answer(to, from, data) => {}
        Place::Gateway => reply::unreachable(&gateway.outbox, packet, Unreachable::Port),
        Place::Neighbour => neighbours::take_datagram(gateway, packet, key, data),
        Place::Host | Place::Outside => begin(gateway, packet, key, place, data),
    }
}

fn begin(gateway: &Rc<Gateway>, packet: &Packet<'_>, key: Key, place: Place, data: &[u8]) {
    if gateway.exchanges.open.borrow().len() >= gateway.limits.exchanges
        || gateway.rates.connections.allows() == 0
    {
        return;
    }
    let mut account = Account::new(Protocol::Udp, key.remote, key.guest_port);
    let target = if place == Place::Host {
        let Some(service) = gateway.exposed(&mut account) else {
            return reply::unreachable(&gateway.outbox, packet, Unreachable::Port);
        };
        service
    } else if gateway.decide(&mut account).allowed {
        key.remote
    } else {
        reply::unreachable(&gateway.outbox, packet, Unreachable::Prohibited);
        return gateway.record(account, Outcome::Denied, None);
    };
    gateway.rates.connections.spend(1);
    let socket = match gateway.outside.datagrams(target) {
        Ok(socket) => socket,
        Err(error) => {
            reply::unreachable(&gateway.outbox, packet, Unreachable::Network);
            return gateway.record(account, Outcome::Failed, Some(error.to_string()));
        }
    };
    let last = Cell::new(Instant::now());
    let exchange = Rc::new(Exchange { socket, last, sent: Cell::new(0), revoked: Notify::new() });
    exchange.send(gateway, data);
    gateway.exchanges.open.borrow_mut().insert(key, Rc::clone(&exchange));
    // The beginning of the packet, for an error that may come back.
    let first = packet.bytes[..packet.bytes.len().min(128)].to_vec();
    let gateway = Rc::clone(gateway);
    tokio::task::spawn_local(async move { exchange.run(&gateway, key, first, account).await });
}

impl Exchange {
    fn send(&self, gateway: &Gateway, data: &[u8]) {
        if gateway.rates.sent.allows() < data.len() {
            return;
        }
        // A datagram that cannot be sent now is lost, as any may be; an error of the far side is told to the reader too.
        if SockRef::from(&self.socket).send(data).is_ok() {
            gateway.rates.sent.spend(data.len());
            self.sent.set(self.sent.get() + data.len() as u64);
        }
        self.last.set(Instant::now());
    }

    async fn run(&self, gateway: &Gateway, key: Key, first: Vec<u8>, mut account: Account) {
        let (outcome, why) = self.receive(gateway, key, &first, &mut account).await;
        gateway.exchanges.open.borrow_mut().remove(&key);
        account.sent = self.sent.get();
        gateway.record(account, outcome, why);
    }

    async fn receive(
        &self,
        gateway: &Gateway,
        key: Key,
        first: &[u8],
        account: &mut Account,
    ) -> (Outcome, Option<String>) {
        let mut buffer = Vec::new();
        loop {
            let idle = if account.received == 0 { UNANSWERED } else { ANSWERED };
            let until = self.last.get() + idle;
            tokio::select! {
                _ = self.socket.readable() => {}
                () = self.revoked.notified() => {
                    return (Outcome::Reset, Some(REVOKED.to_owned()));
                }
                () = tokio::time::sleep_until(until.into()) => {
                    if self.last.get() + idle <= Instant::now() {
                        return (Outcome::Closed, None);
                    }
                    continue;
                }
            }
            buffer.resize(DATAGRAM_MAX, 0);
            match self.socket.try_recv(&mut buffer) {
                Ok(count) => {
                    account.received += count as u64;
                    self.last.set(Instant::now());
                    if gateway.rates.received.allows() >= count {
                        gateway.rates.received.spend(count);
                        let from = (key.remote.ip(), key.remote.port());
                        reply::datagram(&gateway.outbox, from, key.guest_port, &buffer[..count]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => buffer = Vec::new(),
                Err(error) => {
                    let why = match error.kind() {
                        io::ErrorKind::ConnectionRefused => Unreachable::Port,
                        io::ErrorKind::NetworkUnreachable => Unreachable::Network,
                        _ => Unreachable::Host,
                    };
                    reply::quote(&gateway.outbox, key.remote.ip(), first, why);
                    return (Outcome::Failed, Some(error.to_string()));
                }
            }
        }
    }
}

/// Answers a query that came in a datagram.
fn query(gateway: &Rc<Gateway>, key: Key, data: &[u8]) {
    let queries = &gateway.exchanges.queries;
    if queries.get() >= QUERIES {
        return;
    }
    queries.set(queries.get() + 1);
    let (gateway, data) = (Rc::clone(gateway), data.to_vec());
    tokio::task::spawn_local(async move {
        let answer = gateway.dns.answer(&data, Over::Udp, &*gateway).await;
        let queries = &gateway.exchanges.queries;
        queries.set(queries.get() - 1);
        if let Some(answer) = answer {
            reply::datagram(&gateway.outbox, (key.remote.ip(), key.remote.port()), key.guest_port, &answer);
        }
    });
}

/// Answers the queries that come over a connection, one after the other.
pub(crate) async fn dns_over_tcp(gateway: Rc<Gateway>, mut stream: UnixStream) {
    let mut serve = async || -> io::Result<()> {
        loop {
            let length = timeout(DNS_IDLE, stream.read_u16()).await??;
            let mut query = vec![0; usize::from(length)];
            timeout(DNS_IDLE, stream.read_exact(&mut query)).await??;
            let Some(answer) = gateway.dns.answer(&query, Over::Tcp, &*gateway).await else { return Ok(()) };
            let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
            timeout(DNS_IDLE, stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())).await??;
        }
    };
    // However it ends, the guest sees the end.
    _ = serve().await;
}

impl Gate for Gateway {
    fn admit(&self, name: &str, _kind: RecordType) -> Admission {
        if name == crate::address::HOST_NAME {
            let addresses = [crate::address::HOST_V4.into(), crate::address::HOST_V6.into()];
            return if self.exposed.borrow().is_empty() {
                Admission::Refuse
            } else {
                Admission::Local(addresses.to_vec())
            };
        }
        if let Some(addresses) = self.neighbours.find(name) {
            return Admission::Brief(addresses.to_vec());
        }
        let Ok(name) = Name::from_wire(name.as_bytes()) else { return Admission::Refuse };
        let policy = self.policy.borrow();
        let decision = policy.decide_name(&name, None, None);
        if decision.allowed {
            return Admission::Forward;
        }
        let reason = decision.reason.explain(&policy).to_string();
        let remote = SocketAddr::from((crate::address::GATEWAY_V4, DNS_PORT));
        let account = Account { name: Some(name), reason, ..Account::new(Protocol::Udp, remote, 0) };
        self.record(account, Outcome::Denied, None);
        Admission::Refuse
    }

    fn learned(&self, name: &str, address: IpAddr, ttl: Duration) {
        if let Ok(name) = Name::from_wire(name.as_bytes()) {
            self.names.borrow_mut().learn(name, address, ttl, Instant::now());
        }
    }
}
