//! Owns what the host says of a program to run, and what it learns of its end.

use std::time::Duration;

/// A program to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// The program and its arguments. A program without a slash is looked up in `PATH`.
    pub argv: Vec<Vec<u8>>,
    /// The complete environment, each entry `NAME=VALUE`. `HOME` is added where it is missing; without `PATH`,
    /// programs are looked up in Docker's default one.
    pub env: Vec<Vec<u8>>,
    /// Absolute path; empty is `/`.
    pub cwd: Vec<u8>,
    /// Whether a missing `cwd` is made, as Docker does with an image's `WorkingDir`.
    pub create_cwd: bool,
    /// `name|uid[:group|gid]`, resolved in the image; empty is root.
    pub user: String,
    /// Additional groups, names or numbers.
    pub groups: Vec<String>,
    /// Whether the program gets a standard input; without, it is `/dev/null`.
    pub stdin: bool,
    /// After this the program and all it started are killed.
    pub timeout: Option<Duration>,
    /// Runs it in a session with a terminal of its own, which is its standard input, output and error.
    pub terminal: Option<TerminalSize>,
    /// A detached exec waits for a reader once its output buffer is full, rather than drop the oldest of it. Others
    /// always wait.
    pub lossless: bool,
    /// Written before the program starts, as its user's.
    pub files: Vec<StagedFile>,
    /// Programs with their arguments that run one after the other, each once the one before ended with code 0. The exit
    /// is that of the last one that ran.
    pub then: Vec<Vec<Vec<u8>>>,
    /// Resource limits beside the guest's usual ones.
    pub rlimits: Vec<Rlimit>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A file that is written before a program starts: whole, or the program does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedFile {
    /// Absolute. Its directory must be there.
    pub path: Vec<u8>,
    /// All that it is to hold. The request as a whole may have 4 MiB.
    pub content: Vec<u8>,
    /// Permission bits; without, 0644.
    pub mode: Option<u32>,
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// Its name in lower case without `RLIMIT_`, as in `nofile`.
    pub name: String,
    /// What holds; none is no limit.
    pub soft: Option<u64>,
    /// What the program may raise it to; none is no limit.
    pub hard: Option<u64>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// Its code, or the signal that killed it.
    pub exit: Exit,
    /// Whether the kernel wrote a core dump.
    pub core_dumped: bool,
    /// Whether it was killed for its [`ExecSpec::timeout`].
    pub timed_out: bool,
    /// Whether the kernel killed one of its processes for want of memory.
    pub oom_killed: bool,
    /// What it took.
    pub usage: Usage,
}

/// The way a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

/// What a program took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The largest resident set of it or any child that it waited for, bytes.
    pub max_rss: u64,
    /// Time on the guest's CPU in the program and such children.
    pub user: Duration,
    /// Time on the guest's CPU in the kernel for them.
    pub system: Duration,
    /// What all of its processes together held at the most, bytes, files in memory included; zero if it is not known.
    pub memory_peak: u64,
    /// Time on the guest's CPU of all of its processes together; zero if it is not known.
    pub cpu: Duration,
}
