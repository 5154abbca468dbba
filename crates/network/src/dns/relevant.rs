//! Which records of a server's answer are about what was asked.
//!
//! ```text
//! question ── CNAME ──► name ── CNAME ──► name ── the records of the type asked for
//! ```
//!
//! A server may put anything into an answer, addresses of other names among them. Only this chain counts.

use std::time::Duration;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
    serialize::binary::BinEncodable,
};

use super::{question::Question, reply::Reply, svcb};

/// How many aliases a name may have before its records.
const MAX_LINKS: usize = 16;
/// How many records of the type asked for are passed on, each with the signatures it may have.
const MAX_RECORDS: usize = 256;
/// How many records prove that there are none.
const MAX_PROOF: usize = 32;
/// For how long anything is good.
const MAX_TTL: u32 = 24 * 60 * 60;

/// A name that is an alias of itself, or of too many.
#[derive(Debug, thiserror::Error)]
#[error("its chain of aliases does not end")]
pub(super) struct Endless;

/// Makes the reply of what answers the question.
pub(super) fn sift(question: &Question, answer: &Message) -> Result<Reply, Endless> {
    let mut sifter = Sifter { question, answer, taken: Vec::new() };
    let code = answer.metadata.response_code;
    let name = sifter.follow_aliases()?;
    let aliases = sifter.taken.len();
    if code == ResponseCode::NoError {
        sifter.take_set(&name, question.kind());
    }
    let mut reply = Reply::code(code);
    if sifter.taken.len() == aliases {
        reply.authorities = proof(question, answer, &name);
    } else if matches!(question.kind(), RecordType::A | RecordType::AAAA) {
        let found = &sifter.taken[aliases..];
        let lives = |record: &Record| Duration::from_secs(u64::from(record.ttl));
        reply.learn =
            found.iter().filter_map(|record| Some((record.data.ip_addr()?, lives(record)))).collect();
    }
    reply.answers = sifter.taken;
    Ok(reply)
}

struct Sifter<'a> {
    question: &'a Question,
    answer: &'a Message,
    taken: Vec<Record>,
}

impl Sifter<'_> {
    /// Takes the aliases from the question's name on, and returns the name at their end.
    fn follow_aliases(&mut self) -> Result<Name, Endless> {
        let mut name = self.question.name().clone();
        for _ in 0..=MAX_LINKS {
            if self.records(&name, self.question.kind()).next().is_some() {
                return Ok(name);
            }
            let Some((alias, target)) = self.records(&name, RecordType::CNAME).find_map(alias) else {
                return Ok(name);
            };
            let alias = passed_on(alias, self.question);
            self.take_parent_aliases(&name);
            self.taken.extend(alias);
            self.take_signatures(&name, RecordType::CNAME);
            name = target;
        }
        Err(Endless)
    }

    /// An alias of all names below another, which the alias that was found was made from.
    fn take_parent_aliases(&mut self, name: &Name) {
        let above = |record: &&Record| record.record_type() == RecordType::DNAME && record.name.zone_of(name);
        let parent = self.answer.answers.iter().find(above).filter(|parent| parent.name != *name);
        if let Some(parent) = parent {
            self.taken.extend(passed_on(parent, self.question));
            self.take_signatures(&parent.name.clone(), RecordType::DNAME);
        }
    }

    fn take_set(&mut self, name: &Name, kind: RecordType) {
        let set = self.records(name, kind).take(MAX_RECORDS);
        let set: Vec<_> = set.filter_map(|record| passed_on(record, self.question)).collect();
        if !set.is_empty() {
            self.taken.extend(set);
            self.take_signatures(name, kind);
        }
    }

    fn take_signatures(&mut self, name: &Name, kind: RecordType) {
        if !self.question.dnssec() || kind == RecordType::RRSIG {
            return;
        }
        let signatures = self.records(name, RecordType::RRSIG).filter(|record| covers(record, kind));
        let signatures = signatures.take(MAX_PROOF).filter_map(|record| passed_on(record, self.question));
        let signatures: Vec<_> = signatures.collect();
        self.taken.extend(signatures);
    }

    fn records(&self, name: &Name, kind: RecordType) -> impl Iterator<Item = &Record> {
        self.answer.answers.iter().filter(move |record| {
            record.record_type() == kind && record.dns_class == DNSClass::IN && record.name == *name
        })
    }
}

fn alias(record: &Record) -> Option<(&Record, Name)> {
    match &record.data {
        RData::CNAME(target) => Some((record, target.0.clone())),
        _ => None,
    }
}

/// Why there are no records: whose name it would be, for how long that is so, and the signed proof for those
/// that want it.
fn proof(question: &Question, answer: &Message, name: &Name) -> Vec<Record> {
    let relevant = answer.authorities.iter().filter(|record| match record.record_type() {
        _ if record.dns_class != DNSClass::IN => false,
        RecordType::SOA => record.name.zone_of(name),
        RecordType::NSEC | RecordType::NSEC3 | RecordType::RRSIG => question.dnssec(),
        _ => false,
    });
    relevant.take(MAX_PROOF).filter_map(|record| passed_on(record, question)).collect()
}

/// The record as a guest may have it.
fn passed_on(record: &Record, question: &Question) -> Option<Record> {
    let mut record = record.clone();
    // A number with its highest bit set is none (RFC 2181, section 8).
    record.ttl = if i32::try_from(record.ttl).is_ok() { record.ttl.min(MAX_TTL) } else { 0 };
    if record.name == *question.name() {
        record.name = question.name().clone();
    }
    svcb::strip(&mut record.data).then_some(record)
}

/// Whether a signature is one of records of this type, which its first two bytes say.
fn covers(signature: &Record, kind: RecordType) -> bool {
    let bytes = BinEncodable::to_bytes(&signature.data).unwrap_or_default();
    bytes.first_chunk() == Some(&u16::from(kind).to_be_bytes())
}
