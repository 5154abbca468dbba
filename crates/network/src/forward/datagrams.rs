//! Owns the datagrams that come in over a forward: each client of the host's port has a port of the gateway's own, so that the guest's
//! answers find the way back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::UdpSocket;

use super::Forward;
use crate::address::GATEWAY_V4;
use crate::gateway::Gateway;
use crate::reply;

/// How long a client is known after the last datagram either way.
const IDLE: Duration = Duration::from_secs(120);
/// Most clients of a guest; the one that was silent longest gives way.
const MOST: usize = 1024;
/// Where the gateway's ports for them begin.
const FIRST: u16 = 16_384;

/// Clients by the port that they have.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    of: RefCell<HashMap<u16, Client>>,
    next: Cell<u16>,
}

#[derive(Debug)]
struct Client {
    socket: Rc<UdpSocket>,
    address: SocketAddr,
    guest: u16,
    last: Instant,
    has_answer: bool,
}

impl Clients {
    /// Passes on what the guest answers to a client; `false` if there is none.
    pub(crate) fn answer(&self, port: u16, from: u16, data: &[u8]) -> bool {
        let mut clients = self.of.borrow_mut();
        let Some(client) = clients.get_mut(&port).filter(|client| client.guest == from) else { return false };
        client.last = Instant::now();
        client.has_answer = true;
        // It is lost if it cannot be sent, as any may be.
        _ = SockRef::from(&*client.socket).send_to(data, &client.address.into());
        true
    }

    /// Whether the guest ever answered anybody there.
    pub(super) fn has_answered(&self, guest: u16) -> bool {
        self.of.borrow().values().any(|client| client.guest == guest && client.has_answer)
    }

    /// Forgets the clients of a host's port, which is held as long as one of them is known.
    pub(super) fn forget(&self, host: SocketAddr) {
        let is_there = |client: &Client| client.socket.local_addr().is_ok_and(|local| local == host);
        self.of.borrow_mut().retain(|_, client| !is_there(client));
    }

    /// The port of a client, a new one's too.
    fn port(&self, socket: &Rc<UdpSocket>, address: SocketAddr, guest: u16) -> u16 {
        let (mut clients, now) = (self.of.borrow_mut(), Instant::now());
        let known = clients.iter_mut().find(|(_, client)| {
            client.address == address && client.guest == guest && Rc::ptr_eq(&client.socket, socket)
        });
        if let Some((port, client)) = known {
            client.last = now;
            return *port;
        }
        if clients.len() >= MOST {
            clients.retain(|_, client| now.duration_since(client.last) < IDLE);
        }
        while clients.len() >= MOST {
            let oldest = clients.iter().min_by_key(|(_, client)| client.last).map(|(port, _)| *port);
            oldest.and_then(|port| clients.remove(&port));
        }
        let mut port = FIRST + self.next.get() % FIRST;
        while clients.contains_key(&port) {
            port = FIRST + (port + 1 - FIRST) % FIRST;
        }
        self.next.set((port + 1) % FIRST);
        let client = Client { socket: Rc::clone(socket), address, guest, last: now, has_answer: false };
        clients.insert(port, client);
        port
    }
}

/// Passes on what comes to the host's port.
pub(super) async fn receive(gateway: Rc<Gateway>, socket: UdpSocket, forward: Forward) {
    let socket = Rc::new(socket);
    let mut buffer = vec![0; 65_535];
    loop {
        // An error is one that an answer met; the next datagram is another matter.
        let Ok((count, client)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if gateway.rates.received.allows() < count {
            continue;
        }
        gateway.rates.received.spend(count);
        drop(gateway.visit());
        let port = gateway.forwards.clients.port(&socket, client, forward.guest);
        reply::datagram(&gateway.outbox, (GATEWAY_V4.into(), port), forward.guest, &buffer[..count]);
    }
}
