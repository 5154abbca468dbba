//! Which records of a server's answer a guest gets, and the gate learns.

use std::{net::Ipv4Addr, time::Duration};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        DNSClass, RData, Record, RecordType,
        rdata::{
            A, HTTPS, NULL, SOA, SVCB, TXT,
            svcb::{Alpn, EchConfigList, IpHint, Mandatory, SvcParamKey, SvcParamValue},
        },
    },
};

use super::fixture::{
    Ledger, NAME, Server, address, alias, answer, ask, dns, forward, name, query, with_edns,
};
use crate::dns::Over;

async fn addresses_from(records: impl Fn() -> Vec<Record> + Send + Sync + 'static) -> (Message, Ledger) {
    let server = Server::answering(move |query| answer(query, records())).await;
    let gate = forward();
    let answer = ask(&dns([&server]), &query(RecordType::A), Over::Udp, &gate).await;
    (answer, gate)
}

#[tokio::test]
async fn an_address_is_passed_on_and_learned() {
    let (answer, gate) = addresses_from(|| vec![address("WWW.example.", "203.0.113.7")]).await;
    assert_eq!(answer.answers, [address(NAME, "203.0.113.7")]);
    assert!(answer.queries[0].name.eq_case(&name(NAME)) && answer.answers[0].name.eq_case(&name(NAME)));
    assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    let expected = ("www.example".into(), "203.0.113.7".parse().unwrap(), Duration::from_secs(300));
    assert_eq!(*gate.learned.borrow(), [expected]);
}

#[tokio::test]
async fn of_too_many_records_some_are_passed_on() {
    let server = Server::start(Box::new(|query, over| {
        let record = |n: u32| address(NAME, &Ipv4Addr::from(n).to_string());
        let mut huge = answer(query, (0..2000).filter(|_| over == Over::Tcp).map(record));
        huge.metadata.truncation = over == Over::Udp;
        vec![huge.into()]
    }))
    .await;
    let gate = forward();
    let answer = ask(&dns([&server]), &query(RecordType::A), Over::Tcp, &gate).await;
    assert_eq!((answer.answers.len(), gate.addresses().len()), (256, 256));
}

#[tokio::test]
async fn an_address_behind_aliases_is_learned_under_the_name_asked_for() {
    let (answer, gate) = addresses_from(|| {
        // In no order, with what is of no concern between them.
        vec![
            address("b.internal.", "10.1.2.3"),
            alias("a.example.", "B.internal."),
            of_another_class(address("a.example.", "203.0.113.9")),
            alias("www.example.", "a.example."),
        ]
    })
    .await;
    let expected =
        [alias(NAME, "a.example."), alias("a.example.", "b.internal."), address("b.internal.", "10.1.2.3")];
    assert_eq!(answer.answers, expected);
    assert_eq!(gate.addresses(), ["10.1.2.3"]);
}

fn of_another_class(mut record: Record) -> Record {
    record.dns_class = DNSClass::CH;
    record
}

fn with_ttl(mut record: Record, ttl: u32) -> Record {
    record.ttl = ttl;
    record
}

#[tokio::test]
async fn records_of_others_are_neither_passed_on_nor_learned() {
    let server = Server::answering(|query| {
        let records = [
            address("bank.example.", "203.0.113.1"),
            address("x.www.example.", "203.0.113.2"),
            address(NAME, "2001:db8::1"),
            alias("bank.example.", "www.example."),
            address(NAME, "203.0.113.7"),
        ];
        let mut message = answer(query, records);
        message.add_authority(address(NAME, "203.0.113.3"));
        message.add_additional(address(NAME, "203.0.113.4"));
        message
    })
    .await;
    let gate = forward();
    let answer = ask(&dns([&server]), &query(RecordType::A), Over::Udp, &gate).await;
    assert_eq!(answer.answers, [address(NAME, "203.0.113.7")]);
    assert!(answer.authorities.is_empty());
    assert_eq!(gate.addresses(), ["203.0.113.7"]);
}

#[tokio::test]
async fn only_addresses_that_were_asked_for_are_learned() {
    let record = Record::from_rdata(name(NAME), 1, RData::TXT(TXT::new(vec!["203.0.113.1".into()])));
    let server =
        Server::answering(move |query| answer(query, [address(NAME, "203.0.113.1"), record.clone()])).await;
    let gate = forward();
    let answer = ask(&dns([&server]), &query(RecordType::TXT), Over::Udp, &gate).await;
    assert_eq!((answer.answers.len(), answer.answers[0].record_type()), (1, RecordType::TXT));
    assert!(gate.learned.borrow().is_empty());
}

#[tokio::test]
async fn a_time_to_live_is_a_day_at_most() {
    for (ttl, expected) in [(0, 0), (86_401, 86_400), (u32::MAX, 0), (1 << 31, 0)] {
        let (answer, gate) = addresses_from(move || vec![with_ttl(address(NAME, "203.0.113.1"), ttl)]).await;
        assert_eq!(answer.answers[0].ttl, expected);
        assert_eq!(gate.learned.borrow()[0].2, Duration::from_secs(expected.into()));
    }
}

#[tokio::test]
async fn aliases_without_an_end_are_no_answer() {
    let (circle, gate) =
        addresses_from(|| vec![alias(NAME, "a.example."), alias("a.example.", "www.example.")]).await;
    assert_eq!(circle.metadata.response_code, ResponseCode::ServFail);
    let chain = |links: u32| {
        let link = |n| alias(&format!("n{n}.example."), &format!("n{}.example.", n + 1));
        let mut records: Vec<_> = (1..links).map(link).collect();
        records.extend([alias(NAME, "n1.example."), address(&format!("n{links}.example."), "203.0.113.1")]);
        records
    };
    let (long, long_gate) = addresses_from(move || chain(17)).await;
    assert_eq!(long.metadata.response_code, ResponseCode::ServFail);
    assert!(gate.addresses().is_empty() && long_gate.addresses().is_empty());
    let (longest, longest_gate) = addresses_from(move || chain(16)).await;
    assert_eq!((longest.answers.len(), longest_gate.addresses().len()), (17, 1));
}

#[tokio::test]
async fn of_what_does_not_exist_only_its_zone_is_told() {
    let zone = |owner: &str| {
        let soa = SOA::new(name("ns.example."), name("root.example."), 1, 2, 3, 4, 5);
        Record::from_rdata(name(owner), 60, RData::SOA(soa))
    };
    let server = Server::answering(move |query| {
        let mut message = answer(query, [address(NAME, "203.0.113.1")]);
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_authorities([zone("other."), zone("example."), address("ns.example.", "203.0.113.2")]);
        message
    })
    .await;
    let gate = forward();
    let answer = ask(&dns([&server]), &query(RecordType::A), Over::Udp, &gate).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.authorities, [zone("example.")]);
    assert!(answer.answers.is_empty() && gate.addresses().is_empty());
}

#[tokio::test]
async fn signatures_are_for_those_who_ask_for_them() {
    let signature = |covered: u16| {
        let bytes = [&covered.to_be_bytes()[..], &[13, 2], &[0; 40]].concat();
        let data = RData::Unknown { code: RecordType::RRSIG, rdata: NULL::with(bytes) };
        Record::from_rdata(name(NAME), 300, data)
    };
    let server = Server::answering(move |query| {
        answer(query, [signature(1), signature(16), address(NAME, "203.0.113.1")])
    })
    .await;
    for (dnssec, expected) in [
        (true, vec![address(NAME, "203.0.113.1"), signature(1)]),
        (false, vec![address(NAME, "203.0.113.1")]),
    ] {
        let asked = with_edns(query(RecordType::A), 1232, dnssec);
        let answer = ask(&dns([&server]), &asked, Over::Udp, &forward()).await;
        assert_eq!(answer.answers, expected);
        assert_eq!(answer.edns.unwrap().flags().dnssec_ok, dnssec);
    }
}

#[tokio::test]
async fn service_records_lose_what_leads_around_the_gateway() {
    let service = |priority, parameters| {
        let service = SVCB::new(priority, name("."), parameters);
        Record::from_rdata(name(NAME), 300, RData::HTTPS(HTTPS(service)))
    };
    let alpn = || (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h2".into()])));
    let hint = || (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A::new(10, 0, 0, 1)])));
    let ech = || (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![1, 2])));
    let needed =
        (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(vec![SvcParamKey::EchConfigList])));
    let server = Server::answering(move |query| {
        answer(
            query,
            [service(1, vec![alpn(), hint(), ech()]), service(2, vec![needed.clone(), alpn(), ech()])],
        )
    })
    .await;
    let gate = forward();
    let answer = ask(&dns([&server]), &query(RecordType::HTTPS), Over::Udp, &gate).await;
    assert_eq!(answer.answers, [service(1, vec![alpn()])]);
    assert!(gate.learned.borrow().is_empty());
}
