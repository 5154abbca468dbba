//! A hostile guest's frames, against the gateway: whatever comes, it goes on answering.
#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use cellule_network::dns::Servers;
use cellule_network::policy::{Base, Policy};
use cellule_network::{Config, Limits, Network};
use libfuzzer_sys::fuzz_target;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// A frame: any, or one that is nearly right.
#[derive(Debug, Arbitrary)]
enum Frame {
    Any(Vec<u8>),
    Ipv4 { protocol: Protocol, to: u8, rest: Vec<u8> },
    Ipv6 { protocol: Protocol, to: u8, rest: Vec<u8> },
    Arp(Vec<u8>),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Other(u8),
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let header = |kind: [u8; 2]| [&[2, 0xce, 0x11, 0, 0, 1, 2, 0, 0, 0, 0, 9][..], &kind].concat();
        match self {
            Self::Any(bytes) => bytes.clone(),
            Self::Arp(rest) => [header([8, 6]), vec![0, 1, 8, 0, 6, 4, 0, 1], rest.clone()].concat(),
            Self::Ipv4 { protocol, to, rest } => {
                let length = u16::try_from(rest.len() + 20).unwrap_or(u16::MAX).to_be_bytes();
                let number = protocol.number(1);
                let mut ip = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, number, 0, 0, 192, 0, 0, 2];
                ip.extend(if to % 2 == 0 { [192, 0, 0, to % 8] } else { [8, 8, 8, *to] });
                [header([8, 0]), ip, rest.clone()].concat()
            }
            Self::Ipv6 { protocol, to, rest } => {
                let length = u16::try_from(rest.len()).unwrap_or(u16::MAX).to_be_bytes();
                let mut ip = vec![0x60, 0, 0, 0, length[0], length[1], protocol.number(58), 255];
                let network = [0xfd, 0x4e, 0x7c, 0x31, 0x5a, 0x9d, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                ip.extend([&network[..], &[2], &network, &[*to]].concat());
                [header([0x86, 0xdd]), ip, rest.clone()].concat()
            }
        }
    }
}

impl Protocol {
    fn number(self, icmp: u8) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmp => icmp,
            Self::Other(number) => number,
        }
    }
}

/// A request for an echo of the gateway's, with this sequence number.
fn echo(sequence: u16) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0x77, 0x77];
    message.extend(sequence.to_be_bytes());
    Frame::Ipv4 { protocol: Protocol::Icmp, to: 0, rest: message }.bytes_to_gateway()
}

impl Frame {
    fn bytes_to_gateway(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes[33] = 1;
        bytes
    }
}

fn gateway() -> &'static Mutex<(UnixStream, Network, u16)> {
    static GATEWAY: OnceLock<Mutex<(UnixStream, Network, u16)>> = OnceLock::new();
    GATEWAY.get_or_init(|| {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs): (OwnedFd, OwnedFd) = pair.expect("there are sockets");
        let config = Config {
            // Nothing of what is fuzzed leaves this process.
            policy: Policy::new(Some(Base::None), Vec::new()).expect("no rules are a policy"),
            servers: Servers::Given { servers: Vec::new(), search: Vec::new() },
            hosts_file: false,
            exposed: [(80, 1)].into(),
            limits: Limits::default(),
            mac: [2, 0, 0, 0, 0, 9],
            lost: Vec::new(),
            secrets: None,
            neighbourhoods: Vec::new(),
            sink: Box::new(drop),
        };
        let network = Network::start(theirs, config).expect("the gateway starts");
        let link = UnixStream::from(ours);
        link.set_read_timeout(Some(Duration::from_secs(10))).expect("sockets have limits");
        link.set_write_timeout(Some(Duration::from_secs(10))).expect("sockets have limits");
        Mutex::new((link, network, 0))
    })
}

fuzz_target!(|frames: Vec<Frame>| {
    let mut guard = gateway().lock().expect("nothing panicked");
    let (link, _, sequence) = &mut *guard;
    *sequence = sequence.wrapping_add(1);
    let mut buffer = vec![0; 70_000];
    for frame in frames.iter().take(32) {
        let bytes = frame.bytes();
        if !bytes.is_empty() && bytes.len() <= 65_534 {
            link.write_all(&bytes).expect("the gateway reads");
        }
    }
    link.write_all(&echo(*sequence)).expect("the gateway reads");
    loop {
        match link.read(&mut buffer) {
            Ok(0) => panic!("the gateway is gone"),
            Ok(count) => {
                let is_answer = count >= 42
                    && buffer[23] == 1
                    && buffer[34] == 0
                    && buffer[38..40] == [0x77, 0x77]
                    && buffer[40..42] == sequence.to_be_bytes();
                if is_answer {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("the gateway does not answer: {error}"),
        }
    }
});
