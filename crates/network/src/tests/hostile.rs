use std::net::Ipv4Addr;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use smoltcp::socket::tcp::State;

use super::guest::{MAC, datagram};
use super::*;
use crate::address::{GATEWAY_V4, GUEST_V4};
use crate::link::GATEWAY_MAC;
use crate::record::Outcome;

/// The gateway answers pings, whatever came before.
async fn is_well(scene: &mut Scene) {
    scene.guest.seen.clear();
    let echo = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0];
    packet.extend(GUEST_V4.octets());
    packet.extend(GATEWAY_V4.octets());
    packet.extend(echo);
    scene.guest.send_packet(&packet);
    loop {
        let answer = scene.guest.packet().await;
        if answer.get(9) == Some(&1) && answer.get(20) == Some(&0) {
            return;
        }
    }
}

#[test]
fn frames_that_lie_about_themselves_are_dropped() {
    scene(Setting::default(), |mut scene| async move {
        let good = datagram(6000, "8.8.4.4:53".parse().unwrap(), b"data");
        let changed = |at: usize, to: u8| {
            let mut packet = good.clone();
            packet[at] = to;
            packet
        };
        let mut bad = vec![
            changed(0, 0x44),  // A header that is too short,
            changed(0, 0x4f),  // one that is longer than the packet,
            changed(0, 0x65),  // another version.
            changed(2, 0xff),  // More bytes than there are.
            changed(3, 10),    // Fewer than the header has.
            changed(6, 0x20),  // A first fragment,
            changed(7, 3),     // and one from the middle.
            changed(15, 99),   // Another's address.
            changed(24, 0xff), // A datagram that is longer than its packet,
            changed(25, 3),    // and one shorter than its header.
        ];
        for length in 0..good.len() {
            bad.push(good[..length].to_vec());
        }
        let count = bad.len() as u64;
        for packet in bad {
            scene.guest.send_packet(&packet);
        }
        for frame in [&[1][..], &[1; 13], &[0xff; 60], &[GATEWAY_MAC, MAC].concat()] {
            scene.guest.send_frame(frame);
        }
        is_well(&mut scene).await;
        assert_eq!(scene.gateway.figures().dropped_from_guest, count + 4);
        assert!(scene.records().is_empty());
    });
}

#[test]
fn only_questions_for_the_guests_own_network_are_answered() {
    scene(Setting::default(), |mut scene| async move {
        let ask = |from: Ipv4Addr, address: Ipv4Addr| {
            let mut frame = [&[0xff; 6][..], &MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &MAC].concat();
            frame.extend(from.octets());
            frame.extend([0; 6]);
            frame.extend(address.octets());
            frame
        };
        for (from, address) in [
            (GUEST_V4, GUEST_V4),
            (GUEST_V4, Ipv4Addr::new(8, 8, 8, 8)),
            (Ipv4Addr::new(192, 0, 0, 5), GATEWAY_V4),
        ] {
            scene.guest.send_frame(&ask(from, address));
        }
        // A storm of good ones is answered as far as there is room, and no further.
        for _ in 0..20_000 {
            scene.guest.send_frame(&ask(GUEST_V4, GATEWAY_V4));
        }
        is_well(&mut scene).await;
        assert!(!scene.gateway.outbox.has_room() || scene.gateway.figures().dropped_to_guest < 20_000);
    });
}

/// A server elsewhere that answers nothing.
fn elsewhere() -> (std::net::TcpListener, Setting) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let redirect = vec![(ELSEWHERE, listener.local_addr().unwrap())];
    (listener, Setting { redirect, ..Setting::default() })
}

/// What begins a connection to elsewhere, of which the guest's own stack knows nothing.
fn first_segment(from: u16) -> Vec<u8> {
    let mut segment = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    segment.extend(GUEST_V4.octets());
    segment.extend([8, 8, 4, 4]);
    segment.extend(from.to_be_bytes());
    segment.extend(4000_u16.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

#[test]
fn a_flood_of_first_segments_takes_no_more_than_its_share() {
    let limits = Limits { connections: 50, ..Limits::default() };
    // Nobody answers there, so that each of them waits.
    let (_listener, setting) = elsewhere();
    scene(Setting { limits, ..setting }, |mut scene| async move {
        for port in 1024..3024 {
            scene.guest.send_packet(&first_segment(port));
        }
        is_well(&mut scene).await;
        assert_eq!(scene.gateway.connections.count(), 50);
    });
}

#[test]
fn a_segment_of_no_connection_is_reset_and_a_reset_never_is() {
    scene(Setting::default(), |mut scene| async move {
        let segment = |flags: u8| {
            let mut segment = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
            segment.extend(GUEST_V4.octets());
            segment.extend([8, 8, 4, 4, 0x20, 0, 0, 80]);
            segment.extend([0, 0, 0, 9, 0, 0, 0, 7, 0x50, flags, 0, 0, 0, 0, 0, 0]);
            segment
        };
        let before = scene.gateway.outbox.waiting_bytes();
        scene.gateway.take(&[&GATEWAY_MAC[..], &MAC, &[8, 0], &segment(0x04)].concat());
        assert_eq!(scene.gateway.outbox.waiting_bytes(), before);
        scene.gateway.take(&[&GATEWAY_MAC[..], &MAC, &[8, 0], &segment(0x10)].concat());
        let sent = scene.gateway.outbox.waiting_bytes();
        assert_eq!(sent, before + 14 + 40);
        is_well(&mut scene).await;
    });
}

/// Packets that are nearly right.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let bases = prop_oneof![
        Just(datagram(6000, "192.0.0.1:53".parse().unwrap(), &[0; 24])),
        Just(datagram(6000, "8.8.4.4:9".parse().unwrap(), b"x")),
        Just(datagram(6000, "[2001:4860::1]:9".parse().unwrap(), b"x")),
        Just({
            let mut packet = datagram(6000, "8.8.4.4:9".parse().unwrap(), &[0x50; 40]);
            packet[9] = 6;
            packet
        }),
        Just({
            let mut packet = datagram(0x8700, "[fd4e:7c31:5a9d::1]:9".parse().unwrap(), &[0; 40]);
            packet[6] = 58;
            packet[7] = 255;
            packet
        }),
    ];
    (bases, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)).prop_map(
        |(mut packet, changes)| {
            for (at, to) in changes {
                let at = at.index(packet.len());
                packet[at] = to;
            }
            packet
        },
    )
}

#[test]
fn no_frame_stops_the_gateway() {
    scene(Setting::default(), |mut scene| async move {
        let mut runner = proptest::test_runner::TestRunner::default();
        let strategy = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            nearly().prop_map(|packet| {
                let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
                [&GATEWAY_MAC[..], &MAC, &kind, &packet].concat()
            }),
        ];
        for _ in 0..3000 {
            let frame = strategy.new_tree(&mut runner).unwrap().current();
            // Without the net under it.
            scene.gateway.dispatch(&frame);
        }
        is_well(&mut scene).await;
    });
}

#[test]
fn a_connection_that_is_taken_back_before_it_is_there_is_gone() {
    let (_listener, setting) = elsewhere();
    scene(setting, |mut scene| async move {
        // The guest's own stack resets what comes of it.
        scene.guest.send_packet(&first_segment(1024));
        assert_eq!(scene.record().await.outcome, Outcome::Reset);
        assert_eq!(scene.gateway.connections.count(), 0);
    });
}

#[test]
fn a_guest_that_ends_its_half_and_vanishes_is_asked_whether_it_is_there() {
    let (_listener, setting) = elsewhere();
    scene(setting, |mut scene| async move {
        let socket = scene.guest.connect(5000, ELSEWHERE);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        scene.guest.socket(socket).close();
        scene.guest.until(socket, |socket| socket.state() == State::FinWait2).await;
        // It waits for the other end for as long as it likes.
        for _ in 0..2000 {
            scene.guest.rest().await;
        }
        assert_eq!(scene.gateway.connections.count(), 1);
        scene.guest.forget(socket);
        assert_eq!(scene.record().await.outcome, Outcome::Reset);
    });
}
