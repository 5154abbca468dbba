//! The guest's name server: a forwarder that lets out only plain questions that the gate admits, and in only what answers them.
//!
//! Both sides are hostile. No byte of a query or an answer is passed on as it came: each is taken apart, and a
//! message is made anew of the few parts that count.
//!
//! ```text
//! query ─► question ─► gate ─► hosts file ─► upstream ─► relevant ─► gate learns ─► reply
//!             │         │          │            │
//!          no query   refused    known     nobody answers
//! ```
//!
//! Nothing is cached: the host's resolver does that, and the gate knows for how long an address is good.

mod hosts;
mod question;
mod relevant;
mod reply;
mod servers;
mod svcb;
mod upstream;
mod watched;

#[cfg(test)]
mod tests;

use std::{cell::Cell, net::IpAddr, time::Duration};

pub use hickory_proto::rr::RecordType;
use hickory_proto::{
    op::ResponseCode,
    rr::{
        RData, Record,
        rdata::{A, AAAA},
    },
};

pub use self::servers::Servers;
use self::{
    hosts::HostsFile,
    question::{Question, Reading},
    reply::Reply,
    servers::Source,
};

/// How many questions may wait for a server at once. A guest that asks more does not wait for an answer anyway.
const MAX_IN_FLIGHT: usize = 64;
/// How long an answer is good that is the gateway's own.
const LOCAL_TTL: Duration = Duration::from_secs(60);
/// The same of one that may be another's soon.
const BRIEF_TTL: Duration = Duration::from_secs(5);

/// How a query came, which says how large its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// As a datagram.
    Udp,
    /// Through a connection, without the length before it.
    Tcp,
}

/// What is done with a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The host's servers are asked.
    Forward,
    /// There is no such name, as far as the guest can tell.
    Refuse,
    /// The name has these addresses, and no other records.
    Local(Vec<IpAddr>),
    /// The same, but not for long: who has them may be gone soon.
    Brief(Vec<IpAddr>),
    /// The name exists and has no records.
    LocalNoData,
}

/// Who decides over names, and hears of the addresses they have.
pub trait Gate {
    /// What is done with a question, before anything leaves the host.
    ///
    /// The name is in lower case, without the dot at its end (the root is empty), and each dot in it separates two labels: names that
    /// would need an escape are refused before.
    fn admit(&self, name: &str, kind: RecordType) -> Admission;

    /// An address that the guest is about to be given for the name that it asked for, and for how long it is good.
    fn learned(&self, name: &str, address: IpAddr, ttl: Duration);
}

/// The name server of one guest.
#[derive(Debug)]
pub struct Dns {
    source: Source,
    hosts: Option<HostsFile>,
    in_flight: Cell<usize>,
}

impl Dns {
    /// A server that forwards to these.
    pub fn new(servers: Servers) -> Self {
        Self { source: Source::new(servers), hosts: None, in_flight: Cell::new(0) }
    }

    /// Answers for the names in the host's `/etc/hosts` from there, but for those of the loopback. The gate is
    /// asked first, and learns their addresses, as with any server's answer.
    #[must_use]
    pub fn with_hosts_file(self) -> Self {
        Self { hosts: Some(HostsFile::new("/etc/hosts".into())), ..self }
    }

    /// The domains that the guest is to complete names with.
    pub fn search(&self) -> Vec<String> {
        self.source.current().search.clone()
    }

    /// Answers one query, within 15 seconds. `None` if it is none, and nothing is to be answered.
    pub async fn answer(&self, query: &[u8], over: Over, gate: &dyn Gate) -> Option<Vec<u8>> {
        let question = match question::read(query) {
            Reading::Question(question) => question,
            Reading::Invalid(reply) => return reply.encode(),
            Reading::Nothing => return None,
        };
        let reply = self.reply(&question, gate).await;
        let (bytes, whole) = reply.to(&question, over)?;
        // What did not fit the guest has not got, and asks for again.
        if whole {
            for (address, ttl) in reply.learn {
                gate.learned(question.text(), address, ttl);
            }
        }
        Some(bytes)
    }

    async fn reply(&self, question: &Question, gate: &dyn Gate) -> Reply {
        if question.is_unsafe() {
            return Reply::refused();
        }
        if let Some(reply) = special(question.text()) {
            return reply;
        }
        match gate.admit(question.text(), question.kind()) {
            Admission::Refuse => return Reply::refused(),
            Admission::Local(addresses) => return local(question, &addresses, LOCAL_TTL),
            Admission::Brief(addresses) => return local(question, &addresses, BRIEF_TTL),
            Admission::LocalNoData => return Reply::code(ResponseCode::NoError),
            Admission::Forward => {}
        }
        if let Some(addresses) = self.hosts.as_ref().and_then(|hosts| hosts.find(question)) {
            let reply = local(question, &addresses, LOCAL_TTL);
            let learn = reply.answers.iter().filter_map(|record| record.data.ip_addr());
            return Reply { learn: learn.map(|address| (address, LOCAL_TTL)).collect(), ..reply };
        }
        let Some(_place) = Place::take(&self.in_flight) else {
            return Reply::code(ResponseCode::ServFail);
        };
        upstream::ask(&self.source.current(), question)
            .await
            .unwrap_or_else(|| Reply::code(ResponseCode::ServFail))
    }
}

/// Names with a meaning of their own, that no forwarder may pass on.
fn special(name: &str) -> Option<Reply> {
    // Firefox asks for it, and keeps to this server if it does not exist. One elsewhere would give it addresses
    // that the gate has not learned.
    if name == "use-application-dns.net" {
        return Some(Reply::code(ResponseCode::NXDomain));
    }
    // What encrypted servers there are: this one has none, and those of the host's servers are not the guest's
    // (RFC 9462, section 6.5).
    (name == "resolver.arpa" || name.ends_with(".resolver.arpa")).then(|| Reply::code(ResponseCode::NoError))
}

/// Those of the addresses that were asked for.
fn local(question: &Question, addresses: &[IpAddr], ttl: Duration) -> Reply {
    let data = addresses.iter().filter_map(|address| match (question.kind(), address) {
        (RecordType::A, IpAddr::V4(address)) => Some(RData::A(A(*address))),
        (RecordType::AAAA, IpAddr::V6(address)) => Some(RData::AAAA(AAAA(*address))),
        _ => None,
    });
    let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
    let answers = data.map(|data| Record::from_rdata(question.name().clone(), ttl, data)).collect();
    Reply { answers, ..Reply::code(ResponseCode::NoError) }
}

/// A place among the questions that wait.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(taken: &'a Cell<usize>) -> Option<Self> {
        (taken.get() < MAX_IN_FLIGHT).then(|| {
            taken.set(taken.get() + 1);
            Self(taken)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
