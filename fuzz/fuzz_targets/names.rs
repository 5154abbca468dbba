//! A hostile guest's questions to its name server: nothing panics, and what is answered has the question's number.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use cellule_network::dns::{Admission, Dns, Gate, Over, RecordType, Servers};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Builder;

/// Nothing is asked of anybody else.
struct Closed;

impl Gate for Closed {
    fn admit(&self, name: &str, _kind: RecordType) -> Admission {
        match name.len() % 3 {
            0 => Admission::Refuse,
            1 => Admission::Local(vec![Ipv4Addr::LOCALHOST.into()]),
            _ => Admission::LocalNoData,
        }
    }

    fn learned(&self, _name: &str, _address: IpAddr, _ttl: Duration) {
        panic!("nobody was asked");
    }
}

fuzz_target!(|input: (bool, &[u8])| {
    let (tcp, query) = input;
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    let dns = Dns::new(Servers::Given { servers: Vec::new(), search: Vec::new() });
    let over = if tcp { Over::Tcp } else { Over::Udp };
    let answer = runtime.expect("there is an event loop").block_on(dns.answer(query, over, &Closed));
    if let Some(answer) = answer {
        assert_eq!(answer[..2], query[..2], "another question is answered");
        assert!(answer[2] & 0x80 != 0, "an answer is no question");
        assert!(tcp || answer.len() <= 4096, "an answer that no datagram takes");
    }
});
