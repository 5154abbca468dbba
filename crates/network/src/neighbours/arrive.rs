//! Owns the way in for neighbours: what comes to a sandbox's door, and is for its guest.
//!
//! Who comes is a process of the same user. What it says is checked all the same: it may be of another version, or broken.

use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::directory::Door;
use super::header::{Answer, Header};
use super::{Network, datagrams};
use crate::address::{GUEST_V4, GUEST_V6};
use crate::forward::{Unanswered, reach_from};
use crate::gateway::{Account, Gateway};
use crate::policy::Protocol;
use crate::record::{Direction, Outcome};
use crate::relay::{self, Far};

/// How long somebody may take to say what it wants.
const FIRST_WORDS: Duration = Duration::from_secs(2);
/// How long the guest may take to answer: one that stood still is woken by whoever comes.
const ANSWER: Duration = Duration::from_secs(30);
/// How many may wait for an answer.
const WAITING: usize = 64;
/// How long to wait when nobody can be let in: descriptors have run out.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Lets neighbours in, without an end.
pub(crate) async fn serve(gateway: &Rc<Gateway>, doors: Vec<Door>) {
    join_all(doors.iter().enumerate().map(|(network, door)| accept(gateway, network, door))).await;
    pending::<()>().await;
}

async fn accept(gateway: &Rc<Gateway>, network: usize, door: &Door) {
    let listener = match door.listener.try_clone().and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "no neighbour can come in"),
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(EXHAUSTED).await;
            continue;
        };
        // Others, and what comes after the last that may wait, are dropped without a word.
        if is_ours(&stream)
            && let Some(place) = Place::take(gateway)
        {
            tokio::task::spawn_local(answer(place, network, stream));
        }
    }
}

/// Whether the other side belongs to our user, or to root, who can do all of this anyway.
fn is_ours(stream: &UnixStream) -> bool {
    let us = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == us || peer.uid() == 0)
}

/// A place among those that wait for an answer.
pub(super) struct Place(Rc<Gateway>);

impl Place {
    fn take(gateway: &Rc<Gateway>) -> Option<Self> {
        let waiting = &gateway.neighbours.waiting;
        (waiting.get() < WAITING).then(|| {
            waiting.set(waiting.get() + 1);
            Self(Rc::clone(gateway))
        })
    }

    pub(super) fn gateway(&self) -> &Rc<Gateway> {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let waiting = &self.0.neighbours.waiting;
        waiting.set(waiting.get() - 1);
    }
}

async fn answer(place: Place, network: usize, mut stream: UnixStream) {
    // One that only looks whether somebody is there says nothing.
    let Ok(Ok(header)) = timeout(FIRST_WORDS, Header::read(&mut stream)).await else { return };
    let neighbours = &place.gateway().neighbours;
    let [v4, v6] = neighbours.addresses.borrow_mut().of(&header.id);
    let asker = SocketAddr::new(if header.is_v6 { v6 } else { v4 }, header.from);
    let account = Account {
        direction: Direction::In,
        name: neighbours.addresses.borrow().name(&header.id),
        reason: neighbours.networks.get(network).map(Network::reason).unwrap_or_default(),
        ..Account::new(header.protocol, asker, header.port)
    };
    if header.protocol == Protocol::Udp {
        datagrams::arrive(place, stream, account).await;
    } else {
        let v4 = (v4, GUEST_V4.into());
        let v6 = (v6, GUEST_V6.into());
        // A program that listens on the other family alone is reached too.
        connection(place, stream, account, if header.is_v6 { [v6, v4] } else { [v4, v6] }).await;
    }
}

async fn connection(place: Place, mut stream: UnixStream, account: Account, families: [(IpAddr, IpAddr); 2]) {
    let gateway = Rc::clone(place.gateway());
    let _visit = gateway.visit();
    let visiting = gateway.shares.neighbours.take(&gateway);
    let reached = if visiting.is_none() {
        Err((Answer::Unreachable, "the guest has as many connections as it may have"))
    } else {
        tokio::select! {
            reached = reach_from(&gateway, families, account.guest_port, Instant::now() + ANSWER) => {
                reached.map_err(|why| match why {
                    Unanswered::Refused => (Answer::Refused, "nobody listens in the guest"),
                    Unanswered::Silent => (Answer::Unreachable, "the guest does not answer"),
                })
            }
            () = given_up(&stream) => Err((Answer::Unreachable, "the other side did not wait for the guest")),
        }
    };
    // If it is not heard, there is nobody to hear it, which the relay finds out.
    let said = reached.as_ref().err().map_or(Answer::Open, |(answer, _)| *answer);
    _ = timeout(FIRST_WORDS, said.write(&mut stream)).await;
    drop(place);
    match reached {
        Ok((connection, kept)) => {
            relay::run(&gateway, &connection, Far::Neighbour(stream), account, None).await;
            drop(kept);
        }
        Err((_, why)) => gateway.record(account, Outcome::Failed, Some(why.to_owned())),
    }
}

/// Waits until the other side has ended, or says something before it was answered.
async fn given_up(stream: &UnixStream) {
    let look = || Ok(recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?);
    while stream.readable().await.is_ok() {
        match stream.try_io(Interest::READABLE, look) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
