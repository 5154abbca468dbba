use smoltcp::socket::tcp::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::gateway::Account;
use crate::policy::Protocol;
use crate::record::{Direction, Outcome};

async fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A listener's address from before the scene.
fn std_server() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn bytes_go_both_ways_and_each_end_hears_of_the_others_end() {
    let (listener, address) = std_server();
    let setting = Setting { redirect: vec![(ELSEWHERE, address)], ..Setting::default() };
    scene(setting, |mut scene| async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let server = tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut all = Vec::new();
            // Until the guest has ended; then comes the answer: the other half is still open.
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(&all).await.unwrap();
            all.len()
        });
        let data = pattern(3_000_000);
        let socket = scene.guest.connect(5000, ELSEWHERE);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        scene.guest.write(socket, &data).await;
        scene.guest.socket(socket).close();
        assert!(scene.guest.read(socket, data.len()).await == data);
        scene.guest.until(socket, |socket| socket.state() == State::TimeWait).await;
        assert_eq!(server.await.unwrap(), data.len());
        let record = scene.record().await;
        assert_eq!((record.outcome, record.direction), (Outcome::Closed, Direction::Out));
        assert_eq!((record.sent, record.received), (data.len() as u64, data.len() as u64));
        assert_eq!(record.remote, ELSEWHERE.parse().unwrap());
        assert_eq!(scene.gateway.connections.count(), 0);
    });
}

#[test]
fn what_the_other_side_sends_first_arrives_before_the_guest_says_a_word() {
    let (listener, address) = std_server();
    let setting = Setting {
        redirect: vec![(ELSEWHERE, address)],
        // Even where the guest's first words are looked at.
        policy: Some(rules(Some(Base::Public), &["deny evil.test"])),
        ..Setting::default()
    };
    scene(setting, |mut scene| async move {
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 ready").await.unwrap();
            let mut said = [0; 4];
            stream.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"QUIT");
        });
        let socket = scene.guest.connect(5000, ELSEWHERE);
        assert_eq!(scene.guest.read(socket, 9).await, b"220 ready");
        scene.guest.write(socket, b"QUIT\r\n").await;
        scene.guest.until(socket, |socket| !socket.may_recv()).await;
    });
}

#[test]
fn a_port_where_nobody_listens_is_refused_as_such() {
    let (listener, address) = std_server();
    drop(listener);
    let setting = Setting { redirect: vec![(ELSEWHERE, address)], ..Setting::default() };
    scene(setting, |mut scene| async move {
        let socket = scene.guest.connect(5000, ELSEWHERE);
        scene.guest.until(socket, |socket| socket.state() == State::Closed).await;
        let record = scene.record().await;
        assert_eq!(record.outcome, Outcome::Failed);
        assert!(record.reason.contains("refused"), "{}", record.reason);
    });
}

#[test]
fn a_reset_is_passed_on_in_both_directions() {
    let (listener, address) = std_server();
    let setting = Setting { redirect: vec![(ELSEWHERE, address)], ..Setting::default() };
    scene(setting, |mut scene| async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let socket = scene.guest.connect(5000, ELSEWHERE);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_zero_linger().unwrap();
        drop(stream);
        scene.guest.until(socket, |socket| socket.state() == State::Closed).await;
        assert_eq!(scene.record().await.outcome, Outcome::Reset);

        let socket = scene.guest.connect(5001, ELSEWHERE);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        scene.guest.socket(socket).abort();
        scene.guest.rest().await;
        let mut byte = [0];
        let error = loop {
            tokio::select! {
                read = stream.read(&mut byte) => break read.unwrap_err(),
                () = scene.guest.rest() => {}
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_far_end_that_does_not_read_makes_the_guest_wait_and_loses_nothing() {
    let (listener, address) = std_server();
    let setting = Setting { redirect: vec![(ELSEWHERE, address)], ..Setting::default() };
    scene(setting, |mut scene| async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let socket = scene.guest.connect(5000, ELSEWHERE);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        let data = pattern(64 << 20);
        let mut sent = 0;
        let mut idle = 0;
        while idle < 300 {
            let count = scene.guest.socket(socket).send_slice(&data[sent..]).unwrap();
            sent += count;
            idle = if count == 0 { idle + 1 } else { 0 };
            scene.guest.rest().await;
        }
        assert!(sent < data.len() / 2, "{sent} bytes went to nobody");
        let reader = tokio::task::spawn_local(async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all
        });
        scene.guest.write(socket, &data[sent..]).await;
        scene.guest.socket(socket).close();
        while !reader.is_finished() {
            scene.guest.rest().await;
        }
        assert!(reader.await.unwrap() == data);
    });
}

#[test]
fn a_guest_that_does_not_read_makes_the_far_end_wait_and_loses_nothing() {
    let (listener, address) = std_server();
    let setting = Setting { redirect: vec![(ELSEWHERE, address)], ..Setting::default() };
    scene(setting, |mut scene| async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let socket = scene.guest.connect(5000, ELSEWHERE);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        let data = pattern(16 << 20);
        let expected = data.clone();
        let written = shared(0);
        let count = Rc::clone(&written);
        tokio::task::spawn_local(async move {
            for part in data.chunks(4096) {
                stream.write_all(part).await.unwrap();
                *count.borrow_mut() += part.len();
            }
        });
        for _ in 0..500 {
            scene.guest.rest().await;
        }
        assert!(*written.borrow() < expected.len(), "all of it went to nobody");
        assert!(scene.guest.read(socket, expected.len()).await == expected);
    });
}

#[test]
fn what_is_not_allowed_is_told_at_once_in_one_way_and_recorded_with_the_rule() {
    scene(Setting::default(), |mut scene| async move {
        for (port, to) in [(5000, "10.0.0.1:80"), (5001, "169.254.169.254:80"), (5002, "[fd00:ec2::254]:80")]
        {
            scene.guest.connect(port, to);
            let is_v6 = to.starts_with('[');
            let header = if is_v6 { 40 } else { 20 };
            let (version, told) = if is_v6 { (6, (1, 1)) } else { (4, (3, 13)) };
            loop {
                let packet = scene.guest.packet().await;
                if packet[0] >> 4 == version && (packet[header], packet[header + 1]) == told {
                    break;
                }
            }
        }
        let records = scene.records();
        assert!(records.iter().all(|record| record.outcome == Outcome::Denied), "{records:?}");
        assert!(records[0].reason.contains("private"), "{}", records[0].reason);
        assert_eq!(scene.gateway.connections.count(), 0);
    });
}

#[test]
fn whoever_asks_again_for_what_was_refused_is_reset_and_recorded_once() {
    scene(Setting::default(), |mut scene| async move {
        // This guest takes no notice of ICMP, as a kernel whose socket is busy does not.
        let socket = scene.guest.connect(5000, "10.0.0.1:80");
        scene.guest.until(socket, |socket| socket.state() == State::Closed).await;
        assert_eq!(scene.record().await.outcome, Outcome::Denied);
    });
}

#[test]
fn a_policy_that_is_changed_resets_what_it_does_not_allow_any_more() {
    let (listener, address) = std_server();
    let setting = Setting { redirect: vec![(ELSEWHERE, address)], ..Setting::default() };
    scene(setting, |mut scene| async move {
        let socket = scene.guest.connect(5000, ELSEWHERE);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        *scene.gateway.policy.borrow_mut() = rules(Some(Base::None), &[]);
        crate::tcp::Connections::review(&scene.gateway);
        scene.guest.until(socket, |socket| socket.state() == State::Closed).await;
        let record = scene.record().await;
        assert_eq!(record.outcome, Outcome::Reset);
        assert!(record.reason.contains("policy"), "{}", record.reason);
        drop(listener);
    });
}

#[test]
fn datagrams_go_out_and_their_answers_come_back_to_the_port_that_asked() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let setting = Setting { redirect: vec![(ELSEWHERE, socket.local_addr().unwrap())], ..Setting::default() };
    scene(setting, |mut scene| async move {
        let server = UdpSocket::from_std(socket).unwrap();
        let to: SocketAddr = ELSEWHERE.parse().unwrap();
        scene.guest.send_datagram(6000, to, b"ping");
        let mut buffer = [0; 16];
        let (count, client) = loop {
            tokio::select! {
                got = server.recv_from(&mut buffer) => break got.unwrap(),
                () = scene.guest.rest() => {}
            }
        };
        assert_eq!(&buffer[..count], b"ping");
        // From elsewhere: nobody asked there.
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        _ = stranger.send_to(b"spoof", client).await;
        server.send_to(b"pong", client).await.unwrap();
        assert_eq!(scene.guest.datagram(6000).await, (to, b"pong".to_vec()));
        scene.guest.send_datagram(6000, "10.0.0.1:4000".parse().unwrap(), b"ping");
        let packet = scene.guest.packet().await;
        assert_eq!((packet[20], packet[21]), (3, 13));
        let record = scene.record().await;
        assert_eq!((record.outcome, record.protocol), (Outcome::Denied, Protocol::Udp));
    });
}

#[test]
fn a_policy_that_is_changed_ends_pings_that_it_does_not_allow_any_more() {
    scene(Setting::default(), |mut scene| async move {
        // In the place of an echo socket, which not every host lets its users have.
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let key = ("8.8.4.4".parse().unwrap(), 7);
        let account = Account::new(Protocol::Icmp, (key.0, 0).into(), key.1);
        crate::echo::keep(&scene.gateway, key, socket, account);
        crate::echo::Echoes::review(&scene.gateway);
        scene.guest.rest().await;
        assert!(scene.records().is_empty());
        *scene.gateway.policy.borrow_mut() = rules(Some(Base::None), &[]);
        crate::echo::Echoes::review(&scene.gateway);
        assert_eq!(scene.record().await.outcome, Outcome::Reset);
    });
}

#[test]
fn a_bandwidth_limit_is_held_in_both_directions() {
    let (listener, address) = std_server();
    let limits = Limits { bandwidth: Some(400_000), ..Limits::default() };
    let setting = Setting { redirect: vec![(ELSEWHERE, address)], limits, ..Setting::default() };
    scene(setting, |mut scene| async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let socket = scene.guest.connect(5000, ELSEWHERE);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        let began = std::time::Instant::now();
        let echo = tokio::task::spawn_local(async move {
            let mut all = vec![0; 300_000];
            stream.read_exact(&mut all).await.unwrap();
            stream.write_all(&all).await.unwrap();
        });
        scene.guest.write(socket, &pattern(300_000)).await;
        scene.guest.read(socket, 300_000).await;
        echo.await.unwrap();
        // Each way a quarter of a second's worth is free, and the rest takes half a second.
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    });
}

#[test]
fn a_service_of_the_hosts_loopback_is_reached_only_where_it_is_exposed() {
    scene(Setting::default(), |mut scene| async move {
        let (listener, address) = server().await;
        scene.gateway.exposed.borrow_mut().insert(80, address.port());
        let socket = scene.guest.connect(5000, "192.0.0.3:80");
        scene.guest.until(socket, |socket| socket.may_send()).await;
        listener.accept().await.unwrap();
        for (port, is_exposed) in [(80, true), (81, false)] {
            let whom = crate::check::Whom::Address(crate::address::HOST_V4.into());
            let answers = crate::check::check(Rc::clone(&scene.gateway), whom, port, Protocol::Tcp).await;
            assert_eq!(answers[0].allowed, is_exposed, "{answers:?}");
        }
        for (port, to) in [(5001, "192.0.0.3:81"), (5002, "192.0.0.1:80")] {
            let socket = scene.guest.connect(port, to);
            scene.guest.until(socket, |socket| socket.state() == State::Closed).await;
        }
        scene.guest.connect(5003, "192.0.0.4:80");
        let packet = scene.guest.packet().await;
        assert_eq!((packet[20], packet[21]), (3, 1));
        let records = scene.records();
        let refused: Vec<_> = records.iter().filter(|record| record.outcome == Outcome::Denied).collect();
        let why: Vec<_> =
            refused.iter().map(|record| (record.remote.to_string(), &record.reason[..])).collect();
        let own = "it is the sandbox's own network";
        let expected = [
            ("192.0.0.3:81".to_owned(), "no port of the host is exposed as 81"),
            ("192.0.0.1:80".to_owned(), own),
            ("192.0.0.4:80".to_owned(), own),
        ];
        assert_eq!(why, expected);
    });
}

#[test]
fn connections_beyond_their_rate_have_their_turn_in_the_order_in_which_they_came() {
    let (listener, address) = std_server();
    let limits = Limits { connection_rate: Some(10), ..Limits::default() };
    let setting = Setting { redirect: vec![(ELSEWHERE, address)], limits, ..Setting::default() };
    scene(setting, |mut scene| async move {
        let begun = std::time::Instant::now();
        let sockets: Vec<_> = (5000..5025).map(|port| scene.guest.connect(port, ELSEWHERE)).collect();
        for socket in sockets {
            scene.guest.until(socket, |socket| socket.may_send()).await;
        }
        // Ten at once, the others at ten a second; dropped ones would ask again after a second, and three, and seven.
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(1400) && took < Duration::from_secs(4), "{took:?}");
        drop(listener);
    });
}
