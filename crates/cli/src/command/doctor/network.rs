//! What of this host's network sandboxes can use. They run without any of it.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};

use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use super::{Finding, Standing};

/// Far above any that somebody wrote.
const RESOLV_CONF_MAX: u64 = 1 << 16;
/// Somewhere in the internet, as far as routes go: nothing is sent there.
const FAR: Ipv6Addr = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1);

pub(super) fn findings() -> [Finding; 3] {
    [name_servers(), pings(), ipv6()]
}

fn name_servers() -> Finding {
    const NAME: &str = "name servers";
    const REMEDY: &str = "programs look up no names unless servers are given: run --dns IP";
    let mut text = String::new();
    let read =
        File::open("/etc/resolv.conf").and_then(|file| file.take(RESOLV_CONF_MAX).read_to_string(&mut text));
    match read.map(|_| servers(&text)) {
        Ok(servers) if !servers.is_empty() => Finding::ok(NAME, servers.join(", ")),
        Ok(_) => Finding::not(NAME, Standing::Missing, "/etc/resolv.conf names none", REMEDY),
        Err(error) => Finding::not(NAME, Standing::Missing, format!("/etc/resolv.conf: {error}"), REMEDY),
    }
}

fn servers(text: &str) -> Vec<String> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let word = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        // A link-local one has its link behind it.
        word.split('%').next()?.parse::<IpAddr>().ok().map(|_| word.to_owned())
    };
    text.lines().filter_map(address).collect()
}

fn pings() -> Finding {
    const NAME: &str = "pings";
    match socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)) {
        Ok(_) => Finding::ok(NAME, "this user may send them"),
        Err(error) => Finding::not(
            NAME,
            Standing::Unusable,
            format!("this user may not send them: {error}"),
            "programs in sandboxes get no answer to a ping: sysctl -w net.ipv4.ping_group_range='0 2147483647'",
        ),
    }
}

fn ipv6() -> Finding {
    const NAME: &str = "IPv6";
    let connected = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| socket.connect((FAR, 53)));
    match connected {
        Ok(()) => Finding::ok(NAME, "has a route"),
        Err(error) => Finding::not(
            NAME,
            Standing::Missing,
            format!("no route: {error}"),
            "not needed: programs reach the internet over IPv4",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_those_that_are_named() {
        let text = "# nameserver 192.0.2.1\nnameserver 192.0.2.2\n nameserver  fe80::1%eth0 x\nsearch a.b\nnameserver\nnameserver x\n";
        assert_eq!(servers(text), ["192.0.2.2", "fe80::1%eth0"]);
    }
}
