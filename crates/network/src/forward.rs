//! Owns the ways into a guest: listeners of the host's, each for a port of the guest's.
//!
//! ```text
//!   listener ──▶ Waiting ── the guest's port answered ──▶ Up
//!                   │ a client comes: it is held while the port is tried again, for a while
//! ```
//! A program that has just been started takes its time to listen. So the first clients wait; once the port has answered, a
//! refusal is passed on at once.

mod datagrams;

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

pub(crate) use self::datagrams::Clients;
use crate::address::{GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6};
use crate::gateway::{Account, Gateway};
use crate::held::Held;
use crate::limits::Limits;
use crate::policy::Protocol;
use crate::record::{Direction, Outcome};
use crate::relay::{self, Far};
use crate::stack::{Begin, Sent, Stack};
use crate::tcp::{Connection, Connections, Kept, Key};

/// How long a client is held for a port that has never answered, and how often that is tried.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);
/// How long a guest may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Most ports of one guest.
const MOST: usize = 1024;

/// A port of the host that leads to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Where the host listens. Port 0: any that is free.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// A forward that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// What leads where, with the port that was chosen.
    pub forward: Forward,
    /// Whether the guest's port answers.
    pub is_up: bool,
}

/// Why there is no forward.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The host's side.
    #[error("cannot listen on {host}")]
    Listen {
        /// Where.
        host: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// Too many.
    #[error("a sandbox can have {MOST} ports")]
    TooMany,
    /// There is none to take away.
    #[error("there is no forward of {host}")]
    Unknown {
        /// Of which place.
        host: SocketAddr,
    },
    /// It is neither TCP nor UDP.
    #[error("a port is one of TCP or of UDP")]
    Protocol,
    /// The gateway has ended.
    #[error("the sandbox's network has ended")]
    Gone,
}

/// A guest's forwards.
#[derive(Debug, Default)]
pub(crate) struct Forwards {
    open: RefCell<Vec<Rc<Open>>>,
    pub(crate) clients: Clients,
}

#[derive(Debug)]
struct Open {
    forward: Forward,
    has_answered: Cell<bool>,
    task: OnceCell<AbortHandle>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// Listens for `forward`, and gives it back with the port that was chosen.
pub(crate) fn add(gateway: &Rc<Gateway>, forward: Forward) -> Result<Forward, ForwardError> {
    if gateway.forwards.open.borrow().len() >= MOST {
        return Err(ForwardError::TooMany);
    }
    let failed = |source| ForwardError::Listen { host: forward.host, source };
    let open = |host| {
        let forward = Forward { host, ..forward };
        Rc::new(Open { forward, has_answered: Cell::new(false), task: OnceCell::new() })
    };
    let (open, task) = match forward.protocol {
        Protocol::Tcp => {
            let listener = listen(forward.host).map_err(failed)?;
            let open = open(listener.local_addr().map_err(failed)?);
            let task = accept(Rc::clone(gateway), listener, Rc::downgrade(&open), open.forward);
            let task = tokio::task::spawn_local(task);
            (open, task)
        }
        Protocol::Udp => {
            let socket = std::net::UdpSocket::bind(forward.host).map_err(failed)?;
            socket.set_nonblocking(true).map_err(failed)?;
            let socket = tokio::net::UdpSocket::from_std(socket).map_err(failed)?;
            let open = open(socket.local_addr().map_err(failed)?);
            let task = datagrams::receive(Rc::clone(gateway), socket, open.forward);
            (open, tokio::task::spawn_local(task))
        }
        Protocol::Icmp => return Err(ForwardError::Protocol),
    };
    _ = open.task.set(task.abort_handle());
    let forward = open.forward;
    gateway.forwards.open.borrow_mut().push(open);
    Ok(forward)
}

fn listen(host: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(host), socket2::Type::STREAM, None)?;
    // A port that was in use a moment ago can be had; one that is in use cannot.
    socket.set_reuse_address(true)?;
    if host.is_ipv6() {
        // The same port of IPv4 is another forward's.
        socket.set_only_v6(true)?;
    }
    socket.bind(&host.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Ends a forward; its open connections go on.
pub(crate) fn remove(gateway: &Gateway, host: SocketAddr, protocol: Protocol) -> Result<(), ForwardError> {
    let mut open = gateway.forwards.open.borrow_mut();
    let before = open.len();
    open.retain(|open| open.forward.host != host || open.forward.protocol != protocol);
    if protocol == Protocol::Udp {
        gateway.forwards.clients.forget(host);
    }
    if open.len() == before { Err(ForwardError::Unknown { host }) } else { Ok(()) }
}

/// What there is, and whether the guest answers now.
pub(crate) async fn statuses(gateway: Rc<Gateway>) -> Vec<ForwardStatus> {
    let open: Vec<_> = gateway.forwards.open.borrow().iter().map(Rc::clone).collect();
    // At once: a guest that stands still answers for none of them.
    join_all(open.iter().map(|open| status(&gateway, open))).await
}

async fn status(gateway: &Rc<Gateway>, open: &Open) -> ForwardStatus {
    let forward = open.forward;
    let is_up = if forward.protocol == Protocol::Tcp {
        answers(gateway, forward.guest).await
    } else {
        // Nothing answers for sure.
        gateway.forwards.clients.has_answered(forward.guest)
    };
    if is_up {
        open.has_answered.set(true);
    }
    ForwardStatus { forward, is_up }
}

async fn accept(gateway: Rc<Gateway>, listener: TcpListener, open: std::rc::Weak<Open>, forward: Forward) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                // What comes after the last that is allowed is refused, not held.
                let Some(place) = gateway.shares.forwards.take(&gateway) else {
                    _ = stream.set_zero_linger();
                    continue;
                };
                let Some(open) = open.upgrade() else { return };
                let served = serve(Rc::clone(&gateway), stream, client, open, forward);
                tokio::task::spawn_local(async move {
                    served.await;
                    drop(place);
                });
            }
            // Such as no descriptor to spare: others may give one back.
            Err(_) => sleep(AGAIN).await,
        }
    }
}

async fn serve(
    gateway: Rc<Gateway>,
    stream: TcpStream,
    client: SocketAddr,
    open: Rc<Open>,
    forward: Forward,
) {
    let _visit = gateway.visit();
    let account = Account {
        direction: Direction::In,
        reason: format!("port {} leads to the guest's {}", forward.host, forward.guest),
        ..Account::new(Protocol::Tcp, client, forward.guest)
    };
    let deadline = Instant::now() + if open.has_answered.get() { ANSWER } else { PATIENCE };
    let reached = loop {
        match reach(&gateway, forward.guest, deadline).await {
            Some(reached) => break Some(reached),
            None if open.has_answered.get() || Instant::now() + AGAIN >= deadline => break None,
            None => sleep(AGAIN).await,
        }
    };
    let Some((connection, kept)) = reached else {
        _ = stream.set_zero_linger();
        return gateway.record(account, Outcome::Failed, Some("nobody listens in the guest".to_owned()));
    };
    open.has_answered.set(true);
    drop(open);
    if stream.set_nodelay(true).is_ok() {
        relay::run(&gateway, &connection, Far::Host(stream), account, None).await;
    }
    drop(kept);
}

/// A connection to a port of the guest's; none if nobody answers there.
pub(crate) async fn reach(
    gateway: &Rc<Gateway>,
    port: u16,
    deadline: Instant,
) -> Option<(Rc<Connection>, Kept)> {
    reach_from(gateway, families(), port, deadline).await.ok()
}

/// Why there is no connection to a port of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// Nobody listens there.
    Refused,
    /// The guest said nothing.
    Silent,
}

/// The same from the first of these addresses that is answered, each with the guest's own of its family.
pub(crate) async fn reach_from(
    gateway: &Rc<Gateway>,
    families: [(IpAddr, IpAddr); 2],
    port: u16,
    deadline: Instant,
) -> Result<(Rc<Connection>, Kept), Unanswered> {
    let mut why = Unanswered::Refused;
    for (own, guest) in families {
        let Some((connection, kept)) = knock(gateway, own, SocketAddr::new(guest, port)) else {
            why = Unanswered::Silent;
            continue;
        };
        match answered(gateway, &connection, deadline).await {
            Ok(()) => return Ok((connection, kept)),
            Err(Unanswered::Refused) => {}
            Err(Unanswered::Silent) => why = Unanswered::Silent,
        }
    }
    Err(why)
}

/// Whether somebody listens on a port of the guest's. Nobody there learns of the question.
async fn answers(gateway: &Rc<Gateway>, port: u16) -> bool {
    let deadline = Instant::now() + ANSWER;
    let Some((connection, kept)) = reach(gateway, port, deadline).await else { return false };
    // Before its last handshake: the guest's program never sees it.
    let mut stack = connection.stack.borrow_mut();
    stack.socket_mut().abort();
    stack.send(&gateway.outbox);
    drop(kept);
    true
}

fn families() -> [(IpAddr, IpAddr); 2] {
    [(GATEWAY_V4.into(), GUEST_V4.into()), (GATEWAY_V6.into(), GUEST_V6.into())]
}

/// Sends a first segment.
fn knock(gateway: &Rc<Gateway>, own: IpAddr, guest: SocketAddr) -> Option<(Rc<Connection>, Kept)> {
    let seed = gateway.seed();
    let port = gateway.connections.free_port(own, guest.port(), seed)?;
    let own = SocketAddr::new(own, port);
    let buffer = Limits::buffer(gateway.connections.count());
    let stack = Stack::new(own, Begin::Connect { guest }, buffer, seed)?;
    let connection = Connection::new(stack, Held::Inbound);
    let kept =
        Connections::open(gateway, Key { guest_port: guest.port(), remote: own }, Rc::clone(&connection));
    Some((connection, kept))
}

/// Waits for the guest's answer, which is not acknowledged yet.
async fn answered(gateway: &Gateway, connection: &Connection, deadline: Instant) -> Result<(), Unanswered> {
    loop {
        let (sent, alarm) = {
            let mut stack = connection.stack.borrow_mut();
            if stack.is_established() {
                return Ok(());
            }
            let sent = stack.send(&gateway.outbox);
            if stack.is_over() {
                return Err(Unanswered::Refused);
            }
            (sent, if sent == Sent::NoRoom { None } else { stack.alarm() })
        };
        let next = async {
            tokio::select! {
                () = connection.woken.notified() => {}
                () = relay::sleep_until(alarm), if alarm.is_some() => {}
                () = gateway.outbox.room(), if sent == Sent::NoRoom => {}
            }
        };
        timeout_at(deadline, next).await.map_err(|_| Unanswered::Silent)?;
    }
}
