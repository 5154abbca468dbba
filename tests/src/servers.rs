//! Servers on loopback: Debian's registry, and one that misbehaves in a given way.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
