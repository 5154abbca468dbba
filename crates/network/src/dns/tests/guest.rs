//! Hostile and odd guests.

use std::{cell::Cell, net::IpAddr};

use futures::{StreamExt as _, stream::FuturesUnordered};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType, rdata::opt::EdnsOption},
};
use proptest::prelude::*;

use super::fixture::{Ledger, NAME, Server, address, answer, ask, dns, forward, name, query, with_edns};
use crate::dns::{Admission, Dns, MAX_IN_FLIGHT, Over, Servers, hosts::HostsFile};

fn nobody() -> Dns {
    Dns::new(Servers::Given { servers: Vec::new(), search: vec!["a.example".into()] })
}

/// What a query gets that the gate must not even hear of.
async fn code_of(query: &Message) -> ResponseCode {
    let gate = forward();
    let answer = ask(&nobody(), query, Over::Udp, &gate).await;
    assert!(gate.asked.borrow().is_empty());
    answer.metadata.response_code
}

#[tokio::test]
async fn what_is_no_query_is_not_answered() {
    let gate = forward();
    let mut response = query(RecordType::A);
    response.metadata.message_type = MessageType::Response;
    for bytes in [&[][..], &[0; 11], &response.to_vec().unwrap()] {
        assert_eq!(nobody().answer(bytes, Over::Udp, &gate).await, None);
    }
}

#[tokio::test]
async fn what_is_not_one_plain_question_is_refused() {
    let changed = |change: fn(&mut Message)| {
        let mut query = query(RecordType::A);
        change(&mut query);
        query
    };
    let two = changed(|query| {
        query.add_query(Query::query(Name::root(), RecordType::A));
    });
    assert_eq!(code_of(&two).await, ResponseCode::FormErr);
    assert_eq!(code_of(&changed(|query| query.queries.clear())).await, ResponseCode::FormErr);
    let with_answer = changed(|query| {
        query.add_answer(address(NAME, "203.0.113.1"));
    });
    assert_eq!(code_of(&with_answer).await, ResponseCode::FormErr);
    let long = changed(|query| {
        query.add_additionals(std::iter::repeat_n(address("a-longer-name.example.", "203.0.113.1"), 300));
    });
    assert_eq!(code_of(&long).await, ResponseCode::FormErr);
    let chaos = changed(|query| query.queries[0].query_class = DNSClass::CH);
    assert_eq!(code_of(&chaos).await, ResponseCode::Refused);
    let notify = changed(|query| query.metadata.op_code = OpCode::Notify);
    assert_eq!(code_of(&notify).await, ResponseCode::NotImp);
    let mut newer = with_edns(query(RecordType::A), 1232, false);
    newer.edns.as_mut().unwrap().set_version(1);
    // BADVERS, a number that signatures use for another error.
    assert_eq!(u16::from(code_of(&newer).await), 16);
}

#[tokio::test]
async fn types_that_no_record_has_or_can_be_copied_are_refused() {
    for (kind, code) in [
        (RecordType::ANY, ResponseCode::NotImp),
        (RecordType::Unknown(249), ResponseCode::NotImp),
        (RecordType::AXFR, ResponseCode::Refused),
        (RecordType::IXFR, ResponseCode::Refused),
        (RecordType::OPT, ResponseCode::FormErr),
        (RecordType::Unknown(14), ResponseCode::NotImp),
    ] {
        assert_eq!(code_of(&query(kind)).await, code, "{kind}");
    }
}

#[tokio::test]
async fn a_dot_within_a_label_does_not_pass_for_one_between_two() {
    let mut asked = query(RecordType::A);
    asked.queries[0].name = Name::from_labels([&b"evil.allowed"[..], b"example"]).unwrap();
    assert_eq!(code_of(&asked).await, ResponseCode::NXDomain);
}

#[tokio::test]
async fn names_that_lead_to_other_name_servers_stay_here() {
    for (text, code) in
        [("use-application-dns.net.", ResponseCode::NXDomain), ("_dns.Resolver.ARPA.", ResponseCode::NoError)]
    {
        let mut asked = query(RecordType::SVCB);
        asked.queries[0].name = name(text);
        assert_eq!(code_of(&asked).await, code);
    }
}

#[tokio::test]
async fn a_refused_name_does_not_exist_and_the_guest_is_told_why() {
    let gate = Ledger::new(Admission::Refuse);
    let plain = ask(&nobody(), &query(RecordType::A), Over::Udp, &gate).await;
    assert_eq!((plain.metadata.response_code, plain.edns), (ResponseCode::NXDomain, None));
    let edns = with_edns(query(RecordType::MX), 1232, false);
    let answer = ask(&nobody(), &edns, Over::Udp, &gate).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    let edns = answer.edns.unwrap();
    let [(_, EdnsOption::Unknown(15, error))] = edns.options().as_ref() else { panic!("{edns:?}") };
    assert_eq!((&error[..2], &error[2..]), (&[0, 15][..], &b"blocked by the sandbox's network policy"[..]));
    let expected = [("www.example".into(), RecordType::A), ("www.example".into(), RecordType::MX)];
    assert_eq!(*gate.asked.borrow(), expected);
}

#[tokio::test]
async fn a_name_of_the_gateways_has_its_addresses_only() {
    let addresses = ["192.0.0.3", "fd4e:7c31:5a9d::3"];
    let gate = Ledger::new(Admission::Local(addresses.map(|text| text.parse().unwrap()).to_vec()));
    for (kind, expected) in
        [(RecordType::A, Some(addresses[0])), (RecordType::AAAA, Some(addresses[1])), (RecordType::MX, None)]
    {
        let answer = ask(&nobody(), &query(kind), Over::Udp, &gate).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(answer.answers, expected.map(|text| address(NAME, text)).into_iter().collect::<Vec<_>>());
        assert!(answer.answers.iter().all(|record| record.ttl == 60));
        assert!(answer.queries[0].name.eq_case(&name(NAME)));
    }
    assert!(gate.learned.borrow().is_empty());
    let gate = Ledger::new(Admission::LocalNoData);
    let answer = ask(&nobody(), &query(RecordType::A), Over::Udp, &gate).await;
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
}

#[tokio::test]
async fn a_name_in_the_hosts_file_has_the_addresses_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hosts");
    std::fs::write(&path, "10.0.0.7 www.example\n127.0.0.1 localhost\n").unwrap();
    let server = Server::answering(|query| answer(query, [])).await;
    let dns = Dns { hosts: Some(HostsFile::new(path)), ..dns([&server]) };
    let gate = forward();
    let found = ask(&dns, &query(RecordType::A), Over::Udp, &gate).await;
    assert_eq!(found.answers, [address(NAME, "10.0.0.7")]);
    assert_eq!(gate.addresses(), ["10.0.0.7"]);
    for kind in [RecordType::AAAA, RecordType::HTTPS] {
        assert!(ask(&dns, &query(kind), Over::Udp, &gate).await.answers.is_empty());
    }
    assert!(server.asked().is_empty());
    ask(&dns, &query(RecordType::MX), Over::Udp, &gate).await;
    assert_eq!(server.asked().len(), 1);
    let refusing = Ledger::new(Admission::Refuse);
    let refused = ask(&dns, &query(RecordType::A), Over::Udp, &refusing).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn one_question_too_many_fails_at_once() {
    let silent = Server::silent().await;
    let (dns, gate) = (dns([&silent]), forward());
    let asked = query(RecordType::A);
    let mut waiting: FuturesUnordered<_> =
        (0..=MAX_IN_FLIGHT).map(|_| ask(&dns, &asked, Over::Udp, &gate)).collect();
    let first = waiting.next().await.unwrap();
    assert_eq!(first.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(dns.in_flight.get(), MAX_IN_FLIGHT);
    drop(waiting);
    assert_eq!(dns.in_flight.get(), 0);
}

#[test]
fn the_search_domains_are_those_given() {
    assert_eq!(nobody().search(), ["a.example"]);
}

/// Answers in all ways that need no server.
struct Moods(Cell<usize>);

impl crate::dns::Gate for Moods {
    fn admit(&self, name: &str, _: RecordType) -> Admission {
        assert!(!name.ends_with('.') && name == name.to_ascii_lowercase() && !name.contains('\\'));
        self.0.set(self.0.get() + 1);
        let addresses = vec![IpAddr::from([192, 0, 0, 3]); 200];
        [Admission::Refuse, Admission::Local(addresses), Admission::Forward][self.0.get() % 3].clone()
    }

    fn learned(&self, _: &str, _: IpAddr, _: std::time::Duration) {
        panic!("nothing was asked");
    }
}

proptest! {
    #[test]
    fn whatever_a_guest_sends_an_answer_is_one_to_it(
        random in prop::collection::vec(any::<u8>(), 0..64),
        flags in prop_oneof![Just(1_u8), any::<u8>()],
        counts in prop_oneof![Just([1_u8, 0, 0, 1]), Just([1, 0, 0, 0]), any::<[u8; 4]>()],
        kind in prop_oneof![Just(1_u8), any::<u8>()],
        labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..63), 0..5),
        options in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut query = vec![7, 8, flags, 0];
        query.extend(counts.into_iter().flat_map(|count| [0, count]));
        for label in labels {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label);
        }
        query.extend([0, 0, kind, 0, 1]);
        query.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, u8::try_from(options.len()).unwrap()]);
        query.extend(options);
        let gate = Moods(Cell::new(0));
        for bytes in [&query, &random] {
            for over in [Over::Udp, Over::Tcp] {
                if let Some(answer) = runtime.block_on(nobody().answer(bytes, over, &gate)) {
                    let answer = Message::from_vec(&answer).unwrap();
                    prop_assert_eq!(&answer.metadata.id.to_be_bytes(), &bytes[..2]);
                    prop_assert_eq!(answer.metadata.message_type, MessageType::Response);
                }
            }
        }
    }
}
