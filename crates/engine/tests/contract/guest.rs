//! The guest's files, and the host's side of its commands.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cellule_engine::{AgentStream, CpuCount, Engine, Kernel, Machine, MachineConfig, MemorySize, Start};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::time::timeout;

/// The directory with `kernel` and `initramfs`, as `cellule setup` makes it.
const BUNDLE: &str = "CELLULE_TEST_BUNDLE";
/// Only against hangs: an emulated guest on a busy host needs its time.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Runs something that must not hang.
pub(crate) async fn limited<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("an end within the limit")
}

fn bundle() -> PathBuf {
    let Some(dir) = std::env::var_os(BUNDLE) else {
        panic!("{BUNDLE} must name a boot bundle's directory: run these tests through `make test`")
    };
    PathBuf::from(dir)
}

/// The suite's own `init`, compiled once per run.
fn init() -> &'static [u8] {
    static INIT: OnceLock<Vec<u8>> = OnceLock::new();
    INIT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/init.rs");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = dir.path().join("init");
        let compiled = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args([
                "--edition=2024",
                "-Copt-level=2",
                "-Cstrip=symbols",
                "-Ctarget-feature=+crt-static",
                "-o",
            ])
            .arg(&program)
            .arg(source)
            .status()
            .expect("rustc");
        assert!(compiled.success(), "the guest's init does not compile");
        std::fs::read(program).expect("the compiled init")
    })
}

/// The bundle's initramfs with one more archive behind it: of two files with one name, the kernel takes the last.
pub(crate) fn initramfs() -> File {
    let mut all = tempfile::tempfile().expect("a temporary file");
    let mut from = File::open(bundle().join("initramfs")).expect("the bundle's initramfs");
    let size = io::copy(&mut from, &mut all).expect("room for an initramfs");
    // The kernel looks for the next archive at a multiple of four.
    all.write_all(&[0; 4][..(size.wrapping_neg() % 4) as usize]).expect("room for the padding");
    let entry = cpio::newc::Builder::new("init").mode(0o100_755).nlink(1);
    cpio::write_cpio(std::iter::once((entry, io::Cursor::new(init()))), &mut all).expect("room for an init");
    all.rewind().expect("a file that can be rewound");
    all
}

/// A machine's configuration in a directory of its own.
pub(crate) fn config() -> (MachineConfig, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = MachineConfig {
        start: Start::Boot(Kernel {
            kernel: File::open(bundle().join("kernel")).expect("the bundle's kernel"),
            initramfs: initramfs(),
            cmdline: String::new(),
        }),
        cpus: CpuCount::ONE,
        memory: MemorySize::from_mib(256).expect("a host with 256 MiB"),
        disks: Vec::new(),
        // Nobody is there, of whom most tests want nothing.
        network: crate::network::pair().0,
        dir: dir.path().to_owned(),
        console_log: None,
    };
    (config, dir)
}

/// A machine whose guest answers.
pub(crate) struct Guest {
    pub(crate) machine: Box<dyn Machine>,
    pub(crate) session: Session,
    /// Removed last.
    pub(crate) dir: TempDir,
}

impl Guest {
    pub(crate) async fn boot(engine: &dyn Engine) -> Self {
        let (config, dir) = config();
        Self::boot_with(engine, config, dir).await
    }

    pub(crate) async fn boot_with(engine: &dyn Engine, config: MachineConfig, dir: TempDir) -> Self {
        let machine = limited(engine.launch(config)).await.expect("a launched machine");
        let session = Session::open(machine.as_ref()).await;
        Self { machine, session, dir }
    }

    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&self.machine.console()).into_owned()
    }
}

/// One session with the guest.
pub(crate) struct Session {
    pub(crate) stream: BufStream<AgentStream>,
    /// The number that the guest gave it.
    pub(crate) number: u64,
}

impl Session {
    pub(crate) async fn open(machine: &dyn Machine) -> Self {
        static NONCE: AtomicU64 = AtomicU64::new(1);
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        let stream = limited(machine.connect()).await.expect("a stream to the guest");
        let mut session = Self { stream: BufStream::new(stream), number: 0 };
        // Behind whatever was left half said.
        session.tell(&format!("\nhello {nonce}")).await;
        let answer = async {
            loop {
                let words = session.line().await;
                let number = words.strip_prefix("session ").and_then(|words| words.split_once(' '));
                if let Some((number, of)) = number
                    && of == nonce.to_string()
                {
                    break number.parse().expect("a session's number");
                }
            }
        };
        let number = tokio::select! {
            number = answer => number,
            reason = machine.wait() => {
                let console = String::from_utf8_lossy(&machine.console()).into_owned();
                panic!("{reason}; its console:\n{console}")
            }
        };
        session.number = number;
        session
    }

    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        limited(self.stream.read_line(&mut line)).await.expect("a line from the guest");
        assert!(line.ends_with('\n'), "the stream ended after {line:?}");
        line.truncate(line.len() - 1);
        line
    }

    pub(crate) async fn tell(&mut self, command: &str) {
        limited(async {
            self.stream.write_all(format!("{command}\n").as_bytes()).await?;
            self.stream.flush().await
        })
        .await
        .expect("a guest that listens");
    }

    pub(crate) async fn ask(&mut self, command: &str) -> String {
        self.tell(command).await;
        self.line().await
    }

    pub(crate) async fn number(&mut self, command: &str) -> u64 {
        let answer = self.ask(command).await;
        answer.parse().unwrap_or_else(|_| panic!("{command}: {answer}"))
    }
}

/// A file with a pattern that is nowhere the same, and the checksum that the guest gives of it.
pub(crate) fn patterned(size: usize) -> (File, String) {
    let bytes: Vec<u8> =
        (0..size as u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]).collect();
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&bytes).expect("room for the pattern");
    (file, sum(&bytes))
}

/// As the guest's own `sum`.
pub(crate) fn sum(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{} {hash:016x}", bytes.len())
}

pub(crate) fn sum_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a readable file");
    sum(&bytes)
}
