//! Hostile, broken and slow servers.

use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{
        DNSClass, RData, Record, RecordType,
        rdata::{
            TXT,
            opt::{EdnsCode, EdnsOption},
        },
    },
};

use super::fixture::{NAME, Sent, Server, address, answer, ask, dns, forward, name, query, with_edns};
use crate::dns::Over;

#[tokio::test]
async fn nothing_of_the_guests_goes_out_but_its_question() {
    let server = Server::answering(|query| answer(query, [])).await;
    let mut sent = with_edns(query(RecordType::TXT), 65_000, true);
    sent.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(10, vec![7; 8]));
    sent.add_additional(address("secret.example.", "192.0.2.1"));
    sent.metadata.authentic_data = true;
    ask(&dns([&server]), &sent, Over::Tcp, &forward()).await;
    let asked = server.asked.lock().unwrap();
    let outside = Message::from_vec(&asked[0].1).unwrap();
    assert!(outside.queries[0].name.eq_case(&name("www.example.")));
    let mut edns = Edns::new();
    edns.set_max_payload(1232).set_dnssec_ok(true);
    let mut expected = Message::query();
    expected.metadata.id = outside.metadata.id;
    expected.metadata.recursion_desired = true;
    expected.add_query(Query::query(name("www.example."), RecordType::TXT)).set_edns(edns);
    assert_eq!(outside, expected);
}

#[tokio::test]
async fn what_is_not_the_servers_answer_is_passed_over() {
    let server = Server::start(Box::new(|query, _| {
        let good = |address_| answer(query, [address(NAME, address_)]);
        let mut other_id = good("203.0.113.1");
        other_id.metadata.id ^= 1;
        let mut other_question = good("203.0.113.2");
        other_question.queries[0].name = name("other.example.");
        let mut other_class = good("203.0.113.3");
        other_class.queries[0].query_class = DNSClass::CH;
        let mut no_question = good("203.0.113.4");
        no_question.queries.clear();
        let elsewhere = Sent::FromAnotherPort(good("203.0.113.5").to_vec().unwrap());
        let mut sent: Vec<Sent> = [query.clone(), other_id, other_question, other_class, no_question]
            .into_iter()
            .map(Sent::from)
            .collect();
        sent.extend([Sent::Bytes(vec![]), Sent::Bytes(vec![0xff; 40]), elsewhere]);
        sent.push(good("203.0.113.7").into());
        sent
    }))
    .await;
    let gate = forward();
    let answer = ask(&dns([&server]), &query(RecordType::A), Over::Udp, &gate).await;
    assert_eq!(answer.answers, [address(NAME, "203.0.113.7")]);
    assert_eq!(gate.addresses(), ["203.0.113.7"]);
}

#[tokio::test]
async fn who_guesses_ids_gets_a_few_guesses() {
    let server = Server::start(Box::new(|query, _| {
        let guess = |offset| {
            let mut guess = answer(query, [address(NAME, "203.0.113.1")]);
            guess.metadata.id ^= offset;
            guess.into()
        };
        (1..=64).chain([0]).map(guess).collect()
    }))
    .await;
    let gate = forward();
    let answer = ask(&dns([&server]), &query(RecordType::A), Over::Udp, &gate).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((gate.addresses().len(), server.asked().len()), (0, 1));
}

#[tokio::test]
async fn a_cut_answer_is_fetched_through_a_connection() {
    let server = Server::start(Box::new(|query, over| {
        let mut cut = answer(query, [address(NAME, "203.0.113.1")]);
        cut.metadata.truncation = over == Over::Udp;
        let mut bytes = cut.to_vec().unwrap();
        if over == Over::Udp {
            bytes.truncate(bytes.len() - 3);
        }
        vec![Sent::Bytes(bytes)]
    }))
    .await;
    let answer = ask(&dns([&server]), &query(RecordType::A), Over::Udp, &forward()).await;
    assert_eq!(answer.answers, [address(NAME, "203.0.113.1")]);
    assert_eq!(server.asked(), [Over::Udp, Over::Tcp]);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_cut_and_not_learned() {
    let many = |count: u8| (0..count).map(|n| address(NAME, &format!("203.0.113.{n}")));
    let server = Server::answering(move |query| answer(query, many(100))).await;
    let (dns, gate) = (dns([&server]), forward());
    for (payload, over, whole) in [
        (None, Over::Udp, false),
        (Some(100), Over::Udp, false),
        (Some(1232), Over::Udp, false),
        (Some(4096), Over::Udp, true),
        (None, Over::Tcp, true),
    ] {
        gate.learned.borrow_mut().clear();
        let mut asked = query(RecordType::A);
        if let Some(payload) = payload {
            asked = with_edns(asked, payload, false);
        }
        let answer = ask(&dns, &asked, over, &gate).await;
        assert_eq!(answer.metadata.truncation, !whole, "{payload:?} {over:?}");
        let count = if whole { 100 } else { 0 };
        assert_eq!((answer.answers.len(), gate.learned.borrow().len()), (count, count), "{payload:?}");
        assert_eq!(answer.edns.is_some(), payload.is_some());
    }
}

#[tokio::test]
async fn a_guest_that_offers_more_gets_no_larger_datagram() {
    let text = TXT::new(vec!["x".repeat(250); 20]);
    let record = Record::from_rdata(name(NAME), 1, RData::TXT(text));
    let server = Server::answering(move |query| answer(query, [record.clone()])).await;
    let asked = with_edns(query(RecordType::TXT), 65_535, false);
    let answer = ask(&dns([&server]), &asked, Over::Udp, &forward()).await;
    assert!(answer.metadata.truncation && answer.answers.is_empty());
}

#[tokio::test]
async fn a_slow_server_is_passed_over() {
    let (slow, next) = (Server::silent().await, Server::answering(|query| answer(query, [])).await);
    let answer = ask(&dns([&slow, &next]), &query(RecordType::A), Over::Udp, &forward()).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!((slow.asked().len(), next.asked().len()), (1, 1));
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again() {
    let seen = std::sync::atomic::AtomicBool::new(false);
    let server = Server::start(Box::new(move |query, _| {
        let again = seen.swap(true, std::sync::atomic::Ordering::Relaxed);
        again.then(|| answer(query, []).into()).into_iter().collect()
    }))
    .await;
    let answer = ask(&dns([&server]), &query(RecordType::A), Over::Udp, &forward()).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn a_server_that_refuses_or_fails_is_passed_over() {
    let failing = |code| {
        Server::answering(move |query| {
            let mut failure = answer(query, [address(NAME, "203.0.113.1")]);
            failure.metadata.response_code = code;
            failure
        })
    };
    let refusing = failing(ResponseCode::Refused).await;
    let broken = failing(ResponseCode::ServFail).await;
    let good = Server::answering(|query| answer(query, [address(NAME, "203.0.113.2")])).await;
    let gate = forward();
    ask(&dns([&refusing, &broken, &good]), &query(RecordType::A), Over::Udp, &gate).await;
    assert_eq!(gate.addresses(), ["203.0.113.2"]);
    let answer = ask(&dns([&refusing, &broken]), &query(RecordType::A), Over::Udp, &gate).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(answer.answers.is_empty() && gate.addresses().len() == 1);
    assert_eq!(broken.asked().len(), 2);
}

#[tokio::test]
async fn without_a_server_the_lookup_fails_at_once() {
    let gone = Server::silent().await;
    let closed_port = gone.address;
    drop(gone);
    // A port that nobody listens on any more; and a server that sends nothing but garbage.
    tokio::task::yield_now().await;
    let garbage = Server::start(Box::new(|query, _| {
        let mut bytes = answer(query, [address(NAME, "203.0.113.1")]).to_vec().unwrap();
        bytes.truncate(bytes.len() - 2);
        vec![Sent::Bytes(bytes)]
    }))
    .await;
    let closed = dns([]);
    let crate::dns::Source::Given(upstream) = &closed.source else { unreachable!() };
    let mut upstream = (**upstream).clone();
    upstream.servers = vec![closed_port];
    let closed = crate::dns::Dns { source: crate::dns::Source::Given(upstream.into()), ..closed };
    for dns in [dns([]), closed, dns([&garbage])] {
        let answer = ask(&dns, &query(RecordType::A), Over::Udp, &forward()).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
}

#[tokio::test]
async fn a_server_without_edns_is_asked_without_it() {
    let server = Server::answering(|query| {
        let mut message = answer(query, []);
        if query.edns.is_some() {
            message.metadata.response_code = ResponseCode::FormErr;
            message.queries.clear();
        }
        message
    })
    .await;
    let answer = ask(&dns([&server]), &query(RecordType::A), Over::Udp, &forward()).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn an_option_of_a_server_is_not_passed_on() {
    let server = Server::answering(|query| {
        let mut message = with_edns(answer(query, []), 4096, false);
        message.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(10, vec![7; 16]));
        message
    })
    .await;
    let asked = with_edns(query(RecordType::A), 1232, false);
    let answer = ask(&dns([&server]), &asked, Over::Udp, &forward()).await;
    assert!(answer.edns.unwrap().option(EdnsCode::Cookie).is_none());
}
