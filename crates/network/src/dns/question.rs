//! What a guest's query asks, and the query that a server is sent instead of it.

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
    serialize::binary::BinDecodable,
};

/// A query is a name of 255 bytes and some options.
const MAX_QUERY: usize = 4096;
/// The smallest and largest answer that a datagram carries. A guest may ask for more, but gains nothing by it.
const PAYLOAD: (u16, u16) = (512, 4096);
/// What servers are asked for: fits any path without fragments, which could be forged (DNS flag day 2020).
const UPSTREAM_PAYLOAD: u16 = 1232;

/// What a guest's bytes are.
#[derive(Debug)]
pub(super) enum Reading {
    /// No query at all.
    Nothing,
    /// A query that nobody is asked.
    Invalid(Invalid),
    /// A question.
    Question(Question),
}

/// The answer to a query that is none for this server.
#[derive(Debug)]
pub(super) struct Invalid(Message);

/// One question.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) id: u16,
    /// As the guest spelled it: some compare the case of each letter.
    pub(super) query: Query,
    text: String,
    pub(super) recursion_desired: bool,
    /// A guest that validates by itself wants what a validating server would hold back.
    pub(super) checking_disabled: bool,
    pub(super) edns: Option<Offer>,
}

/// What a guest's EDNS record says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    /// How large a datagram it takes.
    pub(super) payload: u16,
    /// It wants signatures.
    pub(super) dnssec: bool,
}

impl Invalid {
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        self.0.to_vec().ok()
    }
}

impl Question {
    /// The name: lower case, without the dot at its end.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn name(&self) -> &Name {
        &self.query.name
    }

    pub(super) fn kind(&self) -> RecordType {
        self.query.query_type
    }

    pub(super) fn dnssec(&self) -> bool {
        self.edns.is_some_and(|offer| offer.dnssec)
    }

    /// Whether the name has a byte that no host's or service's name has. A label can hold any, a dot among
    /// them: what is two labels for a rule must not be one for a server.
    pub(super) fn is_unsafe(&self) -> bool {
        self.text.contains('\\')
    }

    /// What a server is asked: nothing of it is the guest's but name, type and two flags.
    pub(super) fn upstream(&self, edns: bool) -> Message {
        // With an id from the system's random numbers.
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(Query::query(self.name().to_lowercase(), self.kind()));
        if edns {
            let mut record = Edns::new();
            record.set_max_payload(UPSTREAM_PAYLOAD).set_dnssec_ok(self.dnssec());
            message.set_edns(record);
        }
        message
    }
}

/// Takes a query apart.
pub(super) fn read(bytes: &[u8]) -> Reading {
    let Ok(header) = Header::from_bytes(bytes) else { return Reading::Nothing };
    if header.message_type == MessageType::Response {
        return Reading::Nothing;
    }
    let mut answer = Message::response(header.id, header.op_code);
    answer.metadata.recursion_desired = header.recursion_desired;
    answer.metadata.recursion_available = true;
    match question(bytes, &header, &mut answer) {
        Ok(question) => Reading::Question(question),
        Err(code) => {
            answer.metadata.response_code = code;
            Reading::Invalid(Invalid(answer))
        }
    }
}

/// The question, or why it is none. What an answer has to repeat is put into `answer`.
fn question(bytes: &[u8], header: &Header, answer: &mut Message) -> Result<Question, ResponseCode> {
    if header.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    let counts = header.counts;
    if bytes.len() > MAX_QUERY || (counts.queries, counts.answers, counts.authorities) != (1, 0, 0) {
        return Err(ResponseCode::FormErr);
    }
    let mut message = Message::from_vec(bytes).map_err(|_| ResponseCode::FormErr)?;
    let query = message.queries.pop().ok_or(ResponseCode::FormErr)?;
    answer.add_query(query.clone());
    let mut offer = None;
    if let Some(edns) = message.edns {
        let dnssec = edns.flags().dnssec_ok;
        answer.set_edns(edns_of_ours(dnssec));
        if edns.version() != 0 {
            return Err(ResponseCode::BADVERS);
        }
        offer = Some(Offer { payload: edns.max_payload().clamp(PAYLOAD.0, PAYLOAD.1), dnssec });
    }
    if query.query_class != DNSClass::IN {
        return Err(ResponseCode::Refused);
    }
    match query.query_type {
        RecordType::AXFR | RecordType::IXFR => return Err(ResponseCode::Refused),
        RecordType::ZERO | RecordType::OPT => return Err(ResponseCode::FormErr),
        // Types that no record has (RFC 6895, section 3.1), ANY among them.
        kind if (128..=255).contains(&u16::from(kind)) => return Err(ResponseCode::NotImp),
        // Types long gone, with names in them that may be compressed, which would point into another message:
        // MD, MF, MB, MG, MR, MINFO.
        RecordType::Unknown(3 | 4 | 7..=9 | 14) => return Err(ResponseCode::NotImp),
        _ => {}
    }
    let mut text = query.name.to_lowercase().to_ascii();
    text.truncate(text.len() - usize::from(text.ends_with('.')));
    Ok(Question {
        id: header.id,
        query,
        text,
        recursion_desired: header.recursion_desired,
        checking_disabled: header.checking_disabled,
        edns: offer,
    })
}

/// The EDNS record of an answer to a query that has one.
pub(super) fn edns_of_ours(dnssec: bool) -> Edns {
    let mut record = Edns::new();
    record.set_max_payload(PAYLOAD.1).set_dnssec_ok(dnssec);
    record
}

/// How large a datagram may be for a guest that has not said so.
pub(super) const fn smallest_payload() -> u16 {
    PAYLOAD.0
}
