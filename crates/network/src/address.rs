//! The addresses that are the same in every sandbox, so that a saved guest fits any network.

use std::net::{Ipv4Addr, Ipv6Addr};

pub use cellule_protocol::network::{GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, MTU, PREFIX_V4, PREFIX_V6};

/// The host's loopback services that were exposed.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 3);
/// The host's loopback services that were exposed.
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd4e, 0x7c31, 0x5a9d, 0, 0, 0, 0, 3);

/// The name of those services' address.
pub const HOST_NAME: &str = "host.cellule.internal";
