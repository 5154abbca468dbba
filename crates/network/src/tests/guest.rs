//! Owns the guest of the tests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, HardwareAddress, IpAddress, IpCidr, IpEndpoint,
    IpProtocol, IpRepr, Ipv4Packet, UdpPacket, UdpRepr,
};
use tokio::net::UnixStream;

use crate::address::{GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, MTU, PREFIX_V4, PREFIX_V6};
use crate::link::GATEWAY_MAC;

pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const BUFFER: usize = 256 << 10;

/// A guest's whole network.
pub(super) struct Guest {
    link: UnixStream,
    interface: Interface,
    sockets: SocketSet<'static>,
    card: Card,
    /// IP packets that came and are no TCP of the stack's, kept for tests that look at them.
    pub(super) seen: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Card {
    arrived: VecDeque<Vec<u8>>,
    leaving: VecDeque<Vec<u8>>,
}

impl Guest {
    pub(super) fn new(link: OwnedFd) -> Self {
        let link = std::os::unix::net::UnixStream::from(link);
        link.set_nonblocking(true).unwrap();
        let link = UnixStream::from_std(link).unwrap();
        let mut card = Card::default();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
        config.random_seed = 3;
        let mut interface = Interface::new(config, &mut card, Instant::now());
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(GUEST_V4.into(), PREFIX_V4)).unwrap();
            addresses.push(IpCidr::new(GUEST_V6.into(), PREFIX_V6)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY_V4).unwrap();
        interface.routes_mut().add_default_ipv6_route(GATEWAY_V6).unwrap();
        let sockets = SocketSet::new(Vec::new());
        Self { link, interface, sockets, card, seen: Vec::new() }
    }

    /// Lets everything go on for a moment.
    pub(super) async fn rest(&mut self) {
        self.turn();
        tokio::time::sleep(Duration::from_micros(300)).await;
    }

    fn turn(&mut self) {
        let mut buffer = vec![0; MTU + 100];
        while let Ok(count @ 1..) = self.link.try_read(&mut buffer) {
            let frame = buffer[..count].to_vec();
            assert!(frame.len() <= MTU + 14, "{} bytes", frame.len());
            self.keep(&frame);
            self.card.arrived.push_back(frame);
        }
        self.interface.poll(Instant::now(), &mut self.card, &mut self.sockets);
        while let Some(frame) = self.card.leaving.front() {
            if self.link.try_write(frame).is_err() {
                break;
            }
            self.card.leaving.pop_front();
        }
    }

    fn keep(&mut self, frame: &[u8]) {
        let frame = EthernetFrame::new_checked(frame).unwrap();
        let is_tcp = match frame.ethertype() {
            EthernetProtocol::Ipv4 => {
                Ipv4Packet::new_checked(frame.payload()).unwrap().next_header() == IpProtocol::Tcp
            }
            EthernetProtocol::Ipv6 => frame.payload()[6] == 6,
            _ => true,
        };
        if !is_tcp {
            self.seen.push(frame.payload().to_vec());
        }
    }

    /// Sends a frame as it is.
    pub(super) fn send_frame(&mut self, frame: &[u8]) {
        self.card.push(frame);
    }

    /// Sends an IP packet in a frame of its own.
    pub(super) fn send_packet(&mut self, packet: &[u8]) {
        let kind: [u8; 2] =
            if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
        let frame = [&GATEWAY_MAC[..], &MAC, &kind, packet].concat();
        self.send_frame(&frame);
    }

    /// Sends a datagram.
    pub(super) fn send_datagram(&mut self, from: u16, to: SocketAddr, data: &[u8]) {
        let packet = datagram(from, to, data);
        self.send_packet(&packet);
    }

    /// The first datagram that comes to `port`.
    pub(super) async fn datagram(&mut self, port: u16) -> (SocketAddr, Vec<u8>) {
        loop {
            self.rest().await;
            let found =
                self.seen.iter().position(|packet| to_port(packet).is_some_and(|(to, ..)| to == port));
            if let Some(found) = found {
                let packet = self.seen.remove(found);
                let (_, from, data) = to_port(&packet).unwrap();
                return (from, data);
            }
        }
    }

    /// The next packet that is no TCP.
    pub(super) async fn packet(&mut self) -> Vec<u8> {
        while self.seen.is_empty() {
            self.rest().await;
        }
        self.seen.remove(0)
    }

    /// Knows a socket no more, without a word to the other end.
    pub(super) fn forget(&mut self, socket: SocketHandle) {
        self.sockets.remove(socket);
    }

    pub(super) fn connect(&mut self, port: u16, to: &str) -> SocketHandle {
        let handle = self.sockets.add(socket());
        let to: SocketAddr = to.parse().unwrap();
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        let remote = IpEndpoint::new(IpAddress::from(to.ip()), to.port());
        socket.connect(self.interface.context(), remote, port).unwrap();
        handle
    }

    pub(super) fn listen(&mut self, port: u16) -> SocketHandle {
        let mut socket = socket();
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Goes on until it is so.
    pub(super) async fn until(
        &mut self,
        handle: SocketHandle,
        mut done: impl FnMut(&mut Socket<'static>) -> bool,
    ) {
        while !done(self.socket(handle)) {
            self.rest().await;
        }
    }

    pub(super) async fn write(&mut self, handle: SocketHandle, mut data: &[u8]) {
        while !data.is_empty() {
            let sent = self.socket(handle).send_slice(data).unwrap();
            data = &data[sent..];
            self.rest().await;
        }
    }

    pub(super) async fn read(&mut self, handle: SocketHandle, count: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < count {
            self.rest().await;
            let socket = self.socket(handle);
            if socket.can_recv() {
                let part = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
                data.extend(part);
            }
        }
        data
    }
}

fn socket() -> Socket<'static> {
    let mut socket = Socket::new(SocketBuffer::new(vec![0; BUFFER]), SocketBuffer::new(vec![0; BUFFER]));
    socket.set_nagle_enabled(false);
    socket
}

/// A datagram from the guest, as a packet.
pub(super) fn datagram(from: u16, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: from, dst_port: to.port() };
    let source = if to.is_ipv4() { IpAddress::from(GUEST_V4) } else { IpAddress::from(GUEST_V6) };
    let target = IpAddress::from(to.ip());
    let ip = IpRepr::new(source, target, IpProtocol::Udp, udp.header_len() + data.len(), 64);
    let mut packet = vec![0; ip.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut packet[..], &checksums);
    let rest = &mut packet[ip.header_len()..];
    let fill = |space: &mut [u8]| space.copy_from_slice(data);
    udp.emit(&mut UdpPacket::new_unchecked(rest), &source, &target, data.len(), fill, &checksums);
    packet
}

/// Which port an IPv4 datagram is for, where it comes from, and what it says.
fn to_port(packet: &[u8]) -> Option<(u16, SocketAddr, Vec<u8>)> {
    let ip = Ipv4Packet::new_checked(packet).ok().filter(|ip| ip.version() == 4)?;
    if ip.next_header() != IpProtocol::Udp {
        return None;
    }
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    Some((udp.dst_port(), (ip.src_addr(), udp.src_port()).into(), udp.payload().to_vec()))
}

impl Card {
    fn push(&mut self, frame: &[u8]) {
        self.leaving.push_back(frame.to_vec());
    }
}

impl Device for Card {
    type RxToken<'t> = Arrived;
    type TxToken<'t> = Leaves<'t>;

    fn receive(&mut self, _now: Instant) -> Option<(Arrived, Leaves<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((Arrived(frame), Leaves(self)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Leaves<'_>> {
        (self.leaving.len() < 64).then_some(Leaves(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU + 14;
        capabilities
    }
}

pub(super) struct Arrived(Vec<u8>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

pub(super) struct Leaves<'a>(&'a mut Card);

impl TxToken for Leaves<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let result = fill(&mut frame);
        self.0.push(&frame);
        result
    }
}
