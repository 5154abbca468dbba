//! What a sandbox is made of, as its directory keeps it. Owns the format of `spec.json`.
//!
//! It holds the command and the environment of the sandbox, as Docker's own files do: the directory is its user's alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::disk::DiskSize;
use crate::document::{self, DocumentError};
use crate::name::SandboxId;
use crate::network::NetworkSpec;

/// The format this version writes; any other is refused.
pub const FORMAT: u32 = 7;

/// What a sandbox is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSpec {
    /// The format of this document, [`FORMAT`].
    pub format: u32,
    /// The sandbox's own name, for ever.
    pub id: SandboxId,
    /// The image as its user named it; for people only.
    pub image: String,
    /// The digest of the image's configuration.
    pub image_digest: String,
    /// When it was made: wall clock, nanoseconds since 1970.
    pub created_ns: i64,
    /// The engine, by its name.
    pub engine: String,
    /// The engine's program where it is not to be searched for.
    pub engine_program: Option<PathBuf>,
    /// Virtual processors.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// The scratch disk that takes what is written into the root filesystem; without one it is memory.
    pub disk: Option<DiskSize>,
    /// The guest kernel, an ELF.
    pub kernel: PathBuf,
    /// The initramfs with the agent.
    pub initramfs: PathBuf,
    /// The image's root filesystem, EROFS.
    pub rootfs: PathBuf,
    /// Its digest.
    pub rootfs_digest: String,
    /// What the guest calls itself.
    pub hostname: String,
    /// Whether the root filesystem refuses writes.
    pub read_only: bool,
    /// Empty filesystems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// The environment of what is run in it, each `NAME=VALUE`: the image's and the user's.
    pub env: Vec<String>,
    /// Where that runs.
    pub working_dir: String,
    /// Whom it runs as; empty is root.
    pub user: String,
    /// The main program, with whose end the sandbox ends. Without one it idles until it is stopped.
    pub main: Option<MainSpec>,
    /// What asks the main program to stop; SIGTERM if absent.
    pub stop_signal: Option<i32>,
    /// Whether nothing of it is kept once it has ended.
    pub auto_remove: bool,
    /// When it is removed, whatever it does then: wall clock, nanoseconds since 1970.
    pub expires_ns: Option<i64>,
    /// What is done when nobody uses it.
    pub idle: Option<IdleRule>,
    /// How it reaches others, and they it.
    pub network: NetworkSpec,
    /// Certificates, as PEM, of authorities that its programs trust besides the image's.
    pub authorities: String,
    /// For whoever lists sandboxes.
    pub labels: BTreeMap<String, String>,
    /// Where machines are kept that have booted to where this one's agent would be ready; without it, it boots each time.
    pub templates: Option<TemplateCache>,
    /// What it goes on from, in words for people, each time it is started: a saved machine in its own directory. Then there is
    /// no boot, and no template.
    pub saved: Option<String>,
}

/// Where templates are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateCache {
    /// The directory.
    pub dir: PathBuf,
    /// Bytes on disk that all of them may take.
    pub limit: u64,
    /// A name of what the machine boots from, that nothing else has.
    pub boot: String,
    /// What runs before the machine is saved.
    pub warm_up: WarmUp,
}

/// What runs in a machine before it is saved, so that its effects are in each that goes on from there: files, pages of
/// memory, and programs that live on. It knows nothing of any one sandbox: it has the image's own settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// Scripts of the image's shell, one after the other; each must end with code 0.
    pub commands: Vec<String>,
    /// Scripts that are started after those, and live on.
    pub detached: Vec<String>,
    /// Ports of the guest that somebody must listen on before it is saved.
    pub ready_ports: Vec<u16>,
    /// Scripts that must end with code 0 before it is saved; they are tried again until they do.
    pub ready_commands: Vec<String>,
    /// Their environment, each `NAME=VALUE`.
    pub env: Vec<String>,
    /// Where they run.
    pub working_dir: String,
    /// Whom they run as; empty is root.
    pub user: String,
}

impl WarmUp {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
            && self.detached.is_empty()
            && self.ready_ports.is_empty()
            && self.ready_commands.is_empty()
    }
}

/// A sandbox's main program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MainSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its complete environment, each `NAME=VALUE`.
    pub env: Vec<String>,
    /// Where it runs.
    pub working_dir: String,
    /// Whom it runs as; empty is root.
    pub user: String,
    /// Additional groups, names or numbers.
    pub groups: Vec<String>,
    /// Whether it has a terminal, which is its input, output and error.
    pub tty: bool,
    /// The terminal's size at the start.
    pub rows: u16,
    /// The terminal's size at the start.
    pub columns: u16,
    /// What it reads.
    pub stdin: MainStdin,
    /// It is killed after this time.
    pub timeout_ms: Option<u64>,
    /// Limits of resources: name, soft, hard; `None` is no limit.
    pub rlimits: Vec<(String, Option<u64>, Option<u64>)>,
}

/// What a main program reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MainStdin {
    /// Nothing: `/dev/null`.
    #[default]
    None,
    /// What clients send, until the input of one of them ends.
    Once,
    /// What clients send; the end of a client's input is not its own.
    Open,
}

/// What is done with a sandbox that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdleRule {
    /// After how many milliseconds.
    pub after_ms: u64,
    /// What.
    pub action: IdleAction,
}

/// What is done with a sandbox that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleAction {
    /// It is stopped.
    Stop,
    /// It is paused, and goes on as soon as somebody uses it.
    Pause,
}

/// An empty filesystem in the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// Where it is mounted, an absolute path.
    pub path: String,
    /// Options of mount(8) for tmpfs; empty leaves them to the agent.
    pub options: String,
}

impl SandboxSpec {
    /// Far above any real document, arguments of 128 KiB included: a larger one is damage.
    pub(crate) const LIMIT: u64 = 4 << 20;

    /// Reads the contents of a `spec.json`.
    ///
    /// # Errors
    /// It is not a document of this version's.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        document::parse(bytes)
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now_ns: i64) -> bool {
        self.expires_ns.is_some_and(|expires| expires <= now_ns)
    }
}
