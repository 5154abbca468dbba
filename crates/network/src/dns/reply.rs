//! What a guest is answered: a message made anew, no larger than it takes.

use std::{net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{Record, rdata::opt::EdnsOption},
};

use super::{
    Over,
    question::{Question, edns_of_ours, smallest_payload},
};

/// The option that says why (RFC 8914), and its code for what a policy does not let through.
const EXTENDED_ERROR: u16 = 15;
const BLOCKED: u16 = 15;
const BLOCKED_TEXT: &str = "blocked by the sandbox's network policy";

/// What is answered to a question.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    /// The addresses in it.
    pub(super) learn: Vec<(IpAddr, Duration)>,
    pub(super) blocked: bool,
}

impl Reply {
    /// No records.
    pub(super) fn code(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authorities: Vec::new(), learn: Vec::new(), blocked: false }
    }

    /// The policy does not let it through.
    ///
    /// The code is NXDOMAIN, which ends a lookup at once with "Name or service not known". For REFUSED, the C
    /// library would try all servers several times, and report a failure that is temporary, which this is not.
    pub(super) fn refused() -> Self {
        Self { blocked: true, ..Self::code(ResponseCode::NXDomain) }
    }

    /// The bytes of the answer, and whether all records are in it.
    pub(super) fn to(&self, question: &Question, over: Over) -> Option<(Vec<u8>, bool)> {
        let mut message = self.message(question);
        let limit = match over {
            Over::Udp => question.edns.map_or(smallest_payload(), |offer| offer.payload),
            Over::Tcp => u16::MAX,
        };
        if let Some(bytes) = encode(&message).filter(|bytes| bytes.len() <= usize::from(limit)) {
            return Some((bytes, true));
        }
        message.answers.clear();
        message.authorities.clear();
        match over {
            Over::Udp => message.metadata.truncation = true,
            // There is no other way to get it.
            Over::Tcp => message.metadata.response_code = ResponseCode::ServFail,
        }
        encode(&message).map(|bytes| (bytes, false))
    }

    fn message(&self, question: &Question) -> Message {
        let mut message = Message::response(question.id, OpCode::Query);
        message.metadata.recursion_desired = question.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = question.checking_disabled;
        message.metadata.response_code = self.code;
        message.add_query(question.query.clone());
        message.add_answers(self.answers.iter().cloned());
        message.add_authorities(self.authorities.iter().cloned());
        if question.edns.is_some() {
            let mut edns = edns_of_ours(question.dnssec());
            if self.blocked {
                let error = [&BLOCKED.to_be_bytes(), BLOCKED_TEXT.as_bytes()].concat();
                edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, error));
            }
            message.set_edns(edns);
        }
        message
    }
}

/// The bytes, if all of the message fits into any.
fn encode(message: &Message) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    // The encoder leaves out what does not fit into 65,535 bytes, and says so in this bit.
    let cut = bytes.get(2).is_none_or(|flags| flags & 0b10 != 0);
    (cut == message.metadata.truncation).then_some(bytes)
}
