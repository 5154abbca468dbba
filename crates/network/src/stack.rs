//! Owns the guest's side of one TCP connection: a whole TCP/IP stack with a single socket, whose address is that of the other end.
//!
//! One stack for each connection, and not one for all: a packet costs the same however many connections there are, and no
//! connection's timers, buffers or faults are another's.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{self, Socket, State};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};

use crate::address::MTU;
use crate::outbox::Outbox;

/// How many segments are sent before others have their turn.
const BURST: usize = 16;
/// How much of a long transfer may come before it is acknowledged, at most: each acknowledgement interrupts a guest that is busy with the
/// segments to come.
const UNANSWERED: usize = 256 << 10;
/// How long that may wait.
const PATIENCE: Duration = Duration::from_millis(1);

/// One end of a connection, as the guest sees it.
pub(crate) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// Where time begins for it.
    epoch: Instant,
    unanswered: Unanswered,
}

/// What the guest sent since it was last answered.
#[derive(Debug, Default)]
struct Unanswered {
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
    /// How much was answered before.
    before: usize,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("state", &self.socket().state()).finish_non_exhaustive()
    }
}

/// How a stack begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin {
    /// It waits for the guest's first segment.
    Listen,
    /// It connects to the guest, from its own address.
    Connect {
        /// Where the guest listens.
        guest: SocketAddr,
    },
}

/// What stopped the sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// There is nothing more.
    All,
    /// The link is full.
    NoRoom,
    /// There may be more; it is others' turn.
    Burst,
}

impl Stack {
    /// A stack that is `own`, with buffers of `buffer` bytes each way. `seed` is where its sequence numbers come from.
    pub(crate) fn new(own: SocketAddr, begin: Begin, buffer: usize, seed: u64) -> Option<Self> {
        let epoch = Instant::now();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface =
            Interface::new(config, &mut Wire { frame: None, outbox: None }, smoltcp::time::Instant::ZERO);
        // Everything is in its network, so that it needs no routes.
        let address = IpCidr::new(IpAddress::from(own.ip()), 0);
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            _ = addresses.push(address);
        });
        // Zeroed memory is not taken before it is written to, and a ring that runs empty begins at its beginning again: a
        // connection takes what it has in flight.
        let mut socket =
            Socket::new(tcp::SocketBuffer::new(vec![0; buffer]), tcp::SocketBuffer::new(vec![0; buffer]));
        socket.set_nagle_enabled(false);
        match begin {
            Begin::Listen => {
                let endpoint = IpListenEndpoint { addr: Some(IpAddress::from(own.ip())), port: own.port() };
                socket.listen(endpoint).ok()?;
            }
            Begin::Connect { guest } => {
                let remote = IpEndpoint::new(IpAddress::from(guest.ip()), guest.port());
                let local = IpEndpoint::new(IpAddress::from(own.ip()), own.port());
                socket.connect(interface.context(), remote, local).ok()?;
            }
        }
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Some(Self { interface, sockets, handle, epoch, unanswered: Unanswered::default() })
    }

    pub(crate) fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    pub(crate) fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(
            i64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(i64::MAX),
        )
    }

    /// Takes an IP packet from the guest.
    pub(crate) fn take(&mut self, packet: &[u8], outbox: &Outbox) {
        let now = self.now();
        let before = self.socket().recv_queue();
        let mut wire = Wire { frame: Some(packet), outbox: Some(outbox) };
        self.interface.poll_ingress_single(now, &mut wire, &mut self.sockets);
        let came = self.socket().recv_queue() - before;
        if came > 0 {
            self.unanswered.bytes += came;
            self.unanswered.since.get_or_insert_with(Instant::now);
        }
    }

    /// Until when there is nothing to send but an acknowledgement that can wait for more of the same. A guest that has just begun, or has
    /// sent half of what it may, is not kept waiting for it.
    fn waits_until(&self) -> Option<Instant> {
        let (socket, Unanswered { bytes, since, before }) = (self.socket(), &self.unanswered);
        let window = socket.recv_capacity();
        let can_wait = *bytes < UNANSWERED.min(window / 2)
            && *before >= window
            && socket.send_queue() == 0
            && socket.state() == State::Established;
        let until = (*since)? + PATIENCE;
        (can_wait && until > Instant::now()).then_some(until)
    }

    /// Sends what there is to send.
    pub(crate) fn send(&mut self, outbox: &Outbox) -> Sent {
        if self.waits_until().is_some() {
            return Sent::All;
        }
        let Unanswered { bytes, before, .. } = self.unanswered;
        self.unanswered = Unanswered { before: before.saturating_add(bytes), ..Unanswered::default() };
        for _ in 0..BURST {
            if !outbox.has_room() {
                return Sent::NoRoom;
            }
            let now = self.now();
            let mut wire = Wire { frame: None, outbox: Some(outbox) };
            if self.interface.poll_egress(now, &mut wire, &mut self.sockets) == PollResult::None {
                return Sent::All;
            }
        }
        Sent::Burst
    }

    /// When it has to do something by itself.
    pub(crate) fn alarm(&mut self) -> Option<Instant> {
        if let Some(until) = self.waits_until() {
            return Some(until);
        }
        let now = self.now();
        let at = self.interface.poll_at(now, &self.sockets)?;
        Some(self.epoch + Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0)))
    }

    /// Whether nothing more will come of it.
    pub(crate) fn is_over(&self) -> bool {
        // Both ends have heard of the end of the other; the link loses nothing that would have to be said again.
        // One whose first segment was taken back, or is none, would wait for another.
        matches!(self.socket().state(), State::Closed | State::TimeWait | State::Listen)
    }

    /// Whether it was answered, or the guest's first segment was.
    pub(crate) fn is_established(&self) -> bool {
        !matches!(self.socket().state(), State::Listen | State::SynSent | State::SynReceived | State::Closed)
    }
}

/// What the stack sees of the link: at most one packet in, and the outbox.
struct Wire<'a> {
    frame: Option<&'a [u8]>,
    outbox: Option<&'a Outbox>,
}

impl Device for Wire<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Place<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Received<'_>, Place<'_>)> {
        Some((Received(self.frame.take()?), Place(self.outbox?)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Place<'_>> {
        Some(Place(self.outbox?))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        // What comes has only been in memory since the guest's kernel made it.
        let mut checksum = ChecksumCapabilities::ignored();
        checksum.ipv4 = Checksum::Tx;
        checksum.tcp = Checksum::Tx;
        capabilities.checksum = checksum;
        capabilities
    }
}

struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

struct Place<'a>(&'a Outbox);

impl TxToken for Place<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        // A packet that is dropped is made all the same, and sent again.
        self.0.push(None, length, fill).unwrap_or_else(|fill| fill(&mut vec![0; length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::HEADER;

    const SEGMENT: usize = MTU - 40;

    /// A guest, and the gateway's end of its connection.
    struct Ends {
        guest: Stack,
        to_gateway: Outbox,
        gateway: Stack,
        to_guest: Outbox,
        /// How many packets the gateway sent.
        answers: usize,
    }

    impl Ends {
        fn connected(buffer: usize) -> Self {
            let (own, remote) = ("192.0.0.2:40000".parse().unwrap(), "198.51.100.1:80".parse().unwrap());
            let guest = Stack::new(own, Begin::Connect { guest: remote }, buffer, 1).unwrap();
            let gateway = Stack::new(remote, Begin::Listen, buffer, 2).unwrap();
            let (to_gateway, to_guest) = (Outbox::new([0; 6]), Outbox::new([0; 6]));
            let mut ends = Self { guest, to_gateway, gateway, to_guest, answers: 0 };
            while !ends.guest.is_established() {
                ends.turn();
            }
            ends
        }

        /// Each of the guest's packets is taken and may be answered by itself, and what comes is read at once.
        fn turn(&mut self) {
            self.guest.send(&self.to_gateway);
            for frame in self.to_gateway.take_all() {
                self.gateway.take(&frame[HEADER..], &self.to_guest);
                _ = self.gateway.socket_mut().recv(|bytes| (bytes.len(), ()));
                self.answer();
            }
            self.answer();
        }

        fn answer(&mut self) {
            self.gateway.send(&self.to_guest);
            for frame in self.to_guest.take_all() {
                self.answers += 1;
                self.guest.take(&frame[HEADER..], &self.to_gateway);
            }
        }

        /// Sends so many segments, and waits until all are acknowledged.
        fn send(&mut self, segments: usize) {
            let mut left = segments * SEGMENT;
            while left > 0 || self.guest.socket().send_queue() > 0 {
                let sent = self.guest.socket_mut().send(|space| {
                    let count = space.len().min(left);
                    (count, count)
                });
                left -= sent.unwrap();
                self.turn();
            }
        }
    }

    #[test]
    fn a_long_transfer_is_acknowledged_seldom_and_to_its_end() {
        let mut ends = Ends::connected(1 << 20);
        ends.send(20);
        let before = ends.answers;
        ends.send(200);
        let answers = ends.answers - before;
        assert!((1..80).contains(&answers), "{answers} for 200 segments");
    }

    #[test]
    fn what_comes_first_is_acknowledged_as_it_comes() {
        let mut ends = Ends::connected(1 << 20);
        ends.answers = 0;
        ends.send(10);
        assert!(ends.answers >= 5, "{} for 10 segments", ends.answers);
    }

    #[test]
    fn what_can_wait_for_more_has_an_alarm_that_is_soon() {
        let mut ends = Ends::connected(1 << 20);
        ends.send(20);
        ends.guest.socket_mut().send_slice(&vec![0; 2 * SEGMENT]).unwrap();
        ends.guest.send(&ends.to_gateway);
        let began = Instant::now();
        for frame in ends.to_gateway.take_all() {
            ends.gateway.take(&frame[HEADER..], &ends.to_guest);
        }
        _ = ends.gateway.socket_mut().recv(|bytes| (bytes.len(), ()));
        ends.gateway.send(&ends.to_guest);
        let alarm = ends.gateway.alarm();
        if ends.to_guest.take_all().is_empty() {
            assert!(alarm.unwrap() <= Instant::now() + PATIENCE);
            std::thread::sleep(PATIENCE);
            ends.gateway.send(&ends.to_guest);
            assert_eq!(ends.to_guest.take_all().len(), 1);
        } else {
            assert!(began.elapsed() >= PATIENCE);
        }
    }
}
