//! A server, a guest, and the gateway between them, on loopback.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use super::super::{Event, Given, InterceptError, SecretArgument, Secrets, Target, What, intercept};

pub(super) const HOST: &str = "api.example.com";
/// Nothing here takes a tenth of it.
const HANG: Duration = Duration::from_secs(60);

pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { timeout(HANG, test).await.expect("the test hangs") };
    LocalSet::new().block_on(&runtime, test);
}

pub(super) type Answer = UnsyncBoxBody<Bytes, std::io::Error>;

pub(super) fn text(text: impl Into<Bytes>) -> Answer {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes in these pieces, each in its own time.
pub(super) fn pieces(pieces: Vec<Bytes>) -> Answer {
    let pieces = futures::stream::unfold(pieces.into_iter(), |mut pieces| async {
        let piece = pieces.next()?;
        sleep(Duration::from_millis(1)).await;
        Some((Ok(Frame::data(piece)), pieces))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// What a server was sent.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) version: Version,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(super) struct Scene {
    pub(super) secrets: Rc<Secrets>,
    events: Arc<Mutex<Vec<Event>>>,
    address: SocketAddr,
    seen: Rc<RefCell<Vec<Seen>>>,
    pub(super) connections: Rc<Cell<usize>>,
    /// Bytes of an answer without end.
    pub(super) produced: Arc<AtomicUsize>,
}

/// A server's part.
pub(super) struct Server {
    /// The name in its certificate.
    pub(super) name: &'static str,
    pub(super) protocols: &'static [&'static str],
}

impl Default for Server {
    fn default() -> Self {
        Self { name: HOST, protocols: &["h2", "http/1.1"] }
    }
}

impl Scene {
    /// With secrets as they are typed; `+body` at the end is an option.
    pub(super) async fn new(secrets: &[&str]) -> Self {
        Self::with(secrets, Server::default()).await
    }

    pub(super) async fn with(secrets: &[&str], server: Server) -> Self {
        let given = secrets.iter().map(|text| {
            let argument = text.split('+').next().unwrap().parse::<SecretArgument>().unwrap();
            let mut given = Given::from(argument);
            given.spec.in_body = text.contains("+body");
            given
        });
        let (root, acceptor) = server_tls(&server);
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        let report = Box::new(move |event| told.lock().unwrap().push(event));
        let secrets = Rc::new(Secrets::load(given.collect(), None, vec![root], report).await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections) = (Rc::default(), Rc::new(Cell::new(0)));
        let produced = Arc::new(AtomicUsize::new(0));
        let (shared, count, bytes) = (Rc::clone(&seen), Rc::clone(&connections), Arc::clone(&produced));
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.set(count.get() + 1);
                tokio::task::spawn_local(host(
                    acceptor.clone(),
                    stream,
                    Rc::clone(&shared),
                    Arc::clone(&bytes),
                ));
            }
        });
        Self { secrets, events, address, seen, connections, produced }
    }

    pub(super) fn placeholder(&self, name: &str) -> String {
        self.secrets.variables().find(|(other, _)| *other == name).unwrap().1.to_owned()
    }

    /// What was told, with names of secrets.
    pub(super) fn told(&self) -> Vec<(Option<String>, What)> {
        self.events.lock().unwrap().iter().map(|event| (event.secret.clone(), event.what.clone())).collect()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    pub(super) fn last(&self) -> Seen {
        self.seen.borrow().last().unwrap().clone()
    }

    /// A connection of the guest's to the host, or to what it takes for it.
    pub(super) async fn dial(&self, tls: bool) -> (UnixStream, JoinHandle<Result<(), InterceptError>>) {
        let (guest, gateway) = UnixStream::pair().unwrap();
        let host = TcpStream::connect(self.address).await.unwrap();
        let target = Target { name: HOST.parse().unwrap(), tls };
        let task = tokio::task::spawn_local(intercept(Rc::clone(&self.secrets), gateway, host, target));
        (guest, task)
    }

    pub(super) async fn tls(
        &self,
        name: &str,
        protocols: &[&str],
    ) -> (std::io::Result<client::TlsStream<UnixStream>>, JoinHandle<Result<(), InterceptError>>) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.secrets.certificate().as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let (guest, task) = self.dial(true).await;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        (TlsConnector::from(Arc::new(config)).connect(name, guest).await, task)
    }

    pub(super) async fn client(&self, protocol: &str) -> Client {
        let (stream, _) = self.tls(HOST, &[protocol]).await;
        let stream = TokioIo::new(stream.unwrap());
        if protocol == "h2" {
            let (sender, connection) = hyper::client::conn::http2::handshake(Local, stream).await.unwrap();
            tokio::task::spawn_local(connection);
            Client::Two(sender)
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::task::spawn_local(connection.with_upgrades());
            Client::One(sender)
        }
    }
}

#[derive(Clone)]
pub(super) struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

pub(super) enum Client {
    One(hyper::client::conn::http1::SendRequest<Answer>),
    Two(hyper::client::conn::http2::SendRequest<Answer>),
}

impl Client {
    pub(super) async fn send(&mut self, request: Request<Answer>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// A request for the host, and the whole of its answer.
    pub(super) async fn ask(
        &mut self,
        target: &str,
        headers: &[(&str, &str)],
        body: Answer,
    ) -> (StatusCode, HeaderMap, String) {
        let response = self.send(self.request(target, headers, body)).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(super) fn request(&self, target: &str, headers: &[(&str, &str)], body: Answer) -> Request<Answer> {
        let mut request = match self {
            Self::One(_) => Request::post(target).header("host", HOST),
            Self::Two(_) => Request::post(format!("https://{HOST}{target}")),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body).unwrap()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A root, and a server that it vouches for.
fn server_tls(server: &Server) -> (CertificateDer<'static>, TlsAcceptor) {
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = root.self_signed(&root_key).unwrap().der().clone();
    let issuer = Issuer::new(root, root_key);
    let leaf =
        CertificateParams::new(vec![server.name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = server.protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    (certificate, TlsAcceptor::from(Arc::new(config)))
}

/// One connection of a server's; without TLS it says what it hears.
async fn host(
    acceptor: TlsAcceptor,
    mut stream: TcpStream,
    seen: Rc<RefCell<Vec<Seen>>>,
    produced: Arc<AtomicUsize>,
) {
    let mut first = [0];
    if stream.peek(&mut first).await.is_ok() && first[0] != 22 {
        let (mut read, mut write) = stream.split();
        _ = tokio::io::copy(&mut read, &mut write).await;
        return;
    }
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let is_two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| answer(request, Rc::clone(&seen), Arc::clone(&produced)));
    let stream = TokioIo::new(stream);
    if is_two {
        _ = hyper::server::conn::http2::Builder::new(Local).serve_connection(stream, service).await;
    } else {
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
        _ = connection.with_upgrades().await;
    }
}

async fn answer(
    mut request: Request<Incoming>,
    seen: Rc<RefCell<Vec<Seen>>>,
    produced: Arc<AtomicUsize>,
) -> Result<Response<Answer>, std::convert::Infallible> {
    let authorization = request.headers().get(AUTHORIZATION).cloned();
    let authorization = Bytes::from(authorization.map_or(vec![], |value| value.as_bytes().to_vec()));
    if request.uri().path() == "/upgrade" {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::task::spawn_local(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let mut heard = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut heard).await {
                let said = if &heard[..count] == b"tell" { &authorization[..] } else { &heard[..count] };
                stream.write_all(said).await.unwrap();
            }
        });
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "x");
        return Ok(response.body(text("")).unwrap());
    }
    let (parts, mut body) = request.into_parts();
    let target = parts.uri.path_and_query().unwrap().to_string();
    if parts.uri.path() == "/count" {
        let mut count = 0;
        while let Some(Ok(frame)) = body.frame().await {
            count += frame.data_ref().map_or(0, Bytes::len);
        }
        return Ok(Response::new(text(count.to_string())));
    }
    let Ok(body) = body.collect().await else { return Ok(Response::new(text("broken"))) };
    let body = body.to_bytes();
    seen.borrow_mut().push(Seen {
        target,
        headers: parts.headers,
        body: body.clone(),
        version: parts.version,
    });
    let response = Response::builder();
    Ok(match parts.uri.path() {
        "/close" => response.header("connection", "close").body(text("")),
        "/echo" => response.header("x-echo", &authorization[..]).body(text(body)),
        "/authorization" => response.body(text(authorization)),
        "/pieces" => response.body(pieces(authorization.chunks(3).map(Bytes::copy_from_slice).collect())),
        "/long" => {
            let parts = vec![authorization; 100_000];
            response.body(text(parts.concat()))
        }
        "/stream" => response.body(pieces(vec![Bytes::from(vec![b's'; 64 << 10]); 64])),
        "/endless" => {
            let piece = Bytes::from(vec![b's'; 64 << 10]);
            let pieces = futures::stream::repeat_with(move || {
                produced.fetch_add(piece.len(), Ordering::Relaxed);
                Ok(Frame::data(piece.clone()))
            });
            response.body(StreamBody::new(pieces).boxed_unsync())
        }
        "/encoded" => response.header("content-encoding", "gzip").body(text("\u{1f}…")),
        "/coded" => {
            response.header("transfer-encoding", "gzip, chunked").body(pieces(vec![Bytes::from("\u{1f}…")]))
        }
        "/elsewhere" => response.header("alt-svc", "h3=\":443\"").body(text("")),
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-told", std::str::from_utf8(&authorization).unwrap().parse().unwrap());
            let frames = [Ok(Frame::data(Bytes::from("data"))), Ok(Frame::trailers(trailers))];
            response.body(StreamBody::new(futures::stream::iter(frames)).boxed_unsync())
        }
        "/broken" => {
            let frames = [Ok(Frame::data(Bytes::from("half"))), Err(std::io::ErrorKind::Other.into())];
            response.body(StreamBody::new(futures::stream::iter(frames)).boxed_unsync())
        }
        "/hang" => {
            let tail = futures::stream::once(async { Ok(Frame::data(Bytes::from("message ends in t"))) });
            let tail = futures::StreamExt::chain(tail, futures::stream::pending());
            response.body(StreamBody::new(tail).boxed_unsync())
        }
        _ => response.body(text("")),
    }
    .unwrap())
}
