//! What kind of network an address is in, and so whether it is part of the internet.
//!
//! The ranges are those of IANA's special-purpose registries (RFC 6890). An IPv6 address that a tunnel or a translator turns into an IPv4
//! address is judged by that one: else `64:ff9b::a9fe:a9fe` would be a way round the refusal of `169.254.169.254`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of network an address is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// The internet: all that is nothing else.
    Public,
    /// Networks that are private to a site.
    Private,
    /// The link alone.
    LinkLocal,
    /// Between a provider's customers and its address translation.
    SharedNat,
    /// Where a cloud has its metadata service, if not at a link-local address. Some are in public ranges.
    Metadata,
    /// The host itself.
    Loopback,
    /// No host. Linux takes `0.0.0.0` for the host itself.
    Unspecified,
    /// Groups of hosts.
    Multicast,
    /// All hosts.
    Broadcast,
    /// Documentation, benchmarks, protocols' own, tunnels, and what was not given to anybody yet.
    Reserved,
}

impl AddressClass {
    /// The class of an address, in whatever form it is written.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => match (Self::of_prefix(address), embedded(address)) {
                (class @ (Self::Public | Self::Reserved), Some(inner)) => match Self::of_v4(inner) {
                    Self::Public => class,
                    inner => inner,
                },
                (class, _) => class,
            },
        }
    }

    /// Whether no policy can allow it: a connection would end at the gateway's own host, or at no host in particular.
    pub fn is_never(self) -> bool {
        matches!(self, Self::Loopback | Self::Unspecified | Self::Multicast | Self::Broadcast)
    }

    // Single addresses that the registries call global although they are in a reserved block (192.0.0.9, 2001:1::1 and such) are anycast
    // of a protocol that nothing in a sandbox speaks: they stay reserved.
    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            // Azure, Alibaba Cloud, Oracle Cloud.
            [168, 63, 129, 16] | [100, 100, 100, 200] | [192, 0, 0, 192] => Self::Metadata,
            [0, ..] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [169, 254, ..] => Self::LinkLocal,
            [100, 64..=127, ..] => Self::SharedNat,
            [224..=239, ..] => Self::Multicast,
            [255, 255, 255, 255] => Self::Broadcast,
            [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [240..=255, ..] => Self::Reserved,
            _ => Self::Public,
        }
    }

    fn of_prefix(address: Ipv6Addr) -> Self {
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Unspecified,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            // Amazon, Google, Scaleway.
            [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254]
            | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254]
            | [0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042] => Self::Metadata,
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Private,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xff00..=0xffff, ..] => Self::Multicast,
            // 6to4 and Teredo (in 2001::/23) were given up years ago. Where they still are set up, a relay that nobody knows carries them:
            // refused, whatever is in them.
            [0x2002, ..] | [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Self::Reserved,
            // Global unicast and NAT64. A host without IPv4 reaches the IPv4 internet in no other way: public if what is in it is.
            [0x2000..=0x3fff, ..] | [0x0064, 0xff9b, 0, 0, 0, 0, ..] => Self::Public,
            _ => Self::Reserved,
        }
    }
}

/// The IPv4 address that a tunnel or a translator would make of an address, if it is of a form that says so.
///
/// A translator of an operator's own prefix cannot be seen from the address.
pub fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => address.to_ipv4_mapped().or_else(|| embedded(address)),
    }
}

fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match address.segments() {
        // A NAT64 of a site has it where the site wants: zeros say that it is not at the end.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] | [0x0064, 0xff9b, 1, .., 0, 0] => return None,
        // Teredo has it inverted.
        [0x2001, 0, .., high, low] => (!high, !low),
        // Compatible, translated (RFC 2765), NAT64, 6to4; and ISATAP, whatever the prefix.
        [0, 0, 0, 0, 0 | 0xffff, 0, high, low]
        | [0x0064, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x0064, 0xff9b, 1, .., high, low]
        | [0x2002, high, low, ..]
        | [_, _, _, _, 0 | 0x0200, 0x5efe, high, low] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address (cloud metadata is there)",
            Self::SharedNat => "an address behind a provider's NAT",
            Self::Metadata => "a cloud's metadata address",
            Self::Loopback => "a loopback address",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Reserved => "a reserved address",
        })
    }
}

#[cfg(test)]
mod tests;
