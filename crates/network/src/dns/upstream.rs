//! Asking the servers, one after another, until one has answered.
//!
//! ```text
//! datagram ──► answer
//!    │  └────► cut short ──► connection ──► answer
//!    └───────► format error ──► again without EDNS
//! a failure, or too long: the next server; after the last, one more round of those that were silent
//! ```

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use hickory_proto::{
    ProtoError,
    op::{Header, Message, MessageType, OpCode, Query, ResponseCode},
    serialize::binary::{BinDecodable as _, BinDecoder, DecodeError},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{
    question::Question,
    relevant::{self, Endless},
    reply::Reply,
    servers::Upstream,
};

/// A datagram's largest size. More than was asked for, but it is the server's answer all the same.
const MAX_DATAGRAM: usize = 65_535;
/// How many datagrams that are no answer are passed over: whoever sends more of them guesses ids.
const MAX_FOREIGN: usize = 64;

/// Why a server gave no answer. The next may.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot reach it")]
    Io(#[from] io::Error),
    #[error("the question cannot be put")]
    Encode(#[from] ProtoError),
    #[error("its answer cannot be understood")]
    Malformed(#[from] DecodeError),
    #[error("it answers something else")]
    Foreign,
    #[error("its answer through a connection is cut short")]
    Cut,
    #[error("it answers {0}")]
    Code(ResponseCode),
    #[error("its answer is of no use")]
    Endless(#[from] Endless),
}

/// What some bytes from a server are.
enum Received {
    /// Not the answer.
    Foreign,
    /// Its beginning.
    Cut,
    Answer(Message),
}

/// Asks the servers. `None` if none of them answers in time.
pub(super) async fn ask(upstream: &Upstream, question: &Question) -> Option<Reply> {
    timeout(upstream.total, ask_all(upstream, question)).await.ok().flatten()
}

async fn ask_all(upstream: &Upstream, question: &Question) -> Option<Reply> {
    let mut servers = upstream.servers.clone();
    for round in 1..=upstream.rounds {
        let limit = if round < upstream.rounds { upstream.quick } else { upstream.patient };
        let mut silent = Vec::new();
        for server in servers {
            match timeout(limit, ask_one(server, upstream.tcp_only, question)).await {
                Ok(Ok(reply)) => return Some(reply),
                Ok(Err(failure)) => {
                    let error: &dyn std::error::Error = &failure;
                    tracing::debug!(%server, error, "a name server failed");
                }
                Err(_) => silent.push(server),
            }
        }
        servers = silent;
    }
    None
}

async fn ask_one(server: SocketAddr, tcp_only: bool, question: &Question) -> Result<Reply, Failure> {
    let mut edns = true;
    loop {
        let answer = exchange(server, tcp_only, &question.upstream(edns)).await?;
        match answer.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => return Ok(relevant::sift(question, &answer)?),
            // An old server knows no EDNS (RFC 6891, section 6.2.2).
            ResponseCode::FormErr | ResponseCode::NotImp if edns => edns = false,
            code => return Err(Failure::Code(code)),
        }
    }
}

async fn exchange(server: SocketAddr, tcp_only: bool, query: &Message) -> Result<Message, Failure> {
    let bytes = query.to_vec()?;
    if !tcp_only && let Some(answer) = over_udp(server, query, &bytes).await? {
        return Ok(answer);
    }
    over_tcp(server, query, &bytes).await
}

/// `None` if the answer does not fit into a datagram.
async fn over_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> Result<Option<Message>, Failure> {
    // A new socket has a port that cannot be guessed, and, connected, hears of nobody but the server.
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut datagram = vec![0; MAX_DATAGRAM];
    for _ in 0..MAX_FOREIGN {
        let length = socket.recv(&mut datagram).await?;
        match receive(&datagram[..length], query)? {
            Received::Answer(answer) => return Ok(Some(answer)),
            Received::Cut => return Ok(None),
            Received::Foreign => {}
        }
    }
    Err(Failure::Foreign)
}

async fn over_tcp(server: SocketAddr, query: &Message, bytes: &[u8]) -> Result<Message, Failure> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    match receive(&answer, query)? {
        Received::Answer(answer) => Ok(answer),
        Received::Cut => Err(Failure::Cut),
        Received::Foreign => Err(Failure::Foreign),
    }
}

/// Takes bytes for the answer to a query, if they begin as it does. The rest is parsed after that only.
fn receive(bytes: &[u8], query: &Message) -> Result<Received, DecodeError> {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(header) = Header::read(&mut decoder) else { return Ok(Received::Foreign) };
    let ours = header.id == query.metadata.id
        && header.message_type == MessageType::Response
        && header.op_code == OpCode::Query
        && match header.counts.queries {
            // Some repeat no question that they have not understood.
            0 => !matches!(header.response_code, ResponseCode::NoError | ResponseCode::NXDomain),
            1 => Query::read(&mut decoder).is_ok_and(|question| query.queries.first() == Some(&question)),
            _ => false,
        };
    if !ours {
        return Ok(Received::Foreign);
    }
    if header.truncation {
        return Ok(Received::Cut);
    }
    Message::from_vec(bytes).map(Received::Answer)
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::Edns,
        rr::{Name, RecordType},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::dns::{Over, question};

    /// A record of the name asked for, whose data begins as that of its type may.
    fn record() -> impl Strategy<Value = Vec<u8>> {
        let kind =
            prop_oneof![prop::sample::select(vec![1_u8, 5, 28, 39, 46, 64, 65, 6, 15, 16, 33]), 0..128_u8];
        let byte = prop_oneof![any::<u8>(), 0..4_u8, Just(0xc0), Just(12)];
        let owner: [&[u8]; 3] = [&[0xc0, 12], &[0xc0, 14], &[1, b'c', 0xc0, 12]];
        let owner = prop::sample::select(owner.to_vec());
        (owner, kind, prop::collection::vec(byte, 0..40)).prop_map(|(owner, kind, mut data)| {
            match kind {
                1 => data.resize(4, 0),
                28 => data.resize(16, 0),
                5 | 39 => data = [vec![1, b'c', 0xc0, 12], vec![0xc0, 14]][data.len() % 2].clone(),
                // A service with one parameter, whose key and data are random.
                64 | 65 => {
                    let length = u8::try_from(data.len()).unwrap_or(0);
                    data.splice(0..0, [0, 1, 0, 0, length % 8, 0, length]);
                }
                _ => {}
            }
            let length = u8::try_from(data.len()).unwrap_or(0);
            [owner, &[0, kind, 0, 1, 0, 0, 1, 0, 0, length], &data].concat()
        })
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(
            records in prop::collection::vec(record(), 0..6),
            sections: [u8; 3],
            noise in prop::collection::vec(any::<u8>(), 0..20),
            kind in prop::sample::select(vec![1_u16, 5, 28, 46, 65, 15, 16]),
            dnssec: bool,
        ) {
            let mut query = Message::query();
            query.add_query(Query::query(Name::from_ascii("a.b.").unwrap(), RecordType::from(kind)));
            let mut bytes = query.to_vec().unwrap();
            let mut edns = Edns::new();
            edns.set_dnssec_ok(dnssec);
            let asked = query.clone().set_edns(edns).to_vec().unwrap();
            let question::Reading::Question(question) = question::read(&asked) else { unreachable!() };
            bytes[2] |= 0x80;
            bytes[7] = u8::try_from(records.len()).unwrap();
            if sections[0] % 4 == 0 {
                [bytes[7], bytes[9], bytes[11]] = sections.map(|count| count % 4);
            }
            bytes.extend(records.concat());
            bytes.extend(noise);
            if let Ok(Received::Answer(answer)) = receive(&bytes, &query)
                && let Ok(reply) = relevant::sift(&question, &answer)
            {
                let (bytes, whole) = reply.to(&question, Over::Tcp).unwrap();
                let given = Message::from_vec(&bytes).unwrap();
                prop_assert!(whole && given.answers.len() <= records.len());
            }
        }
    }
}
