//! A registry on loopback that serves what it is given, and misbehaves as it is told.

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::Fixture;

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// Names in lowercase.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

/// An answer, and how it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// How many bytes of the body are sent.
    send: usize,
    after: After,
}

#[derive(Debug, Clone, Copy)]
enum After {
    Close,
    /// The connection stays open, without a further byte.
    Silence,
    /// Byte by byte, for ever.
    Drip,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status: 200, headers: Vec::new(), send: body.len(), body, after: After::Close }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::ok(*b"{\"errors\":[{\"code\":\"X\",\"message\":\"because\\u001b\"}]}") }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Only that much of the body comes, then the connection is closed.
    pub(crate) fn cut(self, send: usize) -> Self {
        Self { send, ..self }
    }

    pub(crate) fn stall(self, send: usize) -> Self {
        Self { send, after: After::Silence, ..self }
    }

    pub(crate) fn drip(self, send: usize) -> Self {
        Self { send, after: After::Drip, ..self }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Auth {
    Basic {
        expected: String,
    },
    /// The token server is this server, under `/token`.
    Bearer,
}

#[derive(Default)]
struct State {
    content: HashMap<String, Reply>,
    once: HashMap<String, VecDeque<Reply>>,
    log: Vec<Request>,
    auth: Option<Auth>,
    delay: Duration,
    ranges: bool,
}

/// The registry. It ends with the test's process.
#[derive(Clone)]
pub(crate) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        server.state.lock().unwrap().ranges = true;
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = serving.clone();
                thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    /// A registry that has the image as `t:1`.
    pub(crate) fn with(image: &Fixture) -> Self {
        let server = Self::new();
        server.add(image, "1");
        server
    }

    pub(crate) fn add(&self, image: &Fixture, tag: &str) {
        for (digest, blob) in &image.blobs {
            self.set(&format!("/v2/t/blobs/{digest}"), Reply::ok(blob.clone()));
            self.set(&format!("/v2/t/manifests/{digest}"), Reply::ok(blob.clone()));
        }
        self.set(&format!("/v2/t/manifests/{tag}"), manifest_reply(&image.manifest));
    }

    pub(crate) fn set_manifest(&self, tag: &str, bytes: &[u8]) {
        self.set(&format!("/v2/t/manifests/{tag}"), manifest_reply(bytes));
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The name of the image that [`with`](Self::with) serves.
    pub(crate) fn image(&self) -> String {
        format!("{}/t:1", self.host())
    }

    /// What is answered to each request for that path.
    pub(crate) fn set(&self, path: &str, reply: Reply) {
        self.state.lock().unwrap().content.insert(path.into(), reply);
    }

    /// What is answered to one request for that path, before all else; several queue up.
    pub(crate) fn once(&self, path: &str, reply: Reply) {
        self.state.lock().unwrap().once.entry(path.into()).or_default().push_back(reply);
    }

    pub(crate) fn set_auth(&self, auth: Auth) {
        self.state.lock().unwrap().auth = Some(auth);
    }

    /// Waits that long before each answer.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    pub(crate) fn without_ranges(self) -> Self {
        self.state.lock().unwrap().ranges = false;
        self
    }

    pub(crate) fn log(&self) -> Vec<Request> {
        self.state.lock().unwrap().log.clone()
    }

    /// The requests whose path contains that text.
    pub(crate) fn requests(&self, text: &str) -> Vec<Request> {
        self.log().into_iter().filter(|request| request.path.contains(text)).collect()
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        // TLS is tried first; it is told at once that there is none.
        if reader.fill_buf().map_or(true, |bytes| bytes.first() == Some(&0x16)) {
            return;
        }
        let Some(request) = read_request(&mut reader) else { return };
        let reply = self.reply(&request);
        let mut stream = reader.into_inner();
        let mut head = vec![format!("HTTP/1.1 {} X", reply.status), "Connection: close".into()];
        if !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
            head.push(format!("Content-Length: {}", reply.body.len()));
        }
        head.extend(reply.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        let head = head.join("\r\n") + "\r\n\r\n";
        let body =
            if request.method == "HEAD" { &[][..] } else { &reply.body[..reply.send.min(reply.body.len())] };
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_err() {
            return;
        }
        match reply.after {
            After::Close => {}
            After::Silence => thread::sleep(Duration::from_secs(30)),
            After::Drip => {
                while stream.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn reply(&self, request: &Request) -> Reply {
        let mut state = self.state.lock().unwrap();
        state.log.push(request.clone());
        let delay = state.delay;
        let path = request.path.split('?').next().unwrap();
        let auth = state.auth.clone();
        if let Some(challenge) = auth.and_then(|auth| self.challenge(&auth, request)) {
            return challenge;
        }
        let reply = state.once.get_mut(path).and_then(VecDeque::pop_front);
        let special = reply.is_some();
        let reply = reply.or_else(|| state.content.get(path).cloned());
        let ranges = state.ranges;
        drop(state);
        thread::sleep(delay);
        let Some(mut reply) = reply else {
            return if path == "/v2/" { Reply::ok(*b"{}") } else { Reply::status(404) };
        };
        let range = request.headers.get("range").filter(|_| ranges && !special);
        if let Some(from) =
            range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
        {
            let size = reply.body.len();
            reply.body.drain(..from);
            reply.status = 206;
            reply.headers.push(("Content-Range".into(), format!("bytes {from}-{}/{size}", size - 1)));
            reply.send = reply.body.len();
        }
        reply
    }

    fn challenge(&self, auth: &Auth, request: &Request) -> Option<Reply> {
        let given = request.headers.get("authorization").map(String::as_str);
        match auth {
            Auth::Basic { expected } if given == Some(expected) => None,
            Auth::Basic { .. } => Some(Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\"")),
            Auth::Bearer if request.path.starts_with("/token") || given == Some("Bearer secret") => None,
            Auth::Bearer => {
                let realm = format!(
                    "Bearer realm=\"http://{}/token\",service=\"s\",scope=\"repository:t:pull\"",
                    self.host()
                );
                Some(Reply::status(401).header("WWW-Authenticate", realm))
            }
        }
    }
}

fn manifest_reply(bytes: &[u8]) -> Reply {
    Reply::ok(bytes).header("Docker-Content-Digest", super::digest_of(bytes))
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body: String::from_utf8(body).ok()? })
}
