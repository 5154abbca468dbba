use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::pin::pin;

use hickory_proto::op::ResponseCode;
use smoltcp::socket::tcp::State;
use tempfile::TempDir;

use super::names::look_up;
use super::*;
use crate::check::{Whom, check};
use crate::network::{Config, Network};
use crate::policy::Protocol;
use crate::record::{Direction, Outcome};
use crate::tcp::Connections;

const WEB: &str = "0123456789ab";
const DB: &str = "ba9876543210";
const OLD: &str = "00000000dead";

/// A sandbox's place on a network, where names are those of three sandboxes, and ids.
fn on(dir: &Path, id: &str) -> Neighbourhood {
    let resolve = |name: &str| match name {
        "web" | WEB => Some(WEB.to_owned()),
        "db" | DB => Some(DB.to_owned()),
        "old" | OLD => Some(OLD.to_owned()),
        "bad" => Some("../bad".to_owned()),
        _ => None,
    };
    Neighbourhood { name: "Backend".into(), dir: dir.to_owned(), id: id.into(), resolve: Box::new(resolve) }
}

/// A sandbox that its policy lets go nowhere.
fn sandbox(dir: &Path, id: &str) -> Scene {
    limited(dir, id, Limits::default())
}

fn limited(dir: &Path, id: &str, limits: Limits) -> Scene {
    let policy = Some(rules(Some(Base::None), &[]));
    begin(Setting { policy, limits, neighbourhoods: vec![on(dir, id)], ..Setting::default() })
}

/// Two that are on one network.
fn two(test: impl AsyncFnOnce(Scene, Scene, &Path)) {
    let dir = TempDir::new().unwrap();
    stage(async || {
        let (web, db) = (sandbox(dir.path(), WEB), sandbox(dir.path(), DB));
        test(web, db, dir.path()).await;
    });
}

/// Does something while another guest goes on too.
async fn beside<T>(other: &mut Guest, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = other.rest() => {}
        }
    }
}

async fn address(scene: &mut Scene, name: &str) -> Ipv4Addr {
    let (code, found) = look_up(&mut scene.guest, name).await;
    assert_eq!((code, found.len()), (ResponseCode::NoError, 1), "{name}");
    found[0]
}

fn pair_of(id: &str) -> [IpAddr; 2] {
    let dir = TempDir::new().unwrap();
    let _listener = UnixListener::bind(dir.path().join(id)).unwrap();
    let (neighbours, _doors) = Neighbours::new(join(vec![on(dir.path(), "asker")]).unwrap());
    neighbours.find(id).unwrap()
}

fn ping(to: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0];
    packet.extend(crate::address::GUEST_V4.octets());
    packet.extend(to.octets());
    packet.extend([8, 0, 0xf7, 0xfd, 0, 1, 0, 1]);
    packet
}

/// What the first packet of ICMP that comes says.
async fn told(guest: &mut Guest) -> (u8, u8) {
    let packet = guest.packet().await;
    assert_eq!(packet[9], 1, "{packet:?}");
    (packet[20], packet[21])
}

#[test]
fn neighbours_talk_by_name_and_each_end_hears_of_the_others_end() {
    two(async |mut web, mut db, _| {
        let data: Vec<u8> = (0..2_000_000).map(|at: u32| u8::try_from(at % 251).unwrap()).collect();
        let to = address(&mut web, "db").await;
        assert_eq!(address(&mut db, "web.backend").await, pair_of(WEB)[0]);
        let client = web.guest.connect(5000, &format!("{to}:5432"));
        let server = db.guest.listen(5432);
        beside(&mut db.guest, web.guest.until(client, |socket| socket.may_send())).await;
        beside(&mut web.guest, db.guest.until(server, |socket| socket.may_send())).await;
        // The other guest knows it by the address that it would reach it at.
        let from = db.guest.socket(server).remote_endpoint().unwrap().addr;
        assert_eq!(IpAddr::from(from), pair_of(WEB)[0]);
        beside(&mut db.guest, web.guest.write(client, b"all of it, please")).await;
        web.guest.socket(client).close();
        assert_eq!(beside(&mut web.guest, db.guest.read(server, 17)).await, b"all of it, please");
        beside(&mut web.guest, db.guest.until(server, |socket| !socket.may_recv())).await;
        // The other half is still open.
        let send = async {
            db.guest.write(server, &data).await;
            db.guest.socket(server).close();
            loop {
                db.guest.rest().await;
            }
        };
        let got =
            tokio::select! { got = web.guest.read(client, data.len()) => got, () = send => unreachable!() };
        assert!(got == data);
        beside(&mut db.guest, web.guest.until(client, |socket| socket.state() == State::TimeWait)).await;
        let out = web.record().await;
        assert_eq!((out.direction, out.outcome), (Direction::Out, Outcome::Closed));
        assert_eq!((out.name.as_deref(), &*out.reason), (Some("db"), "on the network backend"));
        assert_eq!((out.sent, out.received), (17, data.len() as u64));
        let came = beside(&mut web.guest, db.record()).await;
        assert_eq!((came.direction, came.outcome, came.guest_port), (Direction::In, Outcome::Closed, 5432));
        assert_eq!((came.name.as_deref(), &*came.reason), (Some("web.backend"), "on the network backend"));
        assert_eq!(came.remote, SocketAddr::new(pair_of(WEB)[0], 5000));
        assert_eq!((web.gateway.connections.count(), db.gateway.connections.count()), (0, 0));
    });
}

#[test]
fn a_neighbour_is_reached_over_ipv6_and_sees_the_asker_there() {
    two(async |mut web, mut db, _| {
        let client = web.guest.connect(5000, &format!("[{}]:5432", pair_of(DB)[1]));
        let server = db.guest.listen(5432);
        beside(&mut db.guest, web.guest.until(client, |socket| socket.may_send())).await;
        let from = db.guest.socket(server).remote_endpoint().unwrap().addr;
        assert_eq!(IpAddr::from(from), pair_of(WEB)[1]);
    });
}

#[test]
fn a_neighbour_is_reached_whatever_the_policy_says_and_nobody_else() {
    two(async |mut web, mut db, _| {
        let to = address(&mut web, "db").await;
        let client = web.guest.connect(5000, &format!("{to}:80"));
        db.guest.listen(80);
        beside(&mut db.guest, web.guest.until(client, |socket| socket.may_send())).await;
        Connections::review(&web.gateway);
        Connections::review(&db.gateway);
        for _ in 0..20 {
            beside(&mut db.guest, web.guest.rest()).await;
        }
        assert!(web.guest.socket(client).may_send());
        assert_eq!(look_up(&mut web.guest, "elsewhere.example").await.0, ResponseCode::NXDomain);
        assert_eq!(look_up(&mut web.guest, "bad").await.0, ResponseCode::NXDomain);
        web.guest.connect(5001, ELSEWHERE);
        assert_eq!(told(&mut web.guest).await, (3, 13));
        web.guest.connect(5002, "198.18.0.0:80");
        assert_eq!(told(&mut web.guest).await, (3, 1));

        let ask = |whom| check(Rc::clone(&web.gateway), whom, 80, Protocol::Tcp);
        let answers = ask(Whom::Name("db".parse().unwrap())).await;
        assert!(answers.iter().all(|answer| answer.allowed && answer.reason == "on the network backend"));
        assert_eq!(answers.iter().filter_map(|answer| answer.address).collect::<Vec<_>>(), pair_of(DB));
        assert!(ask(Whom::Address(to.into())).await[0].allowed);
        assert!(!ask(Whom::Address("198.18.0.0".parse().unwrap())).await[0].allowed);
        assert!(!ask(Whom::Name("web".parse().unwrap())).await[0].allowed);
        assert_eq!(address(&mut web, "web").await, crate::address::GUEST_V4);
    });
}

#[test]
fn who_is_not_on_the_network_neither_finds_nor_reaches_anybody() {
    two(async |_web, mut db, _| {
        let other = TempDir::new().unwrap();
        let to = format!("{}:80", pair_of(DB)[0]);
        db.guest.listen(80);
        let elsewhere = sandbox(other.path(), OLD);
        let policy = Some(rules(Some(Base::None), &[]));
        let nowhere = begin(Setting { policy, ..Setting::default() });
        for (mut stranger, expected) in [(elsewhere, (3, 1)), (nowhere, (3, 13))] {
            assert_eq!(look_up(&mut stranger.guest, "db").await.0, ResponseCode::NXDomain);
            stranger.guest.connect(5000, &to);
            assert_eq!(beside(&mut db.guest, told(&mut stranger.guest)).await, expected);
        }
        assert!(db.records().is_empty());
    });
}

#[test]
fn a_port_where_nobody_listens_is_refused_by_a_neighbour() {
    two(async |mut web, mut db, _| {
        let client = web.guest.connect(5000, &format!("{}:81", pair_of(DB)[0]));
        beside(&mut db.guest, web.guest.until(client, |socket| socket.state() == State::Closed)).await;
        let record = web.record().await;
        assert_eq!(record.outcome, Outcome::Failed);
        assert!(record.reason.contains("refused"), "{}", record.reason);
        let record = db.record().await;
        assert_eq!((record.outcome, &*record.reason), (Outcome::Failed, "nobody listens in the guest"));
    });
}

#[test]
fn a_neighbour_that_is_gone_is_unreachable_until_it_is_back() {
    two(async |mut web, _db, dir| {
        drop(UnixListener::bind(dir.join(OLD)).unwrap());
        let to = address(&mut web, "old").await;
        web.guest.connect(5000, &format!("{to}:80"));
        assert_eq!(told(&mut web.guest).await, (3, 1));
        web.guest.send_datagram(6000, (to, 53).into(), b"?");
        assert_eq!(told(&mut web.guest).await, (3, 1));
        web.guest.send_packet(&ping(to));
        assert_eq!(told(&mut web.guest).await, (3, 1));
        assert_eq!(web.records().len(), 2);

        let mut old = sandbox(dir, OLD);
        old.guest.listen(80);
        let client = web.guest.connect(5001, &format!("{to}:80"));
        beside(&mut old.guest, web.guest.until(client, |socket| socket.may_send())).await;
        web.guest.seen.clear();
        web.guest.send_packet(&ping(to));
        assert_eq!(told(&mut web.guest).await, (0, 0));
    });
}

#[test]
fn neighbours_leave_a_guest_most_of_its_connections() {
    two(async |mut web, _db, dir| {
        let mut old = limited(dir, OLD, Limits { connections: 8, ..Limits::default() });
        let to = address(&mut web, "old").await;
        old.guest.listen(80);
        old.guest.listen(80);
        old.guest.listen(80);
        for port in [5000, 5001] {
            let client = web.guest.connect(port, &format!("{to}:80"));
            beside(&mut old.guest, web.guest.until(client, |socket| socket.may_send())).await;
        }
        web.guest.connect(5002, &format!("{to}:80"));
        assert_eq!(beside(&mut old.guest, told(&mut web.guest)).await, (3, 1));
        assert_eq!(old.gateway.connections.count(), 2);
    });
}

#[test]
fn a_neighbour_is_reached_over_whichever_network_it_is_on() {
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    stage(async || {
        let policy = || Some(rules(Some(Base::None), &[]));
        let neighbourhoods =
            vec![on(dirs[0].path(), WEB), Neighbourhood { name: "second".into(), ..on(dirs[1].path(), WEB) }];
        let mut web = begin(Setting { policy: policy(), neighbourhoods, ..Setting::default() });
        let neighbourhoods = vec![Neighbourhood { name: "second".into(), ..on(dirs[1].path(), DB) }];
        let mut db = begin(Setting { policy: policy(), neighbourhoods, ..Setting::default() });
        // It was on the other one too, once.
        drop(UnixListener::bind(dirs[0].path().join(DB)).unwrap());
        let to = address(&mut web, "db").await;
        let client = web.guest.connect(5000, &format!("{to}:81"));
        beside(&mut db.guest, web.guest.until(client, |socket| socket.state() == State::Closed)).await;
        assert_eq!(db.record().await.reason, "nobody listens in the guest");
        assert_eq!(address(&mut web, "db.second").await, to);
        assert_eq!(address(&mut web, "db.backend").await, to);
    });
}

#[test]
fn a_guest_that_does_not_wait_for_the_answer_leaves_nothing_behind() {
    two(async |mut web, db, _| {
        // The other guest stands still.
        let client = web.guest.connect(5000, &format!("{}:80", pair_of(DB)[0]));
        while db.gateway.connections.count() == 0 {
            web.guest.rest().await;
        }
        web.gateway.take(&reset(5000, pair_of(DB)[0]));
        web.guest.socket(client).abort();
        while db.records().is_empty() {
            web.guest.rest().await;
        }
        assert_eq!(db.records()[0].outcome, Outcome::Failed);
        assert_eq!((web.gateway.connections.count(), db.gateway.connections.count()), (0, 0));
    });
}

/// A frame with a guest's reset of a connection to port 80.
fn reset(from: u16, to: IpAddr) -> Vec<u8> {
    let IpAddr::V4(to) = to else { unreachable!() };
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend(crate::address::GUEST_V4.octets());
    packet.extend(to.octets());
    packet.extend(from.to_be_bytes());
    packet.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 4, 0, 0, 0, 0, 0, 0]);
    [&link::GATEWAY_MAC[..], &guest::MAC, &[8, 0], &packet].concat()
}

#[test]
fn a_neighbours_reset_is_a_reset() {
    two(async |mut web, mut db, _| {
        for (port, by_web) in [(5000, true), (5001, false)] {
            let client = web.guest.connect(port, &format!("{}:80", pair_of(DB)[0]));
            let server = db.guest.listen(80);
            beside(&mut db.guest, web.guest.until(client, |socket| socket.may_send())).await;
            beside(&mut web.guest, db.guest.until(server, |socket| socket.may_send())).await;
            let (ours, theirs) = if by_web { (&mut web, &mut db) } else { (&mut db, &mut web) };
            let (own, other) = if by_web { (client, server) } else { (server, client) };
            ours.guest.socket(own).abort();
            let reset = theirs.guest.until(other, |socket| socket.state() == State::Closed);
            beside(&mut ours.guest, reset).await;
        }
        assert!(web.records().iter().chain(&db.records()).all(|record| record.outcome == Outcome::Reset));
    });
}

#[test]
fn datagrams_go_to_a_neighbour_by_name_and_their_answers_come_back() {
    two(async |mut web, mut db, _| {
        let to = SocketAddr::from((address(&mut web, "db").await, 9000));
        let from = SocketAddr::new(pair_of(WEB)[0], 6000);
        for data in [&b"one"[..], b"", &vec![7; 60_000]] {
            web.guest.send_datagram(6000, to, data);
            assert_eq!(beside(&mut web.guest, db.guest.datagram(9000)).await, (from, data.to_vec()));
            db.guest.send_datagram(9000, from, &[data, b"!"].concat());
            let answer = beside(&mut db.guest, web.guest.datagram(6000)).await;
            assert_eq!(answer, (to, [data, b"!"].concat()));
        }
        // Another port of the guest's is another exchange.
        web.guest.send_datagram(6001, to, b"two");
        let (other, said) = beside(&mut web.guest, db.guest.datagram(9000)).await;
        assert_eq!((other.port(), &*said), (6001, &b"two"[..]));
    });
}

#[test]
fn datagrams_that_cross_arrive_with_the_ports_that_both_sides_know() {
    two(async |mut web, mut db, _| {
        let [at_web, at_db] = [WEB, DB].map(|id| SocketAddr::new(pair_of(id)[0], 7946));
        web.guest.send_datagram(7946, at_db, b"from web");
        db.guest.send_datagram(7946, at_web, b"from db");
        for _ in 0..2 {
            let got = beside(&mut db.guest, web.guest.datagram(7946)).await;
            assert_eq!(got, (at_db, b"from db".to_vec()));
            let got = beside(&mut web.guest, db.guest.datagram(7946)).await;
            assert_eq!(got, (at_web, b"from web".to_vec()));
            web.guest.send_datagram(7946, at_db, b"from web");
            db.guest.send_datagram(7946, at_web, b"from db");
        }
    });
}

#[test]
fn an_address_that_a_copy_remembers_leads_to_the_same_neighbour() {
    two(async |_web, mut db, dir| {
        let mut copy = sandbox(dir, "c0b1");
        db.guest.listen(80);
        // Its own gateway was never asked for the name.
        let client = copy.guest.connect(5000, &format!("{}:80", pair_of(DB)[0]));
        beside(&mut db.guest, copy.guest.until(client, |socket| socket.may_send())).await;
    });
}

#[test]
fn what_is_no_header_is_dropped_and_others_are_let_in() {
    two(async |mut web, mut db, dir| {
        let id = |id: &[u8]| [&[1, 6, 4, 0, 80, 0, 0][..], &[u8::try_from(id.len()).unwrap()], id].concat();
        let version = [&[9][..], &id(WEB.as_bytes())[1..]].concat();
        let knocks =
            [Vec::new(), vec![1, 6], version, id(&[b'a'; 255]), id(b"../x"), id(b""), vec![0xff; 4000]];
        let mut streams = Vec::new();
        for bytes in knocks {
            let mut stream = UnixStream::connect(dir.join(DB)).unwrap();
            stream.write_all(&bytes).unwrap();
            streams.push(stream);
        }
        for mut stream in streams {
            stream.set_nonblocking(true).unwrap();
            // Those that say too little are waited for.
            loop {
                match stream.read(&mut [0; 8]) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => db.guest.rest().await,
                    said => break assert!(!matches!(said, Ok(1..)), "{said:?}"),
                }
            }
        }
        // As many silent ones as there is room for.
        let crowd: Vec<_> = (0..100).map(|_| UnixStream::connect(dir.join(DB)).unwrap()).collect();
        db.guest.rest().await;
        drop(crowd);
        db.guest.rest().await;
        db.guest.listen(80);
        let client = web.guest.connect(5000, &format!("{}:80", pair_of(DB)[0]));
        beside(&mut db.guest, web.guest.until(client, |socket| socket.may_send())).await;
        assert!(db.records().is_empty());
    });
}

#[test]
fn a_network_is_left_with_the_gateway_and_one_that_cannot_be_joined_is_named() {
    let dir = TempDir::new().unwrap();
    let start = |neighbourhood| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let config = Config {
            policy: public(),
            servers: Servers::Given { servers: Vec::new(), search: Vec::new() },
            hosts_file: false,
            exposed: std::collections::HashMap::new(),
            limits: Limits::default(),
            mac: guest::MAC,
            lost: Vec::new(),
            secrets: None,
            neighbourhoods: vec![neighbourhood],
            sink: Box::new(drop),
        };
        (Network::start(theirs.into(), config), ours)
    };
    let (network, _link) = start(on(dir.path(), WEB));
    assert!(dir.path().join(WEB).exists());
    drop(network.unwrap());
    while dir.path().join(WEB).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    for wrong in [on(&dir.path().join("absent"), WEB), on(dir.path(), "../web")] {
        let error = start(wrong).0.unwrap_err();
        assert_eq!(error.to_string(), "cannot join the network Backend");
    }
}
