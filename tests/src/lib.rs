//! The harness of the end-to-end tests: runs `cellule` as a user would, and looks for what it left behind.
//!
//! Its contract with whoever starts it, `scripts/test`:
//!
//! | variable | what it names |
//! |---|---|
//! | `CELLULE_TEST_BINARY` | the `cellule` under test |
//! | `CELLULE_TEST_HOME` | a state directory whose boot bundle is set up; it is read, never changed |
//! | `CELLULE_TEST_FIXTURES` | a directory with `debian.tar`, a root filesystem with python3 |
#![forbid(unsafe_code)]
#![expect(clippy::missing_panics_doc, reason = "a harness fails by panicking")]
#![expect(clippy::unwrap_used, reason = "a harness fails by panicking")]

pub mod apart;
pub mod layout;
pub mod leftovers;
pub mod processes;
pub mod sandbox;
pub mod servers;
pub mod terminal;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// How long a command may take before it counts as hung. Far above what any takes on a busy machine.
pub const HANG: Duration = Duration::from_secs(180);

fn setting(name: &str) -> PathBuf {
    let value = std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run these tests with `make test`"));
    fs::canonicalize(&value).unwrap_or_else(|error| panic!("{name}={}: {error}", value.display()))
}

/// The `cellule` under test.
pub fn binary() -> PathBuf {
    setting("CELLULE_TEST_BINARY")
}

/// A file that the tests were given.
pub fn fixture(name: &str) -> PathBuf {
    setting("CELLULE_TEST_FIXTURES").join(name)
}

/// A state directory of one test's own. It shares the boot bundle and nothing else.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
    /// The ids of all sandboxes ever seen here: a process may outlive its sandbox's directory.
    seen: Mutex<BTreeSet<String>>,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// A new one, with the boot bundle that is set up.
    pub fn new() -> Self {
        let this = Self::empty();
        this.share();
        this
    }

    /// Gives an empty one the boot bundle that is set up.
    pub fn share(&self) {
        let templates = setting("CELLULE_TEST_HOME").join("templates");
        fs::create_dir_all(templates).unwrap();
        for shared in ["bundles", "kernels", "bases", "templates"] {
            symlink(setting("CELLULE_TEST_HOME").join(shared), self.path().join(shared)).unwrap();
        }
    }

    /// A new one in which nothing was ever set up.
    pub fn empty() -> Self {
        let dir = tempfile::Builder::new().prefix("cellule-e2e-").tempdir().unwrap();
        Self { dir, seen: Mutex::default() }
    }

    /// Makes these parts of the boot bundle's store its own, so that what changes them changes nobody else's.
    pub fn copy(&self, parts: &[&str]) {
        for part in parts {
            let own = self.path().join(part);
            if own.is_symlink() {
                fs::remove_file(&own).unwrap();
            }
            let shared = fs::canonicalize(setting("CELLULE_TEST_HOME").join(part)).unwrap();
            let copied = Command::new("cp").arg("-r").args([&shared, &own]).status();
            assert!(copied.unwrap().success(), "{part} cannot be copied");
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its path as UTF-8, with this behind it.
    pub fn file(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }

    /// A call of `cellule` with this state directory.
    pub fn cellule<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Call {
        self.program(&binary(), arguments)
    }

    /// A call of another copy of `cellule` with this state directory.
    pub fn program<S: AsRef<OsStr>>(&self, program: &Path, arguments: impl IntoIterator<Item = S>) -> Call {
        let mut command = Command::new(program);
        // Only what a test sets: its user's own configuration must not decide what it sees.
        command.env_clear().env("CELLULE_HOME", self.path()).env("HOME", self.path());
        command
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
        command
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Call { command, stdin: None, limit: HANG }
    }

    /// `cellule run` with the words that follow it.
    pub fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Call {
        let mut call = self.cellule(["run"]);
        call.command.args(words);
        call
    }
}

impl Drop for Home {
    /// A test that fails leaves sandboxes behind, which would run for ever. Those that pass look for leftovers before.
    fn drop(&mut self) {
        for pid in leftovers::supervisors(self) {
            _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A call that was not made yet.
#[derive(Debug)]
pub struct Call {
    command: Command,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

impl Call {
    /// Gives it these bytes on standard input, and then the end.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes less time, or more, to count as hung.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// For what this harness has no word for.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// Starts it, its output for the caller to read. The caller waits for it.
    pub fn start_raw(mut self) -> Raw {
        let started = Instant::now();
        let child = self.command.spawn().expect("cellule starts");
        let group = Pid::from_child(&child);
        let (watchdog, ended) = mpsc::channel();
        thread::spawn(move || {
            if ended.recv_timeout(self.limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                _ = writeln!(std::io::stderr(), "killed, for it had not ended after {:?}", self.limit);
                _ = kill_process_group(group, Signal::KILL);
            }
        });
        Raw { child, started, _watchdog: watchdog }
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        if self.stdin.is_some() {
            self.command.stdin(Stdio::piped());
        }
        let (limit, bytes) = (self.limit, self.stdin.take());
        // `Running::wait` keeps the limit and says what had been written by then; the watchdog is for the time before.
        let mut child = self.limit(limit + HANG).start_raw();
        if let Some(bytes) = bytes
            && let Some(mut pipe) = child.stdin.take()
        {
            // A program that does not read all of it is none of our business.
            thread::spawn(move || _ = pipe.write_all(&bytes));
        }
        child.collect(limit)
    }

    /// Makes it and waits for its end.
    pub fn output(self) -> Outcome {
        self.start().wait()
    }
}

/// A process whose output its caller reads. It is killed with its process group when it takes too long, so that no read
/// lasts for ever, and when this value ends before it does.
#[derive(Debug)]
pub struct Raw {
    child: Child,
    started: Instant,
    /// The watchdog watches until this end of its channel is gone.
    _watchdog: mpsc::Sender<()>,
}

impl Raw {
    /// Leaves the reading to threads of its own.
    pub fn collect(mut self, limit: Duration) -> Running {
        let collect = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut pipe) = pipe {
                    pipe.read_to_end(&mut bytes).unwrap();
                }
                bytes
            })
        };
        let stdout = collect(self.stdout.take().map(|pipe| Box::new(pipe) as Box<_>));
        let stderr = collect(self.stderr.take().map(|pipe| Box::new(pipe) as Box<_>));
        Running { child: self, stdout, stderr, limit }
    }
}

impl Deref for Raw {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Raw {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            _ = self.child.wait();
        }
    }
}

/// A call on its way. Its process leads a process group of its own.
#[derive(Debug)]
pub struct Running {
    child: Raw,
    stdout: thread::JoinHandle<Vec<u8>>,
    stderr: thread::JoinHandle<Vec<u8>>,
    limit: Duration,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until it is gone.
    pub fn wait(mut self) -> Outcome {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.child.started.elapsed() > self.limit {
                _ = kill_process_group(self.pid(), Signal::KILL);
                _ = self.child.wait();
                let (out, err) = (self.stdout.join().unwrap(), self.stderr.join().unwrap());
                let [out, err] = [out, err].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                panic!("no end after {:?}\n--- stdout\n{out}\n--- stderr\n{err}", self.limit);
            }
            thread::sleep(Duration::from_millis(5));
        };
        let took = self.child.started.elapsed();
        Outcome { status, stdout: self.stdout.join().unwrap(), stderr: self.stderr.join().unwrap(), took }
    }
}

/// What came of a call.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Its standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("standard output is UTF-8")
    }

    /// Its standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Its exit code; a death by signal is none.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("killed by signal {:?}\n{}", self.status.signal(), self.err()))
    }

    /// Itself, if the exit code is this one.
    #[must_use]
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            code,
            "\n--- stdout\n{}\n--- stderr\n{}",
            String::from_utf8_lossy(&self.stdout),
            self.err()
        );
        self
    }

    /// Itself, if its standard error holds each of these.
    #[must_use]
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        let said = self.err();
        for word in words {
            assert!(said.contains(word), "{word:?} is missing in:\n{said}");
        }
        self
    }
}

/// Waits until something holds, and fails if it does not in time.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
