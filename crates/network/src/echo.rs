//! Owns the guest's pings: an echo socket of the host's for each place that is pinged, where the host lets its users have such sockets
//! (`net.ipv4.ping_group_range`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet};
use socket2::{Domain, Protocol as Kind, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use crate::gateway::{Account, Gateway};
use crate::packet::Packet;
use crate::policy::Protocol;
use crate::record::{Outcome, REVOKED};
use crate::reply::{self, Unreachable};

/// How long one is kept after the last request.
const IDLE: Duration = Duration::from_secs(30);
/// How many there may be.
const MOST: usize = 64;
const HEADER: usize = 8;
/// What is waited after an error.
const PAUSE: Duration = Duration::from_millis(10);

/// The pings of a guest, by whom they are for and by the identifier that the guest gave them.
#[derive(Debug, Default)]
pub(crate) struct Echoes {
    open: RefCell<HashMap<(IpAddr, u16), Rc<Echo>>>,
}

#[derive(Debug)]
pub(crate) struct Echo {
    socket: UdpSocket,
    last: Cell<Instant>,
    sent: Cell<u64>,
    revoked: Notify,
}

impl Echoes {
    /// Ends what the policy does not allow any more.
    pub(crate) fn review(gateway: &Gateway) {
        for ((address, _), echo) in gateway.echoes.open.borrow().iter() {
            if !gateway.allows((*address, 0).into(), Protocol::Icmp) {
                echo.revoked.notify_one();
            }
        }
    }
}

/// Takes a request for an echo.
pub(crate) fn take(gateway: &Rc<Gateway>, packet: &Packet<'_>, (ident, sequence): (u16, u16), data: &[u8]) {
    if packet.to.is_multicast() {
        return;
    }
    let key = (packet.to, ident);
    let known = gateway.echoes.open.borrow().get(&key).map(Rc::clone);
    let echo = match known {
        Some(echo) => echo,
        None => match begin(gateway, packet, key) {
            Some(echo) => echo,
            None => return,
        },
    };
    echo.last.set(Instant::now());
    let request = request(packet.to, sequence, data);
    // It is lost if it cannot be sent, as any may be.
    if let Ok(count) = SockRef::from(&echo.socket).send(&request) {
        echo.sent.set(echo.sent.get() + count as u64);
    }
}

fn begin(gateway: &Rc<Gateway>, packet: &Packet<'_>, key: (IpAddr, u16)) -> Option<Rc<Echo>> {
    if gateway.echoes.open.borrow().len() >= MOST || gateway.rates.connections.allows() == 0 {
        return None;
    }
    let remote = (key.0, 0).into();
    let mut account = Account::new(Protocol::Icmp, remote, key.1);
    if !gateway.decide(&mut account).allowed {
        reply::unreachable(&gateway.outbox, packet, Unreachable::Prohibited);
        gateway.record(account, Outcome::Denied, None);
        return None;
    }
    gateway.rates.connections.spend(1);
    let socket = match open(key.0) {
        Ok(socket) => socket,
        Err(error) => {
            let why = if error.kind() == io::ErrorKind::PermissionDenied {
                "the host lets its users send no pings (net.ipv4.ping_group_range)".to_owned()
            } else {
                error.to_string()
            };
            reply::unreachable(&gateway.outbox, packet, Unreachable::Network);
            gateway.record(account, Outcome::Failed, Some(why));
            return None;
        }
    };
    Some(keep(gateway, key, socket, account))
}

/// Passes answers on until the guest asks no more.
pub(crate) fn keep(
    gateway: &Rc<Gateway>,
    key: (IpAddr, u16),
    socket: UdpSocket,
    account: Account,
) -> Rc<Echo> {
    let last = Cell::new(Instant::now());
    let echo = Rc::new(Echo { socket, last, sent: Cell::new(0), revoked: Notify::new() });
    gateway.echoes.open.borrow_mut().insert(key, Rc::clone(&echo));
    let (gateway, kept) = (Rc::clone(gateway), Rc::clone(&echo));
    tokio::task::spawn_local(async move {
        let mut account = account;
        let (outcome, why) = tokio::select! {
            () = kept.answers(&gateway, key, &mut account) => (Outcome::Closed, None),
            () = kept.revoked.notified() => (Outcome::Reset, Some(REVOKED.to_owned())),
        };
        gateway.echoes.open.borrow_mut().remove(&key);
        account.sent = kept.sent.get();
        gateway.record(account, outcome, why);
    });
    echo
}

fn open(to: IpAddr) -> io::Result<UdpSocket> {
    let (domain, kind) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Kind::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Kind::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(kind))?;
    socket.set_nonblocking(true)?;
    socket.connect(&std::net::SocketAddr::new(to, 0).into())?;
    // For sending and receiving, a socket for datagrams is one like the other.
    UdpSocket::from_std(socket.into())
}

/// The message; the kernel fills in the identifier and the checksum.
fn request(to: IpAddr, sequence: u16, data: &[u8]) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0, 0, 0];
    message.extend(sequence.to_be_bytes());
    message.extend(data);
    message
}

impl Echo {
    async fn answers(&self, gateway: &Gateway, (from, ident): (IpAddr, u16), account: &mut Account) {
        let mut buffer = vec![0; 65_535];
        loop {
            let until = self.last.get() + IDLE;
            let read = tokio::select! {
                read = self.socket.recv(&mut buffer) => read,
                () = tokio::time::sleep_until(until.into()) => {
                    if self.last.get() + IDLE <= Instant::now() {
                        return;
                    }
                    continue;
                }
            };
            match read {
                Ok(count) if count >= HEADER => {
                    account.received += count as u64;
                    answer(gateway, from, ident, &buffer[..count]);
                }
                Ok(_) => {}
                // An error of the far side is no answer, and the guest's own patience tells it so.
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

fn answer(gateway: &Gateway, from: IpAddr, ident: u16, message: &[u8]) {
    let is_reply = message.first() == Some(if from.is_ipv4() { &0 } else { &129 });
    if !is_reply {
        return;
    }
    let (sequence, data) = match from {
        IpAddr::V4(_) => match Icmpv4Packet::new_checked(message) {
            Ok(icmp) => (icmp.echo_seq_no(), icmp.data()),
            Err(_) => return,
        },
        IpAddr::V6(_) => match Icmpv6Packet::new_checked(message) {
            Ok(icmp) => (icmp.echo_seq_no(), &message[HEADER..]),
            Err(_) => return,
        },
    };
    reply::echo(&gateway.outbox, from, (ident, sequence), data);
}
