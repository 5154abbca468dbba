//! Owns what a guest is told of a connection that does not come about.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smoltcp::wire::TcpPacket;

use super::{Begun, Key};
use crate::gateway::{Account, Gateway};
use crate::packet::Packet;
use crate::record::Outcome;
use crate::reply::{self, Unreachable};

/// How long a guest may take to let go of a socket that it has just begun to connect.
pub(super) const LET_GO: Duration = Duration::from_millis(5);
/// A guest that asks within this time for what it was refused has not heard of it.
const ASKS_AGAIN: Duration = Duration::from_secs(4);
/// How many that were refused are remembered.
const REFUSED: usize = 64;

pub(super) fn refuse(gateway: &Gateway, packet: &Packet<'_>) -> Begun {
    if let crate::packet::Payload::Tcp(segment) = &packet.payload {
        reply::reset(&gateway.outbox, packet.to, segment);
    }
    None
}

/// Tells the guest that a connection may not be. A kernel takes an error for its socket only once whoever connects has let go of
/// it, which a guest that was answered at once has not; else it asks again, a second later. So the answer takes its time, and one that asks again all
/// the same gets a reset, which waits for the socket.
pub(super) fn prohibit(gateway: &Rc<Gateway>, packet: &Packet<'_>, account: Account) {
    let key = Key { guest_port: account.guest_port, remote: account.remote };
    let refused = &gateway.connections.refused;
    if refused.borrow().iter().any(|(known, since)| *known == key && since.elapsed() < ASKS_AGAIN) {
        refuse(gateway, packet);
        return;
    }
    gateway.record(account, Outcome::Denied, None);
    let mut recent = refused.borrow_mut();
    // Whoever asks faster than that is no program that waits for an answer.
    if recent.len() == REFUSED && recent.front().is_some_and(|(_, since)| since.elapsed() < LET_GO) {
        refuse(gateway, packet);
        return;
    }
    if recent.len() == REFUSED {
        recent.pop_front();
    }
    recent.push_back((key, Instant::now()));
    let (gateway, to, syn) = (Rc::clone(gateway), packet.to, packet.bytes.to_vec());
    tokio::task::spawn_local(async move {
        tokio::time::sleep(LET_GO).await;
        reply::quote(&gateway.outbox, to, &syn, Unreachable::Prohibited);
    });
}

/// Tells the guest why its connection did not come about.
pub(super) fn failed(gateway: &Gateway, key: Key, syn: &[u8], account: Account, error: &io::Error) {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, NetworkUnreachable};
    match error.kind() {
        ConnectionRefused | ConnectionReset => reset_first(gateway, key.remote.ip(), syn),
        NetworkUnreachable => reply::quote(&gateway.outbox, key.remote.ip(), syn, Unreachable::Network),
        _ => reply::quote(&gateway.outbox, key.remote.ip(), syn, Unreachable::Host),
    }
    gateway.record(account, Outcome::Failed, Some(error.to_string()));
}

/// Resets what a first segment asked for.
fn reset_first(gateway: &Gateway, remote: IpAddr, syn: &[u8]) {
    let header = match remote {
        IpAddr::V4(_) => syn.first().map_or(0, |first| usize::from(first & 0xf) * 4),
        IpAddr::V6(_) => 40,
    };
    if let Some(Ok(segment)) = syn.get(header..).map(TcpPacket::new_checked) {
        reply::reset(&gateway.outbox, remote, &segment);
    }
}
