//! Owns what a guest's frame is taken for: read once, checked, and refused unless it comes from the one address that a guest has.
//!
//! Fragments are refused: the link carries packets of 64 KiB, so that no honest guest makes any. So are extension headers of IPv6, of
//! which no program of a guest needs one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol,
    Ipv4Packet, Ipv6Packet, NdiscRepr, TcpPacket, UdpPacket,
};

use crate::address::{GUEST_V4, GUEST_V6};
use crate::link::{Carries, HEADER, Mac};

/// A frame that is worth an answer, or goes out.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    /// Who has this address?
    WhoHas4 { address: Ipv4Addr, asks: Ipv4Addr, mac: Mac },
    /// The same of IPv6.
    WhoHas6 { address: Ipv6Addr },
    /// A packet from the guest's address.
    Packet(Packet<'a>),
}

/// A packet from the guest's address.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    /// Where it goes.
    pub(crate) to: IpAddr,
    /// All of it, without what the frame had behind it.
    pub(crate) bytes: &'a [u8],
    pub(crate) payload: Payload<'a>,
}

/// What a packet carries.
#[derive(Debug)]
pub(crate) enum Payload<'a> {
    Tcp(TcpPacket<&'a [u8]>),
    Udp {
        from: u16,
        to: u16,
        data: &'a [u8],
    },
    /// A request for an echo.
    Echo {
        ident: u16,
        sequence: u16,
        data: &'a [u8],
    },
    /// Some other protocol.
    Other,
}

/// Why a frame is dropped without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It is not what it says it is.
    Malformed,
    /// It comes from an address that the guest does not have.
    Spoofed,
    /// A part of a packet, or a packet with extension headers.
    Fragment,
    /// Something for which there is no answer here.
    Nothing,
}

/// Reads a frame.
pub(crate) fn parse(frame: &[u8]) -> Result<Frame<'_>, Dropped> {
    let carries = Carries::from_header(frame).ok_or(Dropped::Nothing)?;
    let rest = frame.get(HEADER..).ok_or(Dropped::Malformed)?;
    match carries {
        Carries::Arp => arp(rest),
        Carries::Ipv4 => ipv4(rest),
        Carries::Ipv6 => ipv6(rest),
    }
}

/// Who sent it, as the frame says.
pub(crate) fn sender(frame: &[u8]) -> Option<Mac> {
    let mac: Mac = frame.get(6..12)?.try_into().ok()?;
    // Neither a group's nor nobody's.
    (mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

fn arp(bytes: &[u8]) -> Result<Frame<'_>, Dropped> {
    let packet = ArpPacket::new_checked(bytes).map_err(|_| Dropped::Malformed)?;
    match ArpRepr::parse(&packet).map_err(|_| Dropped::Malformed)? {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_protocol_addr: asks,
            source_hardware_addr: mac,
            target_protocol_addr: address,
            ..
        } => Ok(Frame::WhoHas4 { address, asks, mac: mac.0 }),
        _ => Err(Dropped::Nothing),
    }
}

fn ipv4(bytes: &[u8]) -> Result<Frame<'_>, Dropped> {
    let packet = Ipv4Packet::new_checked(bytes).map_err(|_| Dropped::Malformed)?;
    let (header, total) = (usize::from(packet.header_len()), usize::from(packet.total_len()));
    if packet.version() != 4 || header < 20 {
        return Err(Dropped::Malformed);
    }
    if packet.src_addr() != GUEST_V4 {
        return Err(Dropped::Spoofed);
    }
    if packet.more_frags() || packet.frag_offset() != 0 {
        return Err(Dropped::Fragment);
    }
    let bytes = bytes.get(..total).ok_or(Dropped::Malformed)?;
    let payload = bytes.get(header..).ok_or(Dropped::Malformed)?;
    let to = packet.dst_addr().into();
    let payload = match packet.next_header() {
        IpProtocol::Tcp => tcp(payload)?,
        IpProtocol::Udp => udp(payload)?,
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(payload).map_err(|_| Dropped::Malformed)?;
            if icmp.msg_type() != Icmpv4Message::EchoRequest {
                return Err(Dropped::Nothing);
            }
            Payload::Echo { ident: icmp.echo_ident(), sequence: icmp.echo_seq_no(), data: icmp.data() }
        }
        _ => Payload::Other,
    };
    Ok(Frame::Packet(Packet { to, bytes, payload }))
}

fn ipv6(bytes: &[u8]) -> Result<Frame<'_>, Dropped> {
    let packet = Ipv6Packet::new_checked(bytes).map_err(|_| Dropped::Malformed)?;
    if packet.version() != 6 {
        return Err(Dropped::Malformed);
    }
    let bytes = bytes.get(..packet.total_len()).ok_or(Dropped::Malformed)?;
    let payload = bytes.get(packet.header_len()..).ok_or(Dropped::Malformed)?;
    if packet.next_header() == IpProtocol::Icmpv6 {
        let icmp = Icmpv6Packet::new_checked(payload).map_err(|_| Dropped::Malformed)?;
        if icmp.msg_type() == Icmpv6Message::NeighborSolicit {
            return neighbor(&packet, &icmp);
        }
    }
    if packet.src_addr() != GUEST_V6 {
        return Err(Dropped::Spoofed);
    }
    let to = packet.dst_addr().into();
    let payload = match packet.next_header() {
        IpProtocol::Tcp => tcp(payload)?,
        IpProtocol::Udp => udp(payload)?,
        IpProtocol::Icmpv6 => {
            let icmp = Icmpv6Packet::new_checked(payload).map_err(|_| Dropped::Malformed)?;
            if icmp.msg_type() != Icmpv6Message::EchoRequest {
                return Err(Dropped::Nothing);
            }
            Payload::Echo { ident: icmp.echo_ident(), sequence: icmp.echo_seq_no(), data: icmp.payload() }
        }
        IpProtocol::HopByHop | IpProtocol::Ipv6Frag | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => {
            return Err(Dropped::Fragment);
        }
        _ => Payload::Other,
    };
    Ok(Frame::Packet(Packet { to, bytes, payload }))
}

fn neighbor<'a>(packet: &Ipv6Packet<&'a [u8]>, icmp: &Icmpv6Packet<&'a [u8]>) -> Result<Frame<'a>, Dropped> {
    // One that was routed here is not a neighbor's.
    if packet.hop_limit() != 255 || packet.src_addr() != GUEST_V6 {
        return Err(Dropped::Spoofed);
    }
    match NdiscRepr::parse(icmp) {
        Ok(NdiscRepr::NeighborSolicit { target_addr, .. }) => Ok(Frame::WhoHas6 { address: target_addr }),
        _ => Err(Dropped::Malformed),
    }
}

fn tcp(bytes: &[u8]) -> Result<Payload<'_>, Dropped> {
    let packet = TcpPacket::new_checked(bytes).map_err(|_| Dropped::Malformed)?;
    if packet.src_port() == 0 || packet.dst_port() == 0 {
        return Err(Dropped::Malformed);
    }
    Ok(Payload::Tcp(packet))
}

fn udp(bytes: &[u8]) -> Result<Payload<'_>, Dropped> {
    let packet = UdpPacket::new_checked(bytes).map_err(|_| Dropped::Malformed)?;
    let (from, to) = (packet.src_port(), packet.dst_port());
    if from == 0 || to == 0 {
        return Err(Dropped::Malformed);
    }
    let data = bytes.get(8..usize::from(packet.len())).ok_or(Dropped::Malformed)?;
    Ok(Payload::Udp { from, to, data })
}
