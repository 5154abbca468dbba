use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::*;
use crate::forward::{self, Forward};
use crate::policy::Protocol;
use crate::record::{Direction, Outcome};

fn tcp(guest: u16) -> Forward {
    Forward { host: "127.0.0.1:0".parse().unwrap(), guest, protocol: Protocol::Tcp }
}

#[test]
fn a_client_of_the_host_talks_to_a_program_in_the_guest() {
    scene(
        Setting { policy: Some(rules(Some(Base::None), &[])), ..Setting::default() },
        |mut scene| async move {
            let forward = forward::add(&scene.gateway, tcp(80)).unwrap();
            let socket = scene.guest.listen(80);
            let client = tokio::task::spawn_local(async move {
                let mut stream = TcpStream::connect(forward.host).await.unwrap();
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
                let mut all = String::new();
                stream.read_to_string(&mut all).await.unwrap();
                all
            });
            assert_eq!(scene.guest.read(socket, 5).await, b"hello");
            scene.guest.until(socket, |socket| !socket.may_recv()).await;
            scene.guest.write(socket, b"world").await;
            scene.guest.socket(socket).close();
            while !client.is_finished() {
                scene.guest.rest().await;
            }
            assert_eq!(client.await.unwrap(), "world");
            let record = scene.record().await;
            assert_eq!((record.direction, record.outcome), (Direction::In, Outcome::Closed));
            assert_eq!((record.sent, record.received), (5, 5));
        },
    );
}

#[test]
fn the_first_client_waits_for_a_program_that_is_still_starting() {
    scene(Setting::default(), |mut scene| async move {
        let forward = forward::add(&scene.gateway, tcp(80)).unwrap();
        let client = tokio::task::spawn_local(async move {
            let mut stream = TcpStream::connect(forward.host).await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.map(|_| all)
        });
        let status = tokio::task::spawn_local(forward::statuses(Rc::clone(&scene.gateway)));
        while !status.is_finished() {
            scene.guest.rest().await;
        }
        assert!(!status.await.unwrap()[0].is_up);
        let socket = scene.guest.listen(80);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        scene.guest.write(socket, b"at last").await;
        scene.guest.socket(socket).close();
        while !client.is_finished() {
            scene.guest.rest().await;
        }
        assert_eq!(client.await.unwrap().unwrap(), b"at last");

        // It has answered once: from now on a refusal is one.
        let client = tokio::task::spawn_local(async move {
            let mut stream = TcpStream::connect(forward.host).await.unwrap();
            stream.read(&mut [0]).await
        });
        while !client.is_finished() {
            scene.guest.rest().await;
        }
        assert_eq!(client.await.unwrap().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn clients_that_wait_leave_the_guest_connections_of_its_own() {
    let limits = Limits { connections: 4, ..Limits::default() };
    scene(Setting { limits, ..Setting::default() }, |mut scene| async move {
        let forward = forward::add(&scene.gateway, tcp(80)).unwrap();
        let client = || {
            tokio::task::spawn_local(async move {
                let mut stream = TcpStream::connect(forward.host).await?;
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await
            })
        };
        let mut waiting = Vec::new();
        for _ in 0..4 {
            waiting.push(client());
            scene.guest.rest().await;
        }
        while !waiting[3].is_finished() {
            scene.guest.rest().await;
        }
        assert!(waiting[..3].iter().all(|waiting| !waiting.is_finished()));
        assert!(waiting.pop().unwrap().await.unwrap().is_err());

        // Places that are given back are others'.
        let socket = scene.guest.listen(80);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        scene.guest.socket(socket).close();
        while !waiting.iter().all(tokio::task::JoinHandle::is_finished) {
            scene.guest.rest().await;
        }
        let socket = scene.guest.listen(80);
        let _late = client();
        scene.guest.until(socket, |socket| socket.may_send()).await;
    });
}

#[test]
fn asking_whether_a_port_answers_is_seen_by_nobody_in_the_guest() {
    scene(Setting::default(), |mut scene| async move {
        forward::add(&scene.gateway, tcp(80)).unwrap();
        let socket = scene.guest.listen(80);
        let status = tokio::task::spawn_local(forward::statuses(Rc::clone(&scene.gateway)));
        while !status.is_finished() {
            scene.guest.rest().await;
            assert!(!scene.guest.socket(socket).may_send());
        }
        assert!(status.await.unwrap()[0].is_up);
        // Back to listening: nothing was accepted.
        scene.guest.until(socket, |socket| socket.is_listening()).await;
    });
}

#[test]
fn a_port_that_is_taken_is_named_and_one_that_is_removed_is_free_again() {
    scene(Setting::default(), |scene| async move {
        let forward = forward::add(&scene.gateway, tcp(80)).unwrap();
        let error = forward::add(&scene.gateway, forward).unwrap_err();
        assert!(error.to_string().contains(&forward.host.to_string()), "{error}");
        forward::remove(&scene.gateway, forward.host, Protocol::Tcp).unwrap();
        tokio::task::yield_now().await;
        forward::add(&scene.gateway, forward).unwrap();
        let other = "127.0.0.1:1".parse().unwrap();
        assert!(forward::remove(&scene.gateway, other, Protocol::Tcp).is_err());
    });
}

#[test]
fn datagrams_come_in_and_their_answers_find_the_client() {
    scene(Setting::default(), |mut scene| async move {
        let forward = Forward { protocol: Protocol::Udp, ..tcp(9000) };
        let forward = forward::add(&scene.gateway, forward).unwrap();
        let clients =
            [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
        for (client, word) in clients.iter().zip([b"one", b"two"]) {
            client.send_to(word, forward.host).await.unwrap();
            let (from, said) = scene.guest.datagram(9000).await;
            assert_eq!(said, word);
            scene.guest.send_datagram(9000, from, &[word, &b"!"[..]].concat());
        }
        for (client, word) in clients.iter().zip([b"one!", b"two!"]) {
            let mut buffer = [0; 8];
            let count = loop {
                tokio::select! {
                    got = client.recv(&mut buffer) => break got.unwrap(),
                    () = scene.guest.rest() => {}
                }
            };
            assert_eq!(&buffer[..count], word);
        }
    });
}

#[test]
fn a_port_of_datagrams_that_is_removed_is_free_again_whoever_used_it() {
    scene(Setting::default(), |mut scene| async move {
        let forward = Forward { protocol: Protocol::Udp, ..tcp(9000) };
        let forward = forward::add(&scene.gateway, forward).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"one", forward.host).await.unwrap();
        scene.guest.datagram(9000).await;
        forward::remove(&scene.gateway, forward.host, Protocol::Udp).unwrap();
        scene.guest.rest().await;
        UdpSocket::bind(forward.host).await.unwrap();
    });
}
