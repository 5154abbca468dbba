//! The network card and the frames at its other end.

use std::os::fd::OwnedFd;
use std::time::Duration;

use cellule_engine::{Engine, FRAME_MAX, SavedMachine, Start};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::guest::{Guest, config, sum};
use crate::saved::save;

const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY: [u8; 4] = [192, 0, 0, 1];
const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: usize = 8;
/// How long a frame may take; against hangs alone.
const FRAME: Duration = Duration::from_secs(60);

/// A machine's end and the other one.
pub(crate) fn pair() -> (OwnedFd, Link) {
    let (machines, ours) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("sockets");
    set_socket_timeout(&ours, Timeout::Recv, Some(FRAME)).expect("a limit");
    (machines, Link { socket: ours, guest: [0; 6] })
}

/// The end that stands for the network.
pub(crate) struct Link {
    socket: OwnedFd,
    /// The guest's card, once it was heard.
    guest: [u8; 6],
}

impl Link {
    fn frame(&mut self) -> Vec<u8> {
        let mut frame = vec![0; FRAME_MAX + 1];
        let (length, _) =
            block_in_place(|| recv(&self.socket, frame.as_mut_slice(), RecvFlags::empty())).expect("a frame");
        assert!((ETHERNET..=FRAME_MAX).contains(&length), "a frame of {length} bytes");
        frame.truncate(length);
        frame
    }

    fn send(&mut self, frame: &[u8]) {
        let sent = block_in_place(|| send(&self.socket, frame, SendFlags::empty()));
        assert_eq!(sent, Ok(frame.len()), "nobody reads");
    }

    /// The next datagram, questions for the gateway's hardware address answered meanwhile.
    fn datagram(&mut self) -> Vec<u8> {
        loop {
            let frame = self.frame();
            match frame[12..14] {
                [8, 6] if frame[38..42] == GATEWAY => {
                    self.guest.copy_from_slice(&frame[6..12]);
                    let (from, to) = (&frame[22..28], &frame[28..32]);
                    let head: &[u8] = &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
                    let answer = [from, &GATEWAY_MAC, head, &GATEWAY_MAC, &GATEWAY, from, to].concat();
                    self.send(&answer);
                }
                [8, 0] if frame[ETHERNET + 9] == 17 => return frame,
                // Its own neighbours, of whom there are none.
                _ => {}
            }
        }
    }

    /// Answers a datagram with other bytes.
    fn answer(&mut self, datagram: &[u8], bytes: &[u8]) {
        let (ip, udp) = datagram[ETHERNET..].split_at(IP);
        let length = u16::try_from(UDP + bytes.len()).expect("a datagram").to_be_bytes();
        let total = u16::try_from(IP + UDP + bytes.len()).expect("a packet").to_be_bytes();
        let mut head =
            [&[0x45, 0], &total[..], &[0, 0, 0, 0, 64, 17, 0, 0], &ip[16..20], &ip[12..16]].concat();
        let checksum = checksum(&head);
        head[10..12].copy_from_slice(&checksum);
        // No checksum of its own: the guest takes it as it is.
        let udp = [&udp[2..4], &udp[0..2], &length, &[0, 0]].concat();
        self.send(&[&datagram[6..12], &GATEWAY_MAC[..], &[8, 0], &head, &udp, bytes].concat());
    }

    /// Takes a datagram of this size from the guest, and gives it one of that size.
    async fn exchange(&mut self, guest: &mut Guest, size: usize, back: usize) {
        guest.session.tell(&format!("udp {size}")).await;
        let datagram = self.datagram();
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251).to_le_bytes()[0]).collect();
        assert!(datagram[ETHERNET + IP + UDP..].starts_with(&bytes), "another datagram came");
        let bytes: Vec<u8> = (0..back).map(|n| (n % 241).to_le_bytes()[0]).collect();
        self.answer(&datagram, &bytes);
        assert_eq!(guest.session.line().await, sum(&bytes));
    }

    /// The same, behind what the guest had sent before.
    async fn exchange_behind(&mut self, guest: &mut Guest) {
        guest.session.tell("udp 12345").await;
        let mut datagram = self.datagram();
        while datagram.len() != ETHERNET + IP + UDP + 12_345 {
            assert!(datagram[ETHERNET + IP + UDP..].iter().all(|byte| *byte == 0x5a), "a torn datagram");
            datagram = self.datagram();
        }
        self.answer(&datagram, b"heard");
        assert_eq!(guest.session.line().await, sum(b"heard"));
    }
}

fn checksum(head: &[u8]) -> [u8; 2] {
    let words = head.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    [!(folded >> 8).to_le_bytes()[0], !folded.to_le_bytes()[0]]
}

async fn boot(engine: &dyn Engine) -> (Guest, Link) {
    let (mut config, dir) = config();
    let (machines, link) = pair();
    config.network = machines;
    let mut guest = Guest::boot_with(engine, config, dir).await;
    assert_eq!(guest.session.ask("net").await, "ok 65520");
    (guest, link)
}

async fn restore(engine: &dyn Engine, saved: SavedMachine) -> (Guest, Link) {
    let (mut config, dir) = config();
    let (machines, link) = pair();
    (config.network, config.start) = (machines, Start::Restore(Box::new(saved)));
    (Guest::boot_with(engine, config, dir).await, link)
}

pub(crate) async fn frames_go_both_ways_and_so_they_do_in_a_copy(engine: &dyn Engine) {
    let (mut guest, mut link) = boot(engine).await;
    link.exchange(&mut guest, 1000, 900).await;
    for generation in 0..3 {
        let saved = save(guest.machine.as_ref()).await;
        link.exchange(&mut guest, 500, 100 + generation).await;
        let (mut copy, mut its) = restore(engine, saved).await;
        its.exchange(&mut copy, 400, 70 + generation).await;
        link.exchange(&mut guest, 300, 50).await;
        (guest, link) = (copy, its);
    }
}

pub(crate) async fn the_largest_frames_go_both_ways(engine: &dyn Engine) {
    let (mut guest, mut link) = boot(engine).await;
    let most = FRAME_MAX - ETHERNET - IP - UDP;
    for _ in 0..20 {
        link.exchange(&mut guest, most, most).await;
        link.exchange(&mut guest, 1, 1).await;
    }
}

pub(crate) async fn frames_that_nobody_takes_stay_whole_across_a_pause(engine: &dyn Engine) {
    let (mut guest, mut link) = boot(engine).await;
    link.exchange(&mut guest, 10, 10).await;
    for _ in 0..5 {
        assert!(guest.session.number("spray 100").await > 0);
        drop(save(guest.machine.as_ref()).await);
        // Of those that were sent some may be lost, but what comes is whole.
        link.exchange_behind(&mut guest).await;
    }
}

pub(crate) async fn a_guest_without_a_network_goes_on(engine: &dyn Engine) {
    let (mut guest, mut link) = boot(engine).await;
    link.exchange(&mut guest, 10, 10).await;
    drop(link);
    for _ in 0..3 {
        assert!(guest.session.number("spray 20").await > 0);
        sleep(Duration::from_millis(50)).await;
    }
    let saved = save(guest.machine.as_ref()).await;
    assert!(guest.session.number("spray 20").await > 0);
    let (mut copy, mut link) = restore(engine, saved).await;
    link.exchange_behind(&mut copy).await;
}

pub(crate) async fn frames_that_come_while_a_guest_stands_still_reach_it_later(engine: &dyn Engine) {
    let (mut guest, mut link) = boot(engine).await;
    guest.session.tell("udp 100").await;
    let datagram = link.datagram();
    guest.machine.pause().await.expect("a pause");
    link.answer(&datagram, b"while it stood still");
    sleep(Duration::from_millis(200)).await;
    let file = || tempfile::tempfile().expect("a temporary file");
    let saved = guest.machine.save(file()).await.expect("a saved machine");
    // No frame gets into the memory of a guest that stands still.
    let again = guest.machine.save(file()).await.expect("a saved machine");
    assert!(saved.devices == again.devices, "the devices go on while the machine stands still");
    guest.machine.resume().await.expect("a guest that goes on");
    assert_eq!(guest.session.line().await, sum(b"while it stood still"));
}
