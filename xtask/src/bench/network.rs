//! What is measured of a sandbox's network, and the same guest behind QEMU's own user network and behind passt.
//!
//! The others get the guest's card by a program in QEMU's place that names another backend, and starts QEMU with the rest of our words. All
//! of them take turns in one run, each with a guest that booted.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Percentiles;
use crate::Result;

/// How long each throughput is measured, in seconds.
const SECONDS: &str = "4";
/// How long one guest with all its measurements may take, in seconds.
const LIMIT: &str = "180";
/// The connections that are held open while nothing is said on them.
const IDLE: u64 = 1000;
/// Where the gateway, or what stands in its place, has this host's loopback.
const OTHERS_HOST: &str = "192.0.0.1";
const OUR_HOST: &str = "host.cellule.internal";

/// Runs in the guest: throughput by iperf3, then round trips and new connections against an echo server.
const GUEST: &str = r#"
import json, os, socket, subprocess, sys, time
host, iperf, echo, mtu = socket.gethostbyname(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
subprocess.run(["ip", "link", "set", "eth0", "arp", "on", "mtu", mtu], check=True)
def bits(*words):
    run = subprocess.run(["iperf3", "-c", host, "-p", iperf, "-t", os.environ["SECONDS"], "-J", *words], capture_output=True, text=True)
    end = json.loads(run.stdout)["end"]
    return end["sum_received"]["bits_per_second"]
found = {
    "out_1": bits("-P1"), "out_8": bits("-P8"), "in_1": bits("-P1", "-R"), "in_8": bits("-P8", "-R"),
}
def connect():
    s = socket.create_connection((host, echo))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s
s = connect()
times = []
for _ in range(3000):
    begun = time.monotonic(); s.sendall(b"x"); s.recv(1); times.append(time.monotonic() - begun)
found["round_trip_us"] = sorted(times)[len(times) // 2] * 1e6
begun, count = time.monotonic(), 0
while time.monotonic() - begun < 3:
    connect().close(); count += 1
found["connections"] = count / (time.monotonic() - begun)
print(json.dumps(found), flush=True)
"#;

/// Runs in the guest: as many connections as it is told, on which nothing is said.
const HOLD: &str = r#"
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(int(sys.argv[3]))]
print("held", flush=True)
time.sleep(600)
"#;

/// Starts a server in a network that only has it, and there a guest, whose rules change between one count and the next: first the one
/// that allows the server, then a thousand before it. $1 is the server, $2 what counts, $3 how often; `cellule` and the image follow.
const APART: &str = r#"
set -e
ip link set lo up; ip address add 198.51.100.1/32 dev lo
python3 -c "$1" & server=$!
sleep 1
guest=$("$4" run --quiet --detach --allow 198.51.100.1 "$5" sleep inf)
trap '"$4" rm --force "$guest" >/dev/null; kill $server' EXIT
denied=$(seq 0 999 | awk '{ printf " --deny=203.0.%d.%d", $1 / 250, $1 % 250 }')
for _ in $(seq "$3"); do
    for rules in "" "$denied"; do
        "$4" network set "$guest" $rules --allow 198.51.100.1 >/dev/null
        "$4" exec "$guest" python3 -c "$2" 198.51.100.1
    done
done
"#;
const SERVER: &str = "
import socket
listener = socket.create_server(('198.51.100.1', 9000), backlog=1000)
while True: listener.accept()[0].close()
";
/// Runs in the guest: new connections, one after the other.
const CONNECT: &str = "
import socket, sys, time
begun, count = time.monotonic(), 0
while time.monotonic() - begun < 5:
    socket.create_connection((sys.argv[1], 9000)).close()
    count += 1
print(count / (time.monotonic() - begun))
";
/// How often that is done, each way in turn.
const TURNS: usize = 6;

/// What one kind of network does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Throughput {
    /// From the guest, over one stream and over eight, in bits a second.
    out_1: f64,
    out_8: f64,
    /// To the guest.
    in_1: f64,
    in_8: f64,
    /// Half of all round trips of a byte take no longer, in microseconds.
    round_trip_us: f64,
    /// New connections a second, one after the other.
    connections: f64,
}

/// All of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Network {
    networks: Vec<(String, Throughput)>,
    /// New connections a second without other rules, and with a thousand before that do not match.
    rules: Option<(f64, f64)>,
    /// What the supervisor has of its own, in KiB: without a gateway's work done, and with idle connections.
    supervisor_kib: Option<(u64, u64)>,
}

/// Measures the network of guests of this image, which has iperf3, iproute2 and Python.
pub(crate) struct Setting<'a> {
    pub(crate) home: &'a Path,
    pub(crate) program: &'a Path,
    pub(crate) image: &'a Path,
}

impl Setting<'_> {
    pub(crate) fn measure(&self, rounds: u32) -> Result<Network> {
        let echo = echo_server()?;
        let (_iperf, port) = iperf_server()?;
        let mut network = Network::default();
        for _ in 0..rounds {
            let ours = [format!("--expose-host={port}"), format!("--expose-host={echo}")];
            network.add("gateway", self.guest(None, &ours, OUR_HOST, port, echo, "65520")?);
            let user = self.backend("user,id=net,net=192.0.0.0/29,host=192.0.0.1,dhcpstart=192.0.0.2")?;
            network.add("user", self.guest(Some(&user), &[], OTHERS_HOST, port, echo, "1500")?);
            match Passt::start(self.home) {
                Ok(passt) => {
                    let socket = passt.socket.display();
                    let stream = format!("stream,id=net,server=off,addr.type=unix,addr.path={socket}");
                    let program = self.backend(&stream)?;
                    network.add("passt", self.guest(Some(&program), &[], OTHERS_HOST, port, echo, "65520")?);
                }
                Err(error) => eprintln!("passt is left out: {error}"),
            }
        }
        network.rules = Some(self.rules()?);
        network.supervisor_kib = Some(self.idle(echo)?);
        Ok(network)
    }

    fn cellule(&self, qemu: Option<&Path>) -> Command {
        let mut command = Command::new("timeout");
        command.arg(LIMIT).arg(self.program).env("CELLULE_HOME", self.home).env("SECONDS", SECONDS);
        if let Some(qemu) = qemu {
            command.env("CELLULE_QEMU", qemu);
        }
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    fn guest(
        &self,
        qemu: Option<&Path>,
        options: &[String],
        host: &str,
        iperf: u16,
        echo: u16,
        mtu: &str,
    ) -> Result<Throughput> {
        let mut command = self.cellule(qemu);
        command.args(["run", "--quiet", "--cold", "--env", "SECONDS"]).args(options).arg(self.image);
        command.args(["python3", "-c", GUEST, host, &iperf.to_string(), &echo.to_string(), mtu]);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.lines().last().ok_or("the guest measured nothing")?;
        Ok(serde_json::from_str(line)?)
    }

    /// New connections a second, with one rule and with a thousand before it. It is one guest whose rules change: guests differ by more.
    fn rules(&self) -> Result<(f64, f64)> {
        let mut command = Command::new("timeout");
        command.args([
            LIMIT,
            "unshare",
            "--map-root-user",
            "--net",
            "sh",
            "-c",
            APART,
            "sh",
            SERVER,
            CONNECT,
        ]);
        command.arg(TURNS.to_string()).arg(self.program).arg(self.image).env("CELLULE_HOME", self.home);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let counts = said.lines().map(str::parse).collect::<std::result::Result<Vec<f64>, _>>();
        let counts = counts.ok().filter(|counts| counts.len() == 2 * TURNS);
        let counts = counts.ok_or_else(|| format!("the guest counted something else: {said:?}"))?;
        let median = |offset: usize| {
            Percentiles::of_values(counts.iter().copied().skip(offset).step_by(2).collect()).p50
        };
        Ok((median(0), median(1)))
    }

    /// What a supervisor has of its own, before and after so many connections.
    fn idle(&self, echo: u16) -> Result<(u64, u64)> {
        let run = |words: &[&str]| -> Result<String> {
            let output = self.cellule(None).args(words).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let expose = format!("--expose-host={echo}");
        let image = self.image.display().to_string();
        let id = run(&["run", "--quiet", "--detach", &expose, &image, "sleep", "inf"])?;
        let inspected: serde_json::Value = serde_json::from_str(&run(&["inspect", &id])?)?;
        let of = inspected.get(0).unwrap_or(&inspected);
        let pid = of["supervisor_pid"].as_u64().ok_or("there is no supervisor")?;
        thread::sleep(Duration::from_secs(3));
        let before = own_kib(pid)?;
        let (echo, count) = (echo.to_string(), IDLE.to_string());
        let mut holding = self.cellule(None);
        holding.args(["exec", &id, "python3", "-c", HOLD, OUR_HOST, &echo, &count]).stdout(Stdio::piped());
        let mut holding = holding.spawn()?;
        let mut word = [0; 4];
        holding.stdout.as_mut().ok_or("no output")?.read_exact(&mut word)?;
        thread::sleep(Duration::from_secs(3));
        let after = own_kib(pid)?;
        run(&["rm", "--force", &id])?;
        _ = holding.wait();
        Ok((before, after))
    }

    /// A program in QEMU's place that gives the card another backend.
    fn backend(&self, backend: &str) -> Result<PathBuf> {
        let name = backend.split(',').next().unwrap_or_default();
        let path = self.home.join(format!("qemu-{name}"));
        let mut script = String::from("#!/bin/bash\nwords=()\nfor word in \"$@\"; do\n");
        writeln!(script, "case $word in dgram,id=net,*) word='{backend}';; esac; words+=(\"$word\")\ndone")?;
        script.push_str("exec qemu-system-x86_64 \"${words[@]}\"\n");
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }
}

impl Network {
    fn add(&mut self, name: &str, measured: Throughput) {
        let megabits = |bits: f64| bits / 1e6;
        eprintln!(
            "  {name:8} out {:5.0} and {:5.0} Mbit/s, in {:5.0} and {:5.0} Mbit/s, round trip {:4.0} µs, {:4.0} connections/s",
            megabits(measured.out_1),
            megabits(measured.out_8),
            megabits(measured.in_1),
            megabits(measured.in_8),
            measured.round_trip_us,
            measured.connections
        );
        self.networks.push((name.to_owned(), measured));
    }

    /// Half of the guests of a network did no better.
    fn median(&self, network: &str, figure: fn(&Throughput) -> f64) -> f64 {
        let of_it = self.networks.iter().filter(|(name, _)| name == network);
        Percentiles::of_values(of_it.map(|(_, measured)| figure(measured)).collect()).p50
    }

    /// For people: what was not told on the way.
    pub(crate) fn show(&self) {
        type Of = fn(&Throughput) -> f64;
        let figures: [(&str, Of); 6] = [
            ("bit/s out, 1 stream", |of| of.out_1),
            ("bit/s out, 8 streams", |of| of.out_8),
            ("bit/s in, 1 stream", |of| of.in_1),
            ("bit/s in, 8 streams", |of| of.in_8),
            ("round trip, µs", |of| of.round_trip_us),
            ("connections/s", |of| of.connections),
        ];
        for (what, figure) in figures {
            let [ours, user, passt] =
                ["gateway", "user", "passt"].map(|network| self.median(network, figure));
            println!(
                "{what}: {ours:.4e}, {:.2} times the user network's, {:.2} times passt's (medians)",
                ours / user,
                ours / passt
            );
        }
        if let Some((none, many)) = self.rules {
            println!(
                "connections a second: {none:.0} with one rule, {many:.0} with 1000 before it ({:+.1} %)",
                (many / none - 1.0) * 100.0
            );
        }
        if let Some((before, after)) = self.supervisor_kib {
            println!(
                "supervisor's own memory: {before} KiB, with {IDLE} idle connections {after} KiB ({} bytes each)",
                after.saturating_sub(before) * 1024 / IDLE
            );
        }
    }
}

/// What a process has that is no file's, in KiB.
fn own_kib(pid: u64) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).ok_or("no such figure")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Echoes whatever comes, on a port of the loopback that is returned.
fn echo_server() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || {
                    let (mut stream, mut buffer) = (stream, [0; 4096]);
                    _ = stream.set_nodelay(true);
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                })
                .ok();
        }
    });
    Ok(port)
}

/// A process that ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn iperf_server() -> Result<(Server, u16)> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let server = Command::new("iperf3")
        .args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("iperf3 (Debian: iperf3): {error}"))?;
    Ok((Server(server), port))
}

struct Passt {
    socket: PathBuf,
    _process: Server,
}

impl Passt {
    fn start(home: &Path) -> Result<Self> {
        // A user of its own has no way into our directory.
        let socket = std::env::temp_dir().join(format!("cellule-bench-passt-{}", std::process::id()));
        _ = fs::remove_file(&socket);
        let log = fs::File::create(home.join("passt.log"))?;
        let process = Command::new("passt")
            .args([
                "--foreground",
                "-4",
                "-a",
                "192.0.0.2",
                "-n",
                "29",
                "-g",
                "192.0.0.1",
                "--runas",
                "65534",
                "--socket",
            ])
            .arg(&socket)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("passt (Debian: passt): {error}"))?;
        let process = Server(process);
        for _ in 0..100 {
            if socket.exists() {
                fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
                return Ok(Self { socket, _process: process });
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err("passt makes no socket".into())
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.socket);
    }
}
