//! Servers on loopback: Debian's registry, and one that misbehaves in a given way.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::eventually;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Debian's `nginx`, with a directory of its own. It speaks HTTP/1.1 on one port and HTTP/2 without TLS on another, and ends with this value.
#[derive(Debug)]
pub struct Nginx {
    server: Child,
    /// The port for HTTP/1.1.
    pub http: u16,
    /// The port for HTTP/2.
    pub http2: u16,
    /// The port for HTTP/1.1 and HTTP/2 over TLS, if it was given a certificate.
    pub tls: u16,
    dir: TempDir,
}

impl Nginx {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::launch(None)
    }

    /// Starts one with a certificate and its key, as PEM.
    pub fn with_certificate(certificate: &str, key: &str) -> Self {
        Self::launch(Some((certificate, key, "")))
    }

    /// The same, with locations in its own words for what it does over TLS.
    pub fn with_locations(certificate: &str, key: &str, locations: &str) -> Self {
        Self::launch(Some((certificate, key, locations)))
    }

    fn launch(tls_as: Option<(&str, &str, &str)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (http, http2, tls) = (free_port(), free_port(), free_port());
        let path = dir.path().display();
        let tls_server = tls_as.map_or_else(String::new, |(certificate, key, locations)| {
            fs::write(dir.path().join("certificate.pem"), certificate).unwrap();
            fs::write(dir.path().join("key.pem"), key).unwrap();
            format!(
                "server {{ listen 127.0.0.1:{tls} ssl http2; ssl_certificate {path}/certificate.pem; ssl_certificate_key {path}/key.pem; {locations} }}"
            )
        });
        fs::create_dir(dir.path().join("www")).unwrap();
        let config = dir.path().join("nginx.conf");
        let text = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log; events {{ }}\n\
             http {{ access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
             fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;\n\
             client_max_body_size 100m; root {path}/www;\n\
             server {{ listen 127.0.0.1:{http}; location /sink {{ client_body_buffer_size 32m; return 204; }} }}\n\
             server {{ listen 127.0.0.1:{http2} http2; }} {tls_server} }}\n"
        );
        fs::write(&config, text).unwrap();
        let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let server = Command::new(program)
            .args(["-e", "stderr", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        let nginx = Self { server, http, http2, tls, dir };
        for port in [http, http2] {
            let answers = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            eventually("nginx answers", Duration::from_secs(30), answers);
        }
        nginx
    }

    /// The directory of what it serves.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("www")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        _ = self.server.kill();
        _ = self.server.wait();
    }
}

/// Debian's `iperf3`, which ends with this value.
#[derive(Debug)]
pub struct Iperf {
    server: Child,
    /// Where on the loopback it is.
    pub port: u16,
}

impl Iperf {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let port = free_port();
        let server = Command::new("iperf3")
            .args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("iperf3 is installed");
        let answers = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        eventually("iperf3 answers", Duration::from_secs(30), answers);
        Self { server, port }
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        _ = self.server.kill();
        _ = self.server.wait();
    }
}

/// A name server on the loopback that gives one name one address, and knows no other. Its thread lives as long as the test.
pub fn name_server(name: &'static str, address: Ipv4Addr) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let labels: Vec<u8> = name
        .split('.')
        .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat())
        .collect();
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut query) {
            // A header of 12 bytes, then the question: the name, which ends with a zero, its type and class.
            let Some(end) = query[12..count].iter().position(|byte| *byte == 0).map(|end| 12 + end + 5)
            else {
                continue;
            };
            let (asked, kind) = (&query[12..end - 5], query[end - 3]);
            let is_known = asked.eq_ignore_ascii_case(&labels);
            let has_answer = is_known && kind == 1;
            let mut answer = query[..end].to_vec();
            answer[2..12].copy_from_slice(&[
                0x81,
                if is_known { 0x80 } else { 0x83 },
                0,
                1,
                0,
                has_answer.into(),
                0,
                0,
                0,
                0,
            ]);
            if has_answer {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(address.octets());
            }
            _ = socket.send_to(&answer, from);
        }
    });
    at
}

/// Debian's `docker-registry`, with an empty store of its own. It ends with this value.
#[derive(Debug)]
pub struct Registry {
    server: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Registry {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = dir.path().join("config.yml");
        let store = dir.path().join("store");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {address}}}\n",
            store.display()
        );
        fs::write(&config, text).unwrap();
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        eventually("the registry answers", Duration::from_secs(30), || TcpStream::connect(address).is_ok());
        Self { server, address, _dir: dir }
    }

    /// `HOST:PORT`, as it stands before an image's name.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        _ = kill_process(Pid::from_child(&self.server), Signal::KILL);
        _ = self.server.wait();
    }
}

/// What a registry that misbehaves does with a request for this path.
pub type Behaviour = dyn Fn(&str) -> Answer + Send + Sync;

/// One answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A status, header lines and a body.
    Reply(u16, Vec<(String, String)>, Vec<u8>),
    /// The beginning of a body, and then nothing more, for ever.
    Stall(u64, Vec<u8>),
}

impl Answer {
    /// A status alone.
    pub fn status(status: u16) -> Self {
        Self::Reply(status, Vec::new(), Vec::new())
    }

    /// A document of this media type.
    pub fn document(media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::Reply(200, vec![("Content-Type".into(), media_type.into())], body.into())
    }
}

/// Starts a server that answers each request by a function of its path, and gives its `HOST:PORT`. It serves until the
/// test's process ends.
pub fn misbehaving(behaviour: impl Fn(&str) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let behaviour: Arc<Behaviour> = Arc::new(behaviour);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let behaviour = Arc::clone(&behaviour);
            thread::spawn(move || serve(stream, &*behaviour));
        }
    });
    address
}

fn serve(mut stream: TcpStream, behaviour: &Behaviour) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut lines = BufReader::new(reading).lines();
    while let Some(Ok(request)) = lines.next() {
        // No request that a registry's client makes here has a body.
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let path = request.split(' ').nth(1).unwrap_or("/");
        let written = match behaviour(path) {
            Answer::Reply(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in &headers {
                    _ = write!(head, "{name}: {value}\r\n");
                }
                head.push_str("\r\n");
                let body = if request.starts_with("HEAD") { Vec::new() } else { body };
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body))
            }
            Answer::Stall(length, body) => {
                let head = format!("HTTP/1.1 200 -\r\nContent-Length: {length}\r\n\r\n");
                _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
                // Longer than any test waits; the client hangs up before.
                thread::sleep(crate::HANG);
                return;
            }
        };
        if written.is_err() {
            return;
        }
    }
}
