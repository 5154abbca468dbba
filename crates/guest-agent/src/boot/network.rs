//! Owns the network card's set-up: the addresses that every guest has, over rtnetlink.
//!
//! It is done once, at boot, so that copies of this machine find it done. Neither side ever looks for the other: no ARP, no
//! neighbour discovery, no router's advertisements. Each would cost a guest that just woke milliseconds, and an idle one
//! wake-ups.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::Path;

use cellule_protocol::network::{
    GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, INTERFACE, PREFIX_V4, PREFIX_V6,
};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use crate::fault::{Context, Fault};

const INTERFACES: &str = "/sys/class/net";
/// Settings of the kernel's, below /proc/sys/net, that must be there before the card is up.
const SETTINGS: [(&str, &str); 3] = [
    // No address of its own making, and no router that it looks for.
    ("ipv6/conf/eth0/addr_gen_mode", "1"),
    ("ipv6/conf/eth0/accept_ra", "0"),
    ("ipv6/conf/eth0/router_solicitations", "0"),
];

/// Sets the card up.
pub(super) fn set_up() -> Result<(), Fault> {
    let index = name_card()?;
    let has_v6 = Path::new("/proc/sys/net/ipv6").exists();
    for (name, value) in SETTINGS.iter().filter(|_| has_v6) {
        fs::write(Path::new("/proc/sys/net").join(name), value).context(format_args!("set {name}"))?;
    }
    let mut route = Route::open()?;
    route.ask(&Message::link_up(index)).context(format_args!("bring {INTERFACE} up"))?;
    let v4 = (IpAddr::V4(GUEST_V4), PREFIX_V4, IpAddr::V4(GATEWAY_V4), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let v6 = (IpAddr::V6(GUEST_V6), PREFIX_V6, IpAddr::V6(GATEWAY_V6), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    for (guest, prefix, gateway, all) in [Some(v4), has_v6.then_some(v6)].into_iter().flatten() {
        route
            .ask(&Message::address(index, guest, prefix))
            .context(format_args!("give {INTERFACE} the address {guest}"))?;
        route
            .ask(&Message::route(index, all, gateway))
            .context(format_args!("set the route by {gateway}"))?;
    }
    Ok(())
}

/// Finds the one Ethernet interface, sees to its name, and gives its index.
fn name_card() -> Result<u32, Fault> {
    let cards: Vec<_> = fs::read_dir(INTERFACES)
        .context(format_args!("list {INTERFACES}"))?
        .flatten()
        .filter(|entry| read(&entry.path().join("type")) == libc::ARPHRD_ETHER.to_string())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    match cards.as_slice() {
        [name] if name == INTERFACE => {
            let index = read(&Path::new(INTERFACES).join(name).join("ifindex"));
            index.parse().context(format_args!("read the index of {name}"))
        }
        [] => Err(Fault::new("the machine has no network card")),
        // The kernel counts from zero, and no kernel of a guest has anybody who gives other names.
        cards => Err(Fault::new(format!("the machine's network cards are {cards:?} and not {INTERFACE}"))),
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

/// The kernel's end for such messages.
struct Route(OwnedFd);

impl Route {
    fn open() -> Result<Self, Fault> {
        // No protocol is number 0, `NETLINK_ROUTE`.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        Ok(Self(socket.context("open a netlink socket")?))
    }

    /// Sends a message, and waits for the kernel's word on it, which comes with the call itself.
    fn ask(&mut self, message: &Message) -> Result<(), Errno> {
        sendto(&self.0, &message.finished(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 1024];
        let (length, _) = recv(&self.0, answer.as_mut_slice(), RecvFlags::DONTWAIT)?;
        verdict(&answer[..length.min(answer.len())])
    }
}

/// What an answer says: a header, and the negated number of an error, or zero.
fn verdict(answer: &[u8]) -> Result<(), Errno> {
    let number = |from: usize| answer.get(from..from + 4)?.try_into().ok().map(i32::from_ne_bytes);
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    match (kind.map(i32::from), number(HEADER)) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(error @ -4095..0)) => Err(Errno::from_raw_os_error(-error)),
        _ => Err(Errno::PROTO),
    }
}

const HEADER: usize = 16;

/// A message of rtnetlink: a header, what the kind has at its beginning, and attributes, all in the processor's order of bytes.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32, begins: &[&[u8]]) -> Self {
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags).unwrap_or_default();
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend(begins.concat());
        Self(bytes)
    }

    /// Up, and without looking for neighbours: the hardware address that frames go to is then the card's own.
    fn link_up(index: u32) -> Self {
        let flags = (libc::IFF_UP | libc::IFF_NOARP).to_ne_bytes();
        Self::new(libc::RTM_NEWLINK, 0, &[&[0; 4], &index.to_ne_bytes(), &flags, &flags])
    }

    fn address(index: u32, address: IpAddr, prefix: u8) -> Self {
        // Nobody else has it: there is nothing to find out first.
        let flags = u8::try_from(libc::IFA_F_NODAD).unwrap_or_default();
        let begins: [&[u8]; 2] =
            [&[family(address), prefix, flags, libc::RT_SCOPE_UNIVERSE], &index.to_ne_bytes()];
        let new = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let bytes = bytes(address);
        Self::new(libc::RTM_NEWADDR, new, &begins)
            .with(libc::IFA_LOCAL, &bytes)
            .with(libc::IFA_ADDRESS, &bytes)
    }

    /// All that is nowhere else goes to the gateway.
    fn route(index: u32, all: IpAddr, gateway: IpAddr) -> Self {
        let begins: [&[u8]; 2] = [
            &[family(all), 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, libc::RT_SCOPE_UNIVERSE],
            &[libc::RTN_UNICAST, 0, 0, 0, 0],
        ];
        let new = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        Self::new(libc::RTM_NEWROUTE, new, &begins)
            .with(libc::RTA_GATEWAY, &bytes(gateway))
            .with(libc::RTA_OIF, &index.to_ne_bytes())
    }

    /// Adds an attribute, whose value is a multiple of four bytes.
    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self
    }

    fn finished(&self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        [&length.to_ne_bytes(), &self.0[4..]].concat()
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or_default()
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_long_as_it_says_and_its_attributes_follow() {
        let message = Message::address(2, IpAddr::V4(GUEST_V4), PREFIX_V4).finished();
        let head = [40, 0, 0, 0, 20, 0, 0x05, 0x05, 0, 0, 0, 0, 0, 0, 0, 0];
        let body = [2, 29, 2, 0, 2, 0, 0, 0, 8, 0, 2, 0, 192, 0, 0, 2, 8, 0, 1, 0, 192, 0, 0, 2];
        assert_eq!(message, [&head[..], &body].concat());
    }

    #[test]
    fn an_answer_is_success_or_an_error_and_anything_else_is_no_answer() {
        let answer =
            |kind: u8, error: i32| [&[20, 0, 0, 0, kind, 0], &[0; 10][..], &error.to_ne_bytes()].concat();
        assert_eq!(verdict(&answer(2, 0)), Ok(()));
        assert_eq!(verdict(&answer(2, -19)), Err(Errno::NODEV));
        assert_eq!(verdict(&answer(3, 0)), Err(Errno::PROTO));
        assert_eq!(verdict(&answer(2, 0)[..18]), Err(Errno::PROTO));
        assert_eq!(verdict(&answer(2, i32::MIN)), Err(Errno::PROTO));
    }
}
