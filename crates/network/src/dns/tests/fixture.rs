//! Servers that answer what a test says, and a gate that remembers.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, Query},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

use crate::dns::{
    Admission, Dns, Gate, Over,
    servers::{Source, Upstream},
};

pub(super) const NAME: &str = "Www.Example.";

/// What a server sends: as many messages as it likes.
pub(super) type Script = Box<dyn Fn(&Message, Over) -> Vec<Sent> + Send + Sync>;

pub(super) enum Sent {
    Bytes(Vec<u8>),
    FromAnotherPort(Vec<u8>),
}

impl From<Message> for Sent {
    fn from(message: Message) -> Self {
        Self::Bytes(message.to_vec().unwrap())
    }
}

/// A server on a port of the loopback, until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) asked: Asked,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    /// It answers each query with one message.
    pub(super) async fn answering(answer: impl Fn(&Message) -> Message + Send + Sync + 'static) -> Self {
        Self::start(Box::new(move |query, _| vec![answer(query).into()])).await
    }

    /// It never answers.
    pub(super) async fn silent() -> Self {
        Self::start(Box::new(|_, _| Vec::new())).await
    }

    pub(super) async fn start(script: Script) -> Self {
        let (datagrams, connections) = loop {
            let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(connections) = TcpListener::bind(datagrams.local_addr().unwrap()).await {
                break (datagrams, connections);
            }
        };
        let address = datagrams.local_addr().unwrap();
        let script = Arc::new(script);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let tasks = [
            tokio::spawn(serve_datagrams(datagrams, script.clone(), asked.clone())),
            tokio::spawn(serve_connections(connections, script, asked.clone())),
        ];
        Self { address, asked, tasks }
    }

    pub(super) fn asked(&self) -> Vec<Over> {
        self.asked.lock().unwrap().iter().map(|(over, _)| *over).collect()
    }
}

type Asked = Arc<Mutex<Vec<(Over, Vec<u8>)>>>;

async fn serve_datagrams(socket: UdpSocket, script: Arc<Script>, asked: Asked) {
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut bytes = vec![0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
        asked.lock().unwrap().push((Over::Udp, bytes[..length].to_vec()));
        for sent in script(&Message::from_vec(&bytes[..length]).unwrap(), Over::Udp) {
            match sent {
                Sent::Bytes(bytes) => socket.send_to(&bytes, from).await.unwrap(),
                Sent::FromAnotherPort(bytes) => other.send_to(&bytes, from).await.unwrap(),
            };
        }
    }
}

async fn serve_connections(listener: TcpListener, script: Arc<Script>, asked: Asked) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut bytes).await.unwrap();
        asked.lock().unwrap().push((Over::Tcp, bytes.clone()));
        for sent in script(&Message::from_vec(&bytes).unwrap(), Over::Tcp) {
            let (Sent::Bytes(bytes) | Sent::FromAnotherPort(bytes)) = sent;
            stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    }
}

/// A gate that admits as it is told, and remembers what it has learned.
pub(super) struct Ledger {
    pub(super) admission: Admission,
    pub(super) asked: RefCell<Vec<(String, RecordType)>>,
    pub(super) learned: RefCell<Vec<(String, IpAddr, Duration)>>,
}

impl Ledger {
    pub(super) fn new(admission: Admission) -> Self {
        Self { admission, asked: RefCell::default(), learned: RefCell::default() }
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        let learned = self.learned.borrow();
        assert!(learned.iter().all(|(name, ..)| name == "www.example"), "{learned:?}");
        learned.iter().map(|(_, address, _)| address.to_string()).collect()
    }
}

impl Gate for Ledger {
    fn admit(&self, name: &str, kind: RecordType) -> Admission {
        self.asked.borrow_mut().push((name.to_owned(), kind));
        self.admission.clone()
    }

    fn learned(&self, name: &str, address: IpAddr, ttl: Duration) {
        self.learned.borrow_mut().push((name.to_owned(), address, ttl));
    }
}

/// A gate that admits all.
pub(super) fn forward() -> Ledger {
    Ledger::new(Admission::Forward)
}

/// A name server that has little patience with these.
pub(super) fn dns<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Dns {
    let servers = servers.into_iter().map(|server| server.address).collect();
    let upstream = Upstream {
        quick: Duration::from_millis(200),
        patient: Duration::from_millis(400),
        ..Upstream::new(servers, Vec::new())
    };
    Dns { source: Source::Given(Rc::new(upstream)), hosts: None, in_flight: Cell::new(0) }
}

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(super) fn query(kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(NAME), kind));
    message
}

pub(super) fn with_edns(mut query: Message, payload: u16, dnssec: bool) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_dnssec_ok(dnssec);
    query.set_edns(edns);
    query
}

/// The answer of a server with these records.
pub(super) fn answer(query: &Message, records: impl IntoIterator<Item = Record>) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.add_queries(query.queries.iter().cloned());
    message.add_answers(records);
    message
}

pub(super) fn address(owner: &str, address: &str) -> Record {
    let data = match address.parse().unwrap() {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    };
    Record::from_rdata(name(owner), 300, data)
}

pub(super) fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 300, RData::CNAME(CNAME(name(target))))
}

/// What the guest gets, which always is an answer to its query.
pub(super) async fn ask(dns: &Dns, query: &Message, over: Over, gate: &Ledger) -> Message {
    let bytes = dns.answer(&query.to_vec().unwrap(), over, gate).await.unwrap();
    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!(answer.metadata.id, query.metadata.id);
    assert!(answer.additionals.is_empty());
    answer
}
