//! Owns the way to the host's network: sockets that anybody's program could open.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;
use tokio::net::TcpStream;

/// The network of the host.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// Where the tests have what would be elsewhere.
    #[cfg(test)]
    pub(crate) redirect: std::collections::HashMap<SocketAddr, SocketAddr>,
}

impl Outside {
    #[cfg(test)]
    fn place(&self, to: SocketAddr) -> SocketAddr {
        self.redirect.get(&to).copied().unwrap_or(to)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests have places of their own")]
    fn place(&self, to: SocketAddr) -> SocketAddr {
        to
    }

    /// Connects.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.place(to)).await?;
        stream.set_nodelay(true)?;
        // The guest's own probes are answered by the gateway: ours find out whether the other side is there.
        socket2::SockRef::from(&stream).set_keepalive(true)?;
        Ok(stream)
    }

    /// A socket that sends to `to` and gets from nobody else.
    pub(crate) fn datagrams(&self, to: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
        let to = self.place(to);
        let socket = UdpSocket::bind(unspecified(to.ip()))?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        tokio::net::UdpSocket::from_std(socket)
    }
}

fn unspecified(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Whether `address` is one of this host's own at this moment.
pub(crate) fn is_own(address: IpAddr) -> bool {
    // A socket can have any of them, those of ranges included that no interface lists.
    if let Err(error) = UdpSocket::bind((address, 0)) {
        return !is_of_others(&error);
    }
    if !binds_anywhere(address) {
        return true;
    }
    // Without a list everything is.
    if_addrs::get_if_addrs().map_or(true, |own| own.iter().any(|own| own.ip() == address))
}

/// Whether a socket could not have an address because it is another host's, or the host has none of its family. What cannot be told, as
/// when descriptors run out, is taken for the host's own.
fn is_of_others(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::INVAL | Errno::AFNOSUPPORT))
}

/// Whether the host lets sockets have others' addresses too.
fn binds_anywhere(like: IpAddr) -> bool {
    let family = if like.is_ipv4() { "ipv4" } else { "ipv6" };
    let setting = std::fs::read_to_string(format!("/proc/sys/net/{family}/ip_nonlocal_bind"));
    setting.is_ok_and(|setting| setting.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_tried_is_taken_for_the_hosts_own() {
        for (errno, of_others) in [
            (Errno::ADDRNOTAVAIL, true),
            (Errno::MFILE, false),
            (Errno::NFILE, false),
            (Errno::NOBUFS, false),
        ] {
            assert_eq!(is_of_others(&errno.into()), of_others, "{errno:?}");
        }
    }

    #[test]
    fn the_hosts_addresses_are_told_from_others() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(is_own(Ipv4Addr::new(127, 3, 4, 5).into()));
        assert!(!is_own(Ipv4Addr::new(203, 0, 113, 9).into()));
    }
}
