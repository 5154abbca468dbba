//! Owns the guest's TCP connections: which there are, and how one begins.
//!
//! ```text
//!             policy refuses: "prohibited"     the other side refuses: reset      no way there: "unreachable"
//!                     ▲                              ▲                                 ▲
//!   SYN ──▶ (decide) ─┴─▶ Connecting ── host's connect ──▶ Open ── both ends ended, or one broke off ──▶ gone
//!                             │ guest's RST, policy changed                │ policy changed: reset
//!                             └──────────▶ gone                            └──────▶ gone
//! ```
//! The guest hears nothing before the other side has answered, so that what it hears is true. A second SYN while the first
//! one's connection is being made says nothing new. Where their rate is limited, a connection waits for its turn before it is made.

mod refusal;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use smoltcp::wire::TcpPacket;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::refusal::{LET_GO, failed, prohibit, refuse};
use crate::gateway::{Account, Gateway, Place};
use crate::held::Held;
use crate::inspect::Inspection;
use crate::limits::Limits;
use crate::neighbours;
use crate::outbox::Outbox;
use crate::packet::Packet;
use crate::policy::Protocol;
use crate::record::{OWN_NETWORK, Outcome};
use crate::relay::{self, Far};
use crate::reply::{self, Unreachable};
use crate::stack::{Begin, Stack};
use crate::udp;

/// How long the other side may take to answer: a guest's own patience is about as long.
pub(crate) const CONNECT: Duration = Duration::from_secs(60);
/// How long a connection may wait for its turn, where their rate is limited: programs wait for longer before they give up.
const TURN: Duration = Duration::from_secs(30);
/// The longest first segment: 120 bytes of headers, and data that nobody is to send with it.
const SYN_MAX: usize = 2048;
/// Where names are asked for.
pub(crate) const DNS_PORT: u16 = 53;

/// How a connection is told from others of the same guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) guest_port: u16,
    pub(crate) remote: SocketAddr,
}

/// A connection that a guest believes to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenConnection {
    /// The guest's port.
    pub guest_port: u16,
    /// The other end.
    pub remote: SocketAddr,
}

/// The connections of a guest.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// What was refused last.
    refused: RefCell<VecDeque<(Key, Instant)>>,
    slots: RefCell<HashMap<Key, Slot>>,
    /// Tells a connection from another that had the same key before.
    next: Cell<u64>,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// The host's socket is being connected.
    Connecting(AbortHandle),
    Open(Rc<Connection>),
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stack: RefCell<Stack>,
    /// The guest sent something.
    pub(crate) woken: Notify,
    /// It may not go on.
    pub(crate) revoked: Notify,
    /// What the policy has to say of it.
    pub(crate) held: RefCell<Held>,
}

impl Connection {
    pub(crate) fn new(stack: Stack, held: Held) -> Rc<Self> {
        let (stack, held) = (RefCell::new(stack), RefCell::new(held));
        Rc::new(Self { stack, woken: Notify::new(), revoked: Notify::new(), held })
    }

    pub(crate) fn take(&self, packet: &[u8], outbox: &Outbox) {
        self.stack.borrow_mut().take(packet, outbox);
        self.woken.notify_one();
    }
}

impl Connections {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Those that are open.
    pub(crate) fn all_open(&self) -> Vec<OpenConnection> {
        let slots = self.slots.borrow();
        let open = slots.iter().filter(|(_, slot)| matches!(slot.state, State::Open(_)));
        open.map(|(key, _)| OpenConnection { guest_port: key.guest_port, remote: key.remote }).collect()
    }

    /// Keeps a connection for as long as the result lives.
    pub(crate) fn open(gateway: &Rc<Gateway>, key: Key, connection: Rc<Connection>) -> Kept {
        let number = gateway.connections.put(key, State::Open(connection));
        Kept { gateway: Rc::clone(gateway), key, number }
    }

    fn put(&self, key: Key, state: State) -> u64 {
        let number = self.next.get();
        self.next.set(number + 1);
        self.slots.borrow_mut().insert(key, Slot { number, state });
        number
    }

    fn state(&self, key: &Key) -> Option<State> {
        self.slots.borrow().get(key).map(|slot| slot.state.clone())
    }

    fn remove(&self, key: &Key, number: u64) {
        let mut slots = self.slots.borrow_mut();
        if slots.get(key).is_some_and(|slot| slot.number == number) {
            slots.remove(key);
        }
    }

    /// A port that no connection from `local` to the guest's port has.
    pub(crate) fn free_port(&self, local: IpAddr, guest_port: u16, from: u64) -> Option<u16> {
        const FIRST: u16 = 32_768;
        let slots = self.slots.borrow();
        let count = u64::from(u16::MAX - FIRST);
        let port = |offset: u64| FIRST + u16::try_from((from % count + offset) % count).unwrap_or(0);
        (0..count)
            .map(port)
            .find(|port| !slots.contains_key(&Key { guest_port, remote: SocketAddr::new(local, *port) }))
    }

    /// Breaks off what the policy does not allow any more.
    pub(crate) fn review(gateway: &Rc<Gateway>) {
        gateway.connections.slots.borrow_mut().retain(|key, slot| match &slot.state {
            // Decided on by the rules from before. The guest asks again.
            State::Connecting(task)
                if matches!(gateway.place(key.remote.ip()), Place::Host | Place::Outside) =>
            {
                task.abort();
                false
            }
            State::Connecting(_) => true,
            State::Open(connection) => {
                if !gateway.may_go_on(key.remote, &connection.held.borrow()) {
                    // Its own task tells the guest.
                    connection.revoked.notify_one();
                }
                true
            }
        });
    }
}

/// The place of a connection, which is given back at the end.
#[derive(Debug)]
pub(crate) struct Kept {
    gateway: Rc<Gateway>,
    key: Key,
    number: u64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.gateway.connections.remove(&self.key, self.number);
    }
}

/// Takes a segment from the guest.
pub(crate) fn take(gateway: &Rc<Gateway>, packet: &Packet<'_>, segment: &TcpPacket<&[u8]>) {
    let remote = SocketAddr::new(packet.to, segment.dst_port());
    let key = Key { guest_port: segment.src_port(), remote };
    match gateway.connections.state(&key) {
        Some(State::Open(connection)) => connection.take(packet.bytes, &gateway.outbox),
        Some(State::Connecting(task)) => {
            if segment.rst() {
                task.abort();
                gateway.connections.slots.borrow_mut().remove(&key);
            }
        }
        None if segment.syn() && !segment.ack() && !segment.rst() => begin(gateway, packet, key),
        None => reply::reset(&gateway.outbox, packet.to, segment),
    }
}

/// Begins a connection that the guest asks for.
fn begin(gateway: &Rc<Gateway>, packet: &Packet<'_>, key: Key) {
    let count = gateway.connections.count();
    let turn = gateway.rates.connections.delay();
    // It will ask again, and may find room then.
    if count >= gateway.limits.connections || packet.bytes.len() > SYN_MAX || turn > TURN {
        return;
    }
    let account = Account::new(Protocol::Tcp, key.remote, key.guest_port);
    let begun = match gateway.place(key.remote.ip()) {
        Place::Gateway if key.remote.port() == DNS_PORT => Some((Target::Dns, account, None)),
        Place::Gateway => {
            deny(gateway, account, OWN_NETWORK.to_owned());
            refuse(gateway, packet)
        }
        Place::Host => exposed(gateway, packet, account),
        Place::Nobody => {
            deny(gateway, account, OWN_NETWORK.to_owned());
            reply::unreachable(&gateway.outbox, packet, Unreachable::Host);
            None
        }
        Place::Neighbour => Some((Target::Neighbour, account, None)),
        Place::Outside => outside(gateway, packet, account),
    };
    let Some((target, account, inspection)) = begun else { return };
    gateway.rates.connections.spend(1);
    let syn = packet.bytes.to_vec();
    let task = Connecting { gateway: Rc::clone(gateway), key, syn, account, inspection, turn };
    let task = tokio::task::spawn_local(task.run(target));
    // It has not run yet: it is this thread's, which is here.
    gateway.connections.put(key, State::Connecting(task.abort_handle()));
}

type Begun = Option<(Target, Account, Option<Inspection>)>;

fn exposed(gateway: &Gateway, packet: &Packet<'_>, mut account: Account) -> Begun {
    if let Some(service) = gateway.exposed(&mut account) {
        let inspection = Inspection::of_secrets(gateway.secrets.is_some());
        return Some((Target::Host(service), account, inspection));
    }
    let why = format!("no port of the host is exposed as {}", account.remote.port());
    deny(gateway, account, why);
    refuse(gateway, packet)
}

fn deny(gateway: &Gateway, account: Account, why: String) {
    gateway.record(account, Outcome::Denied, Some(why));
}

fn outside(gateway: &Rc<Gateway>, packet: &Packet<'_>, mut account: Account) -> Begun {
    let decision = gateway.decide(&mut account);
    if !decision.allowed {
        prohibit(gateway, packet, account);
        return None;
    }
    let has_secrets = gateway.secrets.is_some();
    let inspection = Inspection::needed(&gateway.policy.borrow(), decision.by_name, has_secrets);
    Some((Target::Host(account.remote), account, inspection))
}

/// What a connection leads to.
#[derive(Debug)]
enum Target {
    /// A socket of the host's.
    Host(SocketAddr),
    /// A neighbour's guest.
    Neighbour,
    /// The gateway's own name server.
    Dns,
}

/// A connection that has not come about yet.
#[derive(Debug)]
struct Connecting {
    gateway: Rc<Gateway>,
    key: Key,
    /// The packet with the guest's first segment.
    syn: Vec<u8>,
    account: Account,
    inspection: Option<Inspection>,
    /// How long it waits until it is its turn.
    turn: Duration,
}

impl Connecting {
    async fn run(self, target: Target) {
        let Self { gateway, key, syn, mut account, inspection, turn } = self;
        let number = gateway.connections.slots.borrow().get(&key).map(|slot| slot.number);
        // Freed if it does not come about, or this is aborted.
        let freed = Freed { gateway: Rc::clone(&gateway), key, number };
        if !turn.is_zero() {
            tokio::time::sleep(turn).await;
        }
        let connected = timeout(CONNECT, connect(&gateway, target, &mut account)).await;
        let far = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(far) => far,
            Err(error) => {
                tokio::time::sleep_until((account.began + LET_GO).into()).await;
                return failed(&gateway, key, &syn, account, &error);
            }
        };
        let buffer = Limits::buffer(gateway.connections.count());
        let Some(stack) = Stack::new(key.remote, Begin::Listen, buffer, gateway.seed()) else { return };
        let connection = Connection::new(stack, Held::at_first(inspection.as_ref()));
        let kept = Connections::open(&gateway, key, Rc::clone(&connection));
        drop(freed);
        connection.take(&syn, &gateway.outbox);
        relay::run(&gateway, &connection, far, account, inspection).await;
        drop(kept);
    }
}

/// The other end of a connection, once that has answered.
async fn connect(gateway: &Rc<Gateway>, target: Target, account: &mut Account) -> io::Result<Far> {
    match target {
        Target::Host(to) => gateway.outside.connect(to).await.map(Far::Host),
        Target::Neighbour => neighbours::ask(gateway, account).await.map(Far::Neighbour),
        Target::Dns => {
            let (ours, theirs) = UnixStream::pair()?;
            tokio::task::spawn_local(udp::dns_over_tcp(Rc::clone(gateway), theirs));
            Ok(Far::Service(ours))
        }
    }
}

/// Frees the place of a connection that did not come about.
struct Freed {
    gateway: Rc<Gateway>,
    key: Key,
    number: Option<u64>,
}

impl Drop for Freed {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.gateway.connections.remove(&self.key, number);
        }
    }
}
