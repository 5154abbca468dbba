use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::str::FromStr;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record as Resource, RecordType};
use smoltcp::socket::tcp::State;
use tokio::net::TcpListener;

use super::*;
use crate::record::Outcome;

const GATEWAY: &str = "192.0.0.1:53";
pub(super) const SHARED: &str = "8.8.4.4:443";

/// A server that knows a few names.
pub(super) fn name_server(names: &[(&str, [u8; 4])]) -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let names: HashMap<String, [u8; 4]> = names.iter().map(|(name, at)| (format!("{name}."), *at)).collect();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let query = Message::from_vec(&buffer[..count]).unwrap();
            let question = query.queries[0].clone();
            let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
            answer.add_query(question.clone());
            match names.get(&question.name().to_string().to_lowercase()) {
                Some(at) if question.query_type() == RecordType::A => {
                    let data = RData::A(A(Ipv4Addr::from(*at)));
                    answer.add_answer(Resource::from_rdata(question.name().clone(), 30, data));
                }
                Some(_) => {}
                None => answer.metadata.response_code = ResponseCode::NXDomain,
            }
            _ = socket.send_to(&answer.to_vec().unwrap(), from);
        }
    });
    address
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 77;
    message.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn addresses(answer: &[u8]) -> (ResponseCode, Vec<Ipv4Addr>) {
    let answer = Message::from_vec(answer).unwrap();
    let of = |resource: &Resource| match resource.data {
        RData::A(A(address)) => Some(address),
        _ => None,
    };
    (answer.metadata.response_code, answer.answers.iter().filter_map(of).collect())
}

pub(super) async fn look_up(guest: &mut Guest, name: &str) -> (ResponseCode, Vec<Ipv4Addr>) {
    guest.send_datagram(7000, GATEWAY.parse().unwrap(), &query(name));
    let (_, answer) = guest.datagram(7000).await;
    addresses(&answer)
}

#[test]
fn names_are_looked_up_over_datagrams_and_over_connections() {
    let servers = vec![name_server(&[("a.example", [8, 8, 4, 4])])];
    scene(Setting { servers, ..Setting::default() }, |mut scene| async move {
        let found = look_up(&mut scene.guest, "a.example").await;
        assert_eq!(found, (ResponseCode::NoError, vec![Ipv4Addr::new(8, 8, 4, 4)]));
        let socket = scene.guest.connect(5000, GATEWAY);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        let query = query("a.example");
        let length = u16::try_from(query.len()).unwrap().to_be_bytes();
        for _ in 0..2 {
            scene.guest.write(socket, &[&length[..], &query].concat()).await;
            let length = scene.guest.read(socket, 2).await;
            let rest = usize::from(u16::from_be_bytes([length[0], length[1]])) + 2 - length.len();
            let answer = [&length[2..], &scene.guest.read(socket, rest).await].concat();
            assert_eq!(addresses(&answer).1.len(), 1);
        }
    });
}

/// A guest under an allow-list, of one name at an address that others share.
fn allow_list(test: impl AsyncFnOnce(Scene, TcpListener)) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let setting = Setting {
        policy: Some(rules(None, &["allow good.example"])),
        servers: vec![name_server(&[
            ("good.example", [8, 8, 4, 4]),
            ("evil.example", [8, 8, 4, 4]),
            ("rebound.example", [10, 0, 0, 1]),
        ])],
        redirect: vec![(SHARED, listener.local_addr().unwrap())],
        ..Setting::default()
    };
    scene(setting, |scene| async move { test(scene, TcpListener::from_std(listener).unwrap()).await });
}

#[test]
fn under_an_allow_list_an_address_is_reached_only_after_its_name_was_looked_up() {
    allow_list(async |mut scene, _listener| {
        scene.guest.connect(5000, SHARED);
        let packet = scene.guest.packet().await;
        assert_eq!((packet[20], packet[21]), (3, 13));
        assert_eq!(look_up(&mut scene.guest, "evil.example").await, (ResponseCode::NXDomain, Vec::new()));
        scene.guest.connect(5001, SHARED);
        let packet = scene.guest.packet().await;
        assert_eq!((packet[20], packet[21]), (3, 13));
        look_up(&mut scene.guest, "good.example").await;
        let socket = scene.guest.connect(5002, SHARED);
        scene.guest.until(socket, |socket| socket.may_send()).await;
    });
}

#[test]
fn under_an_allow_list_another_name_at_the_same_address_is_not_reached() {
    allow_list(async |mut scene, listener| {
        look_up(&mut scene.guest, "good.example").await;
        for (port, host, is_good) in [(5000, "good.example", true), (5001, "evil.example", false)] {
            let socket = scene.guest.connect(port, SHARED);
            scene.guest.until(socket, |socket| socket.may_send()).await;
            let (stream, _) = listener.accept().await.unwrap();
            // In two parts, the name in the second.
            scene.guest.write(socket, b"GET / HTTP/1.1\r\nHo").await;
            scene.guest.rest().await;
            scene.guest.write(socket, format!("st: {host}\r\n\r\n").as_bytes()).await;
            if is_good {
                let mut buffer = [0; 100];
                while stream.try_read(&mut buffer).is_err() {
                    scene.guest.rest().await;
                }
                continue;
            }
            scene.guest.until(socket, |socket| socket.state() == State::Closed).await;
            stream.readable().await.unwrap();
            // Not a byte went out.
            assert!(stream.try_read(&mut [0; 100]).map_or(true, |count| count == 0));
            let records = scene.records();
            let last = records.last().unwrap();
            assert_eq!((last.outcome, last.name.as_deref()), (Outcome::Denied, Some("evil.example")));
        }
    });
}

#[test]
fn an_allowed_name_that_gives_a_private_address_opens_nothing() {
    let setting = Setting {
        policy: Some(rules(None, &["allow *.example"])),
        servers: vec![name_server(&[("rebound.example", [10, 0, 0, 1])])],
        ..Setting::default()
    };
    scene(setting, |mut scene| async move {
        let (_, found) = look_up(&mut scene.guest, "rebound.example").await;
        assert_eq!(found, [Ipv4Addr::new(10, 0, 0, 1)]);
        scene.guest.connect(5000, "10.0.0.1:80");
        let packet = scene.guest.packet().await;
        assert_eq!((packet[20], packet[21]), (3, 13));
        assert!(scene.record().await.reason.contains("private"));
    });
}
