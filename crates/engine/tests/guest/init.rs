//! The guest of the contract suite: PID 1 of a machine that has nothing else in it.
//!
//! It keeps the guest's side of the port's contract (see `Machine::connect`) and answers one command per line. The
//! suite compiles it by itself, statically, against the standard library alone.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::null;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn mount(
        from: *const c_char,
        to: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn reboot(how: c_int) -> c_int;
    fn ioctl(descriptor: c_int, request: c_ulong, ...) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn poll(descriptors: *mut PollFd, count: c_ulong, milliseconds: c_int) -> c_int;
}

#[repr(C)]
struct PollFd {
    descriptor: c_int,
    wanted: i16,
    got: i16,
}

const POLLIN: i16 = 0x1;
const POLLOUT: i16 = 0x4;
const POLLHUP: i16 = 0x10;
const O_NONBLOCK: i32 = 0o4000;
const FINIT_MODULE: c_long = 313;
const POWER_OFF: c_int = 0x4321_fedc;
const RESTART: c_int = 0x0123_4567;

const SET_FLAGS: c_ulong = 0x8914;
const SET_ADDRESS: c_ulong = 0x8916;
const SET_MASK: c_ulong = 0x891c;
const UP: u16 = 0x1;

static TICKS: AtomicU64 = AtomicU64::new(0);
static KEPT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn main() {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        let _ = fs::create_dir(at);
        let (kind, at) = (c(kind), c(at));
        // SAFETY: the strings live through the call.
        unsafe { mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, null()) };
    }
    say(&format!("guest: init runs after {}", uptime()));
    for line in fs::read_to_string("/lib/cellule/modules.order").unwrap_or_default().lines() {
        let Some(name) = line.split_whitespace().next() else { continue };
        if let Ok(module) = File::open(format!("/lib/cellule/modules/{name}")) {
            let none = c("");
            // SAFETY: an open descriptor and a string that lives through the call.
            if unsafe { syscall(FINIT_MODULE, module.as_raw_fd(), none.as_ptr(), 0) } != 0 {
                say(&format!("guest: {name}: {}", io::Error::last_os_error()));
            }
        }
    }
    say(&format!("guest: modules are loaded after {}", uptime()));
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_millis(5));
            TICKS.fetch_add(1, Ordering::Relaxed);
        }
    });
    // Opened once: what a host left half said, and a half of what it was told, is behind the next host's greeting.
    let port = loop {
        let mut options = OpenOptions::new();
        // A write that blocks would do so until the next host.
        match options.read(true).write(true).custom_flags(O_NONBLOCK).open("/dev/vport0p1") {
            Ok(port) => break Port(port),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut session = 0;
    loop {
        if let Err(e) = serve(&port, &mut session) {
            say(&format!("guest: after session {session}: {e}"));
        }
        // No host is there.
        thread::sleep(Duration::from_millis(5));
    }
}

/// The port. Reading waits for as long as the host is there, and writing for a little longer.
struct Port(File);

/// How long a host that is missing may yet be coming. Its bytes come by themselves, and that it is there by way of a queue of
/// work: whoever answers at once answers a host that seems not to be there.
const COMING: Duration = Duration::from_secs(1);

impl Port {
    fn wait(&self, wanted: i16, milliseconds: c_int) -> i16 {
        let mut ask = PollFd { descriptor: self.0.as_raw_fd(), wanted, got: 0 };
        // SAFETY: one entry, valid through the call.
        unsafe { poll(&raw mut ask, 1, milliseconds) };
        ask.got
    }

    fn when_ready<T>(&self, wanted: i16, mut what: impl FnMut(&File) -> io::Result<T>) -> io::Result<T> {
        let mut missing = None;
        loop {
            match what(&self.0) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if self.wait(wanted, -1) & POLLHUP == 0 {
                missing = None;
            } else if missing.get_or_insert_with(Instant::now).elapsed() > COMING {
                return Err(io::ErrorKind::BrokenPipe.into());
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Read for &Port {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.when_ready(POLLIN, |mut port| port.read(into))
    }
}

impl Write for &Port {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.when_ready(POLLOUT, |mut port| port.write(from))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn serve(port: &Port, session: &mut u64) -> io::Result<()> {
    let mut to = port;
    let mut from = BufReader::new(port);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (command, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        match command {
            "hello" => {
                *session += 1;
                writeln!(to, "session {session} {rest}")?;
            }
            "echo" => {
                let mut left: u64 = rest.parse().unwrap_or(0);
                let mut buffer = vec![0; 64 << 10];
                while left > 0 {
                    let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let got = from.read(&mut buffer[..most])?;
                    if got == 0 {
                        return Ok(());
                    }
                    to.write_all(&buffer[..got])?;
                    left -= got as u64;
                }
            }
            "keep" => {
                let (seed, mib) = rest.split_once(' ').unwrap_or(("", ""));
                let (seed, mib): (u8, usize) = (seed.parse().unwrap_or(0), mib.parse().unwrap_or(0));
                let bytes = (0..mib << 20).map(|n| (n / 4096 + n % 251).to_le_bytes()[0].wrapping_add(seed));
                KEPT.lock().map_err(|_| io::ErrorKind::Other)?.extend(bytes);
                writeln!(to, "ok")?;
            }
            "kept" => {
                let hash = checksum(&KEPT.lock().map_err(|_| io::ErrorKind::Other)?);
                writeln!(to, "{hash}")?;
            }
            "drop" => {
                // As large as it is, its pages go back to the kernel at once.
                *KEPT.lock().map_err(|_| io::ErrorKind::Other)? = Vec::new();
                writeln!(to, "ok")?;
            }
            "ticks" => writeln!(to, "{}", TICKS.load(Ordering::Relaxed))?,
            "sleep" => {
                let before = Instant::now();
                thread::sleep(Duration::from_millis(rest.parse().unwrap_or(0)));
                writeln!(to, "{}", before.elapsed().as_micros())?;
            }
            "read" => writeln!(to, "{}", fs::read_to_string(rest).unwrap_or_default().replace('\n', "|"))?,
            "cpus" => writeln!(to, "{}", thread::available_parallelism().map_or(0, usize::from))?,
            "sum" => writeln!(to, "{}", disk(rest).and_then(|d| sum(&d)).unwrap_or_else(|e| e.to_string()))?,
            "storm" => writeln!(
                to,
                "{}",
                disk(rest).and_then(|d| storm(&d)).map_or_else(|e| e.to_string(), |n| n.to_string())
            )?,
            "scribble" => writeln!(
                to,
                "{}",
                disk(rest).and_then(|d| scribble(&d)).map_or_else(|e| e.to_string(), |()| "ok".to_owned())
            )?,
            "net" => writeln!(
                to,
                "{}",
                network_up().map_or_else(|e| e.to_string(), |mtu| format!("ok {}", mtu.trim_end()))
            )?,
            "udp" => writeln!(to, "{}", udp(rest).unwrap_or_else(|e| e.to_string()))?,
            "spray" => writeln!(to, "{}", spray(rest).map_or_else(|e| e.to_string(), |n| n.to_string()))?,
            "console" => {
                say(rest);
                writeln!(to, "ok")?;
            }
            "flood" => {
                let line = format!("{}\n", "x".repeat(1023));
                for _ in 0..rest.parse().unwrap_or(0) {
                    say(&line);
                }
                writeln!(to, "ok")?;
            }
            "devices" => {
                let mut names: Vec<String> = fs::read_dir("/sys/bus/virtio/devices")?
                    .chain(fs::read_dir("/sys/class/net")?)
                    .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
                    .collect::<io::Result<_>>()?;
                names.sort();
                writeln!(to, "{}", names.join(" "))?;
            }
            // SAFETY: it takes no pointer.
            "poweroff" => drop(unsafe { reboot(POWER_OFF) }),
            // SAFETY: as above.
            "reset" => drop(unsafe { reboot(RESTART) }),
            "panic" => fs::write("/proc/sysrq-trigger", "c")?,
            "die" => std::process::exit(7),
            "hog" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(vec![1_u8; 1 << 20]);
                }
            }
            _ => writeln!(to, "?")?,
        }
    }
}

/// The path of the disk with this serial.
fn disk(serial: &str) -> io::Result<String> {
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        if fs::read_to_string(entry.path().join("serial")).is_ok_and(|s| s.trim_end() == serial) {
            return Ok(format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    Err(io::Error::other("no such disk"))
}

/// The length of a file and a checksum of it (FNV-1a).
fn sum(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(checksum(&bytes))
}

fn checksum(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{} {hash:016x}", bytes.len())
}

/// Reads a disk from many threads at once, each in its own place, and counts the bytes.
fn storm(path: &str) -> io::Result<u64> {
    let size = File::open(path)?.seek(io::SeekFrom::End(0))?;
    let part = size / 64;
    let threads: Vec<_> = (0..64)
        .map(|n| {
            let mut file = File::open(path)?;
            thread::Builder::new().stack_size(64 << 10).spawn(move || -> io::Result<u64> {
                file.seek(io::SeekFrom::Start(n * part))?;
                io::copy(&mut file.take(part), &mut io::sink())
            })
        })
        .collect::<io::Result<_>>()?;
    threads.into_iter().map(|t| t.join().unwrap_or(Ok(0))).sum()
}

fn scribble(path: &str) -> io::Result<()> {
    let mut disk = OpenOptions::new().write(true).open(path)?;
    disk.write_all(&[0x5a; 4096])?;
    disk.sync_all()
}

/// Gives the card an address, and tells how large its packets may be.
fn network_up() -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let address = |[a, b, c, d]: [u8; 4]| [2, 0, 0, 0, a, b, c, d];
    let flags = UP.to_ne_bytes();
    let requests: [(c_ulong, &[u8]); 3] = [
        (SET_ADDRESS, &address([192, 0, 0, 2])),
        (SET_MASK, &address([255, 255, 255, 248])),
        (SET_FLAGS, &flags),
    ];
    for (request, value) in requests {
        // The name, and what is set.
        let mut ifreq = [0_u8; 40];
        ifreq[..4].copy_from_slice(b"eth0");
        ifreq[16..16 + value.len()].copy_from_slice(value);
        // SAFETY: the kernel reads no more than what there is.
        if unsafe { ioctl(socket.as_raw_fd(), request, ifreq.as_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    fs::read_to_string("/sys/class/net/eth0/mtu")
}

/// Sends a datagram of this size to the gateway, and gives the checksum of the answer.
fn udp(size: &str) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let bytes: Vec<u8> = (0..size.parse().unwrap_or(0_usize)).map(|n| (n % 251).to_le_bytes()[0]).collect();
    socket.send_to(&bytes, (Ipv4Addr::new(192, 0, 0, 1), 9))?;
    let mut answer = vec![0; 1 << 16];
    let got = socket.recv(&mut answer)?;
    Ok(checksum(&answer[..got]))
}

/// Sends datagrams of many sizes to the gateway, as many as are asked for and as its card takes, and tells how many.
fn spray(count: &str) -> io::Result<u32> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_nonblocking(true)?;
    let mut sent = 0;
    for n in 0..count.parse().unwrap_or(0) {
        let bytes = vec![0x5a; 1 + n * 7919 % 60_000];
        match socket.send_to(&bytes, (Ipv4Addr::new(192, 0, 0, 1), 9)) {
            Ok(_) => sent += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

fn say(line: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(format!("{}\n", line.trim_end()).as_bytes());
    }
}

fn uptime() -> String {
    fs::read_to_string("/proc/uptime").unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}

fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}
