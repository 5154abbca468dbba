//! Everything there is to know of one sandbox, as a document with a schema.

mod network;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cellule_supervisor::{DiskSize, Entry, IdleAction, MainStdin};
use schemars::JsonSchema;
use serde::Serialize;

pub use self::network::{InspectExposed, InspectNetwork, InspectPort, InspectSecret};

/// One sandbox. Times are nanoseconds since 1970, sizes are bytes.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Inspect {
    /// 12 hexadecimal digits.
    pub id: String,
    /// The name that its user gave it.
    pub name: Option<String>,
    /// created, starting, running, pausing, paused, resuming, stopping, stopped or failed.
    pub state: String,
    /// Why it failed, or ended by itself.
    pub cause: Option<String>,
    /// When it was made.
    pub created_ns: i64,
    /// When its machine was last started.
    pub started_ns: Option<i64>,
    /// When it last ended.
    pub ended_ns: Option<i64>,
    /// What it was made from.
    pub image: InspectImage,
    /// What executes the machine.
    pub engine: String,
    /// Its owner on this host.
    pub supervisor_pid: Option<u32>,
    /// What runs the machine on this host.
    pub engine_pid: Option<u32>,
    /// How it was last started.
    pub start: InspectStart,
    /// Its main program.
    pub main: Option<InspectMain>,
    /// What programs get that are run in it.
    pub exec: InspectExec,
    /// What the machine has.
    pub resources: InspectResources,
    /// How it reaches others, and they it.
    pub network: InspectNetwork,
    /// What is mounted besides the image.
    pub mounts: Vec<InspectMount>,
    /// What of the jail around the engine is active now; absent while nothing runs.
    pub jail: Option<InspectJail>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether nothing is kept once it has ended.
    pub remove_when_ended: bool,
    /// When it is removed at the latest.
    pub expires_ns: Option<i64>,
    /// What is done when nobody uses it.
    pub idle: Option<InspectIdle>,
    /// Its directory.
    pub directory: PathBuf,
}

/// What a sandbox was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectImage {
    /// As its user named it.
    pub name: String,
    /// The digest of its configuration.
    pub digest: String,
    /// Its root filesystem on this host.
    pub rootfs: PathBuf,
}

/// How a machine was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectStart {
    /// cold: the kernel booted; warm: the machine went on from a template; saved: from where a sandbox was saved.
    pub kind: String,
    /// What it was saved as: a snapshot, or a fork.
    pub from: Option<String>,
    /// The template.
    pub template: Option<String>,
    /// Why it is cold, where it might have been warm, or that the template had to be made.
    pub note: Option<String>,
    /// The steps in their order.
    pub phases: Vec<InspectPhase>,
}

/// A step of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectPhase {
    /// What was done.
    pub name: String,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// Whether the guest measured it, as a part of the phase before.
    pub in_guest: bool,
}

/// A main program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectMain {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// What it reads: none, once (until the first client's input ends) or open.
    pub stdin: String,
    /// Its process number in the guest, when it was last started.
    pub pid: Option<u32>,
    /// Its exit code.
    pub exit_code: Option<u8>,
    /// The signal that killed it.
    pub exit_signal: Option<i32>,
    /// Whether it was killed for its time limit.
    pub timed_out: bool,
    /// Whether the kernel killed it, or what it started, for want of memory.
    pub oom_killed: bool,
}

/// What programs get that are run in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectExec {
    /// Each NAME=VALUE.
    pub env: Vec<String>,
    /// Where they run.
    pub working_dir: String,
    /// Whom they run as; empty is root.
    pub user: String,
}

/// What a machine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectResources {
    /// Virtual processors.
    pub cpus: u32,
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// What the guest is to have of it, if that is not all.
    pub memory_target_bytes: Option<u64>,
    /// Its scratch disk, if what is written into the root filesystem is not in memory.
    pub disk_bytes: Option<u64>,
    /// Whether the root filesystem refuses writes.
    pub read_only: bool,
}

/// Something mounted besides the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectMount {
    /// tmpfs.
    pub kind: String,
    /// Where in the guest.
    pub path: String,
    /// Options of mount(8).
    pub options: String,
}

/// What holds the engine's process, as the kernel tells it of that process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectJail {
    /// Whether a seccomp filter is on it.
    pub seccomp: bool,
    /// Whether it can gain no privilege by executing a program.
    pub no_new_privileges: bool,
    /// The user that it runs as.
    pub uid: u32,
    /// The capabilities that it has, as a mask of capabilities(7).
    pub capabilities: String,
    /// The namespaces of its own, as named in /proc/PID/ns.
    pub namespaces: Vec<String>,
    /// The most memory that it can map.
    pub address_space_limit_bytes: Option<u64>,
}

/// What is done with a sandbox that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InspectIdle {
    /// After how many milliseconds.
    pub after_ms: u64,
    /// stop or pause.
    pub action: String,
}

impl Inspect {
    /// What is known of an entry, and of the processes of a running one.
    pub fn of(entry: &Entry) -> Self {
        let Entry { spec, record, .. } = entry;
        let live = entry.is_live();
        let engine_pid = record.engine_pids.first().map(|process| process.pid).filter(|_| live);
        let started = record.main.as_ref();
        let from = record.start.as_ref().and_then(|start| start.saved.clone());
        let template = record.start.as_ref().and_then(|start| start.template.clone());
        let exit = started.and_then(|main| main.exit.as_ref());
        Self {
            id: spec.id.to_string(),
            name: entry.name.as_ref().map(ToString::to_string),
            state: record.state.to_string(),
            cause: record.cause.clone(),
            created_ns: spec.created_ns,
            started_ns: record.started_ns,
            ended_ns: record.ended_ns,
            image: InspectImage {
                name: spec.image.clone(),
                digest: spec.image_digest.clone(),
                rootfs: spec.rootfs.clone(),
            },
            engine: spec.engine.clone(),
            supervisor_pid: record.supervisor_pid.filter(|_| live),
            engine_pid,
            start: InspectStart {
                kind: match (&from, &template) {
                    (Some(_), _) => "saved",
                    (None, Some(_)) => "warm",
                    (None, None) => "cold",
                }
                .to_owned(),
                from,
                template,
                note: record.start.as_ref().and_then(|start| start.note.clone()),
                phases: record
                    .phases
                    .iter()
                    .map(|phase| InspectPhase {
                        name: phase.name.clone(),
                        took_us: phase.took_us,
                        in_guest: phase.in_guest,
                    })
                    .collect(),
            },
            main: spec.main.as_ref().map(|main| InspectMain {
                argv: main.argv.clone(),
                terminal: main.tty,
                stdin: match main.stdin {
                    MainStdin::None => "none",
                    MainStdin::Once => "once",
                    MainStdin::Open => "open",
                }
                .to_owned(),
                pid: started.map(|main| main.pid),
                exit_code: exit.and_then(|exit| exit.code),
                exit_signal: exit.and_then(|exit| exit.signal),
                timed_out: exit.is_some_and(|exit| exit.timed_out),
                oom_killed: exit.is_some_and(|exit| exit.oom_killed),
            }),
            exec: InspectExec {
                env: spec.env.clone(),
                working_dir: spec.working_dir.clone(),
                user: spec.user.clone(),
            },
            resources: InspectResources {
                cpus: spec.cpus,
                memory_bytes: spec.memory_mib << 20,
                memory_target_bytes: record.memory_target_mib.filter(|_| live).map(|mib| mib << 20),
                disk_bytes: spec.disk.map(DiskSize::bytes),
                read_only: spec.read_only,
            },
            network: InspectNetwork::of(entry),
            mounts: spec
                .tmpfs
                .iter()
                .map(|tmpfs| InspectMount {
                    kind: "tmpfs".to_owned(),
                    path: tmpfs.path.clone(),
                    options: tmpfs.options.clone(),
                })
                .collect(),
            jail: engine_pid.and_then(|pid| jail(Path::new("/proc"), pid)),
            labels: spec.labels.clone(),
            remove_when_ended: spec.auto_remove,
            expires_ns: spec.expires_ns,
            idle: spec.idle.as_ref().map(|idle| InspectIdle {
                after_ms: idle.after_ms,
                action: match idle.action {
                    IdleAction::Stop => "stop",
                    IdleAction::Pause => "pause",
                }
                .to_owned(),
            }),
            directory: entry.path.clone(),
        }
    }

    /// The schema of this document, as JSON Schema.
    ///
    /// # Errors
    /// It cannot be written as JSON, which would be a bug.
    pub fn schema() -> serde_json::Result<String> {
        serde_json::to_string_pretty(&schemars::schema_for!(Self))
    }
}

/// What the kernel tells of a process, if it is there and ours to look at.
fn jail(proc: &Path, pid: u32) -> Option<InspectJail> {
    let of = proc.join(pid.to_string());
    let status = fs::read_to_string(of.join("status")).ok()?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let mut namespaces = Vec::new();
    for entry in fs::read_dir(of.join("ns")).ok()?.flatten() {
        let name = entry.file_name();
        let ours = fs::read_link(proc.join("self/ns").join(&name)).ok();
        if ours.is_some() && ours != fs::read_link(entry.path()).ok() {
            namespaces.push(name.to_string_lossy().into_owned());
        }
    }
    namespaces.sort_unstable();
    let limits = fs::read_to_string(of.join("limits")).ok()?;
    let address_space = limits.lines().find_map(|line| line.strip_prefix("Max address space"));
    Some(InspectJail {
        seccomp: field("Seccomp").is_some_and(|mode| mode != "0"),
        no_new_privileges: field("NoNewPrivs") == Some("1"),
        uid: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
        capabilities: field("CapEff").unwrap_or_default().to_owned(),
        namespaces,
        address_space_limit_bytes: address_space
            .and_then(|line| line.split_whitespace().next()?.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jail_of_a_process_is_what_the_kernel_says() {
        let jail = jail(Path::new("/proc"), std::process::id()).unwrap();
        assert_eq!(jail.uid, rustix::process::geteuid().as_raw());
        assert!(jail.namespaces.is_empty(), "a process shares its own namespaces");
        assert!(super::jail(Path::new("/proc"), u32::MAX).is_none());
    }

    #[test]
    fn the_schema_names_what_the_field_promises() {
        let schema = Inspect::schema().unwrap();
        for name in ["supervisor_pid", "engine_pid", "state", "cause", "jail", "phases", "mounts"] {
            assert!(schema.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
