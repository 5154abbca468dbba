//! Owns what host and guest both know of the network between them, without a word: it is the same in every sandbox, so that a
//! saved guest fits any network.
//!
//! 192.0.0.0/29 is set aside for the inside of one host (RFC 7335): no network that a host is in has it, so it hides nothing.
//! The guest asks nobody for the gateway's hardware address: whatever it sends is for the gateway.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The gateway: the guest's router and name server.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
/// The guest.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);
/// How many bits of an address the guest's network has.
pub const PREFIX_V4: u8 = 29;

/// The gateway. A network of its own that was drawn once (RFC 4193).
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd4e, 0x7c31, 0x5a9d, 0, 0, 0, 0, 1);
/// The guest.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd4e, 0x7c31, 0x5a9d, 0, 0, 0, 0, 2);
/// How many bits of an address the guest's network has.
pub const PREFIX_V6: u8 = 64;

/// The largest packet on the link, headers of IP included. Nothing is between the two ends of it but memory, so that packets
/// are large: each costs the guest and the gateway about the same, whatever its size.
pub const MTU: usize = 65_520;

/// The name of the guest's card.
pub const INTERFACE: &str = "eth0";

/// The hardware address of a card.
pub type Mac = [u8; 6];
