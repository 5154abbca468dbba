//! The addresses that are the same in every sandbox, so that a saved guest fits any network.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

pub use cellule_protocol::network::{GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, MTU, PREFIX_V4, PREFIX_V6};

/// The host's loopback services that were exposed.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 3);
/// The host's loopback services that were exposed.
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd4e, 0x7c31, 0x5a9d, 0, 0, 0, 0, 3);

/// The name of those services' address.
pub const HOST_NAME: &str = "host.cellule.internal";

/// Where neighbours are: a range for benchmarks (RFC 2544), which is nobody's on the internet.
pub(crate) const NEIGHBOURS_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);
/// Where neighbours are: beside the guest's own network.
pub(crate) const NEIGHBOURS_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd4e, 0x7c31, 0x5a9d, 1, 0, 0, 0, 0), 64);
