//! Owns datagrams between neighbours: each exchange is a stream between their gateways, with a length before each datagram.
//!
//! An exchange has the ports of both guests, on both sides. So answers find the way back, and where both guests begin at once, each side
//! sends over the exchange that it began and gets over the other.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::arrive::Place;
use super::header::Answer;
use crate::gateway::{Account, Gateway};
use crate::packet::Packet;
use crate::policy::Protocol;
use crate::record::{Direction, Outcome};
use crate::reply::{self, Unreachable};
use crate::tcp::{CONNECT, Key};
use crate::udp::{ANSWERED, UNANSWERED};

/// How much may wait for a neighbour to take it; what is more is lost. A longest datagram fits.
const WAITING: usize = 128 << 10;

/// The exchanges of a guest with its neighbours.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    open: RefCell<HashMap<Key, Rc<Exchange>>>,
    count: Cell<usize>,
}

#[derive(Debug)]
struct Exchange {
    /// Datagrams from the guest, as they go over the stream.
    waiting: RefCell<Vec<u8>>,
    filled: Notify,
    last: Cell<Instant>,
    sent: Cell<u64>,
    received: Cell<u64>,
}

/// Takes a datagram from the guest.
pub(crate) fn take(gateway: &Rc<Gateway>, packet: &Packet<'_>, key: Key, data: &[u8]) {
    let known = gateway.neighbours.exchanges.open.borrow().get(&key).map(Rc::clone);
    if let Some(exchange) = known {
        return exchange.send(gateway, data);
    }
    let mut account = Account::new(Protocol::Udp, key.remote, key.guest_port);
    if gateway.rates.connections.allows() == 0 {
        return;
    }
    let Some(open) = Open::new(gateway, key) else { return };
    gateway.rates.connections.spend(1);
    open.exchange.send(gateway, data);
    // The beginning of the packet, for an error that may come back.
    let first = packet.bytes[..packet.bytes.len().min(128)].to_vec();
    let gateway = Rc::clone(gateway);
    tokio::task::spawn_local(async move {
        let asked = timeout(CONNECT, super::ask(&gateway, &mut account)).await;
        match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => open.run(stream, account).await,
            Err(error) => {
                reply::quote(&gateway.outbox, key.remote.ip(), &first, Unreachable::Host);
                gateway.record(account, Outcome::Failed, Some(error.to_string()));
            }
        }
    });
}

/// Takes an exchange that a neighbour begins.
pub(super) async fn arrive(place: Place, mut stream: UnixStream, account: Account) {
    let key = Key { guest_port: account.guest_port, remote: account.remote };
    let open = Open::new(place.gateway(), key);
    let answer = if open.is_some() { Answer::Open } else { Answer::Unreachable };
    if answer.write(&mut stream).await.is_err() {
        return;
    }
    drop(place);
    if let Some(open) = open {
        open.run(stream, account).await;
    }
}

/// An exchange and its place, which is given back at the end.
#[derive(Debug)]
struct Open {
    gateway: Rc<Gateway>,
    key: Key,
    exchange: Rc<Exchange>,
}

impl Open {
    fn new(gateway: &Rc<Gateway>, key: Key) -> Option<Self> {
        let exchanges = &gateway.neighbours.exchanges;
        if exchanges.count.get() >= gateway.limits.exchanges {
            return None;
        }
        exchanges.count.set(exchanges.count.get() + 1);
        let exchange = Rc::new(Exchange {
            waiting: RefCell::default(),
            filled: Notify::new(),
            last: Cell::new(Instant::now()),
            sent: Cell::new(0),
            received: Cell::new(0),
        });
        // Where there is one already, the guest's go over that.
        exchanges.open.borrow_mut().entry(key).or_insert_with(|| Rc::clone(&exchange));
        Some(Self { gateway: Rc::clone(gateway), key, exchange })
    }

    async fn run(self, mut stream: UnixStream, mut account: Account) {
        let (gateway, exchange) = (&self.gateway, &self.exchange);
        let is_visit = account.direction == Direction::In;
        let (from, to) = stream.split();
        let ended = tokio::select! {
            ended = self.receive(from, is_visit) => ended,
            ended = exchange.pass_on(to) => ended,
            () = exchange.idle() => Ok(()),
        };
        account.sent = exchange.sent.get();
        account.received = exchange.received.get();
        match ended {
            Ok(()) => gateway.record(account, Outcome::Closed, None),
            Err(error) => gateway.record(account, Outcome::Reset, Some(error.to_string())),
        }
    }

    /// Gives the guest what comes, until the other side ends it.
    async fn receive(&self, mut from: ReadHalf<'_>, is_visit: bool) -> io::Result<()> {
        let Self { gateway, key, exchange } = self;
        let rate = &gateway.rates.received;
        loop {
            let length = match from.read_u16().await {
                Ok(length) => usize::from(length),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut data = vec![0; length];
            from.read_exact(&mut data).await?;
            exchange.received.set(exchange.received.get() + length as u64);
            exchange.last.set(Instant::now());
            if rate.allows() < length {
                continue;
            }
            rate.spend(length);
            if is_visit {
                drop(gateway.visit());
            }
            reply::datagram(&gateway.outbox, (key.remote.ip(), key.remote.port()), key.guest_port, &data);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let exchanges = &self.gateway.neighbours.exchanges;
        exchanges.count.set(exchanges.count.get() - 1);
        let mut open = exchanges.open.borrow_mut();
        if open.get(&self.key).is_some_and(|exchange| Rc::ptr_eq(exchange, &self.exchange)) {
            open.remove(&self.key);
        }
    }
}

impl Exchange {
    /// Takes a datagram from the guest; one that there is no room for is lost, as any may be.
    fn send(&self, gateway: &Gateway, data: &[u8]) {
        let rate = &gateway.rates.sent;
        let mut waiting = self.waiting.borrow_mut();
        let Ok(length) = u16::try_from(data.len()) else { return };
        if waiting.len() + 2 + data.len() > WAITING || rate.allows() < data.len() {
            return;
        }
        rate.spend(data.len());
        waiting.extend(length.to_be_bytes());
        waiting.extend(data);
        self.filled.notify_one();
        self.sent.set(self.sent.get() + data.len() as u64);
        self.last.set(Instant::now());
    }

    async fn pass_on(&self, mut to: WriteHalf<'_>) -> io::Result<()> {
        loop {
            let waiting = self.waiting.take();
            if waiting.is_empty() {
                self.filled.notified().await;
            }
            to.write_all(&waiting).await?;
        }
    }

    /// Waits until nothing was said for long.
    async fn idle(&self) {
        loop {
            let is_answered = self.sent.get() > 0 && self.received.get() > 0;
            let until = self.last.get() + if is_answered { ANSWERED } else { UNANSWERED };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}
