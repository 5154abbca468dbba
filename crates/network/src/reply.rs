//! Owns the packets that the gateway makes itself: answers to a guest that have no connection behind them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr,
    IpAddress, IpProtocol, IpRepr, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber, UdpPacket, UdpRepr,
};

use crate::address::{GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, MTU};
use crate::link::{Carries, GATEWAY_MAC, Mac};
use crate::outbox::Outbox;
use crate::packet::Packet;

/// How much of a packet an error gives back: what fits the smallest packet that every host takes.
const QUOTED_V4: usize = 548;
const QUOTED_V6: usize = 1232;

/// Why a packet did not get where it was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// It may not.
    Prohibited,
    /// There is no way.
    Network,
    /// Nobody is there.
    Host,
    /// Nobody listens.
    Port,
    /// Nobody speaks that protocol.
    Protocol,
}

impl Unreachable {
    /// Its code in ICMP, and the one in the ICMP of IPv6.
    fn codes(self) -> (u8, u8) {
        match self {
            Self::Prohibited => (13, 1),
            Self::Network => (0, 0),
            Self::Host => (1, 3),
            Self::Port => (3, 4),
            Self::Protocol => (2, 3),
        }
    }
}

fn guest_of(remote: IpAddr) -> IpAddr {
    if remote.is_ipv4() { GUEST_V4.into() } else { GUEST_V6.into() }
}

fn header(from: IpAddr, protocol: IpProtocol, length: usize) -> IpRepr {
    IpRepr::new(IpAddress::from(from), IpAddress::from(guest_of(from)), protocol, length, 64)
}

/// Writes a packet from `from` to the guest.
fn packet(outbox: &Outbox, from: IpAddr, protocol: IpProtocol, length: usize, fill: impl FnOnce(&mut [u8])) {
    let ip = header(from, protocol, length);
    if ip.header_len() + length > MTU {
        return;
    }
    _ = outbox.push(None, ip.header_len() + length, |bytes| {
        ip.emit(&mut *bytes, &ChecksumCapabilities::default());
        fill(&mut bytes[ip.header_len()..]);
    });
}

/// Here it is: every address of the guest's network that is not its own is the gateway's to answer for.
pub(crate) fn is_at(outbox: &Outbox, address: Ipv4Addr, asks: Ipv4Addr, mac: Mac) {
    let answer = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(GATEWAY_MAC),
        source_protocol_addr: address,
        target_hardware_addr: EthernetAddress(mac),
        target_protocol_addr: asks,
    };
    _ = outbox.push(Some(Carries::Arp), answer.buffer_len(), |bytes| {
        answer.emit(&mut ArpPacket::new_unchecked(bytes));
    });
}

/// The same for IPv6.
pub(crate) fn is_at_v6(outbox: &Outbox, address: Ipv6Addr) {
    let answer = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
        target_addr: address,
        lladdr: Some(EthernetAddress(GATEWAY_MAC).into()),
    });
    let length = answer.buffer_len();
    let ip = IpRepr::Ipv6(Ipv6Repr {
        src_addr: address,
        dst_addr: GUEST_V6,
        next_header: IpProtocol::Icmpv6,
        payload_len: length,
        hop_limit: 255,
    });
    _ = outbox.push(None, ip.header_len() + length, |bytes| {
        ip.emit(&mut *bytes, &ChecksumCapabilities::default());
        let rest = &mut bytes[ip.header_len()..];
        answer.emit(
            &address,
            &GUEST_V6,
            &mut Icmpv6Packet::new_unchecked(rest),
            &ChecksumCapabilities::default(),
        );
    });
}

/// Tells the guest that a packet of its did not get there.
pub(crate) fn unreachable(outbox: &Outbox, of: &Packet<'_>, why: Unreachable) {
    quote(outbox, of.to, of.bytes, why);
}

/// The same of the beginning of a packet that was kept.
pub(crate) fn quote(outbox: &Outbox, to: IpAddr, bytes: &[u8], why: Unreachable) {
    // A router speaks in its own name.
    let (from, quoted): (IpAddr, _) = match to {
        IpAddr::V4(_) => (GATEWAY_V4.into(), QUOTED_V4),
        IpAddr::V6(_) => (GATEWAY_V6.into(), QUOTED_V6),
    };
    let quoted = &bytes[..bytes.len().min(quoted)];
    let (code_v4, code_v6) = why.codes();
    let protocol = if to.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
    packet(outbox, from, protocol, 8 + quoted.len(), |bytes| {
        bytes[8..].copy_from_slice(quoted);
        if to.is_ipv4() {
            let mut icmp = Icmpv4Packet::new_unchecked(bytes);
            icmp.set_msg_type(smoltcp::wire::Icmpv4Message::DstUnreachable);
            icmp.set_msg_code(code_v4);
            icmp.fill_checksum();
        } else {
            let mut icmp = Icmpv6Packet::new_unchecked(bytes);
            icmp.set_msg_type(smoltcp::wire::Icmpv6Message::DstUnreachable);
            icmp.set_msg_code(code_v6);
            icmp.fill_checksum(&GATEWAY_V6, &GUEST_V6);
        }
    });
}

/// Resets the connection that a segment belongs to, in the name of its other end.
pub(crate) fn reset(outbox: &Outbox, remote: IpAddr, segment: &TcpPacket<&[u8]>) {
    if segment.rst() {
        return;
    }
    // As RFC 9293 has it for a connection that is not there.
    let (seq_number, ack_number) = if segment.ack() {
        (segment.ack_number(), None)
    } else {
        (TcpSeqNumber(0), Some(segment.seq_number() + segment.segment_len()))
    };
    let (from, to) = (segment.dst_port(), segment.src_port());
    bare(outbox, SocketAddr::new(remote, from), to, TcpControl::Rst, seq_number, ack_number);
}

/// Asks the guest about a connection that is not there, as a new one of the same name: it answers with where that connection stands,
/// which is what a reset must know to count (RFC 5961).
pub(crate) fn ask_about(outbox: &Outbox, remote: SocketAddr, guest_port: u16, seed: u64) {
    let [a, b, c, d, ..] = seed.to_ne_bytes();
    let number = TcpSeqNumber(i32::from_ne_bytes([a, b, c, d]));
    bare(outbox, remote, guest_port, TcpControl::Syn, number, None);
}

/// A segment that says nothing but this.
fn bare(
    outbox: &Outbox,
    remote: SocketAddr,
    guest_port: u16,
    control: TcpControl,
    seq_number: TcpSeqNumber,
    ack_number: Option<TcpSeqNumber>,
) {
    let segment = TcpRepr {
        src_port: remote.port(),
        dst_port: guest_port,
        control,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let remote = remote.ip();
    let (from, to) = (IpAddress::from(remote), IpAddress::from(guest_of(remote)));
    packet(outbox, remote, IpProtocol::Tcp, segment.buffer_len(), |bytes| {
        segment.emit(&mut TcpPacket::new_unchecked(bytes), &from, &to, &ChecksumCapabilities::default());
    });
}

/// A datagram for the guest.
pub(crate) fn datagram(outbox: &Outbox, (remote, port): (IpAddr, u16), guest_port: u16, data: &[u8]) {
    let udp = UdpRepr { src_port: port, dst_port: guest_port };
    let (from, to) = (IpAddress::from(remote), IpAddress::from(guest_of(remote)));
    packet(outbox, remote, IpProtocol::Udp, udp.header_len() + data.len(), |bytes| {
        let fill = |rest: &mut [u8]| rest.copy_from_slice(data);
        udp.emit(
            &mut UdpPacket::new_unchecked(bytes),
            &from,
            &to,
            data.len(),
            fill,
            &ChecksumCapabilities::default(),
        );
    });
}

/// The answer to a ping.
pub(crate) fn echo(outbox: &Outbox, remote: IpAddr, (ident, seq_no): (u16, u16), data: &[u8]) {
    match remote {
        IpAddr::V4(_) => {
            let answer = Icmpv4Repr::EchoReply { ident, seq_no, data };
            packet(outbox, remote, IpProtocol::Icmp, answer.buffer_len(), |bytes| {
                answer.emit(&mut Icmpv4Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
            });
        }
        IpAddr::V6(address) => {
            let answer = Icmpv6Repr::EchoReply { ident, seq_no, data };
            packet(outbox, remote, IpProtocol::Icmpv6, answer.buffer_len(), |bytes| {
                let icmp = &mut Icmpv6Packet::new_unchecked(bytes);
                answer.emit(&address, &GUEST_V6, icmp, &ChecksumCapabilities::default());
            });
        }
    }
}
