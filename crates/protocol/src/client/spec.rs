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

/// What a program and the children that it waited for took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The largest resident set of any of them, bytes.
    pub max_rss: u64,
    /// Time on the guest's CPU in the program.
    pub user: Duration,
    /// Time on the guest's CPU in the kernel.
    pub system: Duration,
}
