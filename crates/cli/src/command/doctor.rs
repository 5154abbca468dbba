//! `cellule doctor`: what this host offers, what is missing, and what helps.

mod network;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cellule::Host;
use cellule_boot::{AGENT, Bundle, Current, Remake};
use cellule_engine::EngineChoice;
use cellule_engine::kvm::{KvmDevice, KvmProbe};
use serde::Serialize;

use crate::failure::{self, Failure};
use crate::quantity::show_size;
use crate::{host, table};

/// Less memory than this lets few sandboxes of the default size run.
const MEMORY_WANTED: u64 = 1 << 30;
/// Less space than this holds a boot bundle and few images.
const DISK_WANTED: u64 = 1 << 30;

/// Show what this host offers, what is missing, and what helps
///
/// The exit code is 0 if sandboxes can run here, and 1 if something that they need is missing or unusable.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How to show it
    #[arg(long, default_value = "table", value_enum)]
    format: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// A JSON array of what was looked at
    Json,
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    Ok,
    Missing,
    Unusable,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    standing: Standing,
    /// Whether no sandbox can run without it.
    required: bool,
    found: String,
    remedy: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, standing: Standing::Ok, required: false, found: found.into(), remedy: None }
    }

    fn not(name: &'static str, standing: Standing, found: impl Into<String>, remedy: &str) -> Self {
        Self { name, standing, required: false, found: found.into(), remedy: Some(remedy.to_owned()) }
    }

    fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let home = host.home();
    let probe = KvmProbe::run();
    let mut findings = vec![
        cpu(&probe),
        kvm_device(&probe),
        kvm_guest(&probe),
        super::runtime()?.block_on(qemu(&host)),
        memory(),
        formatter(),
        disk(home),
        user_namespaces(),
        cgroup(),
        bundle(home),
    ];
    findings.extend(network::findings());
    let text = match arguments.format {
        Format::Table => render(&findings),
        Format::Json => {
            serde_json::to_string_pretty(&findings)
                .map_err(|error| Failure::because("cannot print", &error))?
                + "\n"
        }
    };
    crate::answer(&text)?;
    let lacking = findings.iter().any(|finding| finding.required && finding.standing != Standing::Ok);
    Ok(ExitCode::from(u8::from(lacking)))
}

fn render(findings: &[Finding]) -> String {
    let rows: Vec<[String; 4]> = findings
        .iter()
        .map(|finding| {
            let standing = match finding.standing {
                Standing::Ok => "ok",
                Standing::Missing => "missing",
                Standing::Unusable => "unusable",
            };
            let needed = if finding.required { "yes" } else { "no" };
            [finding.name.to_owned(), standing.to_owned(), needed.to_owned(), finding.found.clone()]
        })
        .collect();
    let mut text = table::render(["WHAT", "STANDING", "NEEDED", "FOUND"], &rows);
    for finding in findings {
        if let Some(remedy) = &finding.remedy {
            _ = write!(text, "\n{}: {remedy}", finding.name);
        }
    }
    if findings.iter().any(|finding| finding.remedy.is_some()) {
        text.push('\n');
    }
    text
}

/// Said of all that only a faster engine needs.
const NOT_NEEDED: &str = "not needed: without it QEMU emulates the CPU, which is slower";

fn cpu(probe: &KvmProbe) -> Finding {
    match probe.cpu_flag {
        Some(flag) => Finding::ok("CPU virtualisation", flag),
        None => Finding::not("CPU virtualisation", Standing::Missing, "neither vmx nor svm", NOT_NEEDED),
    }
}

fn kvm_device(probe: &KvmProbe) -> Finding {
    const NAME: &str = "/dev/kvm";
    match &probe.device {
        KvmDevice::Open => Finding::ok(NAME, "opens"),
        KvmDevice::Missing => Finding::not(NAME, Standing::Missing, "not there", NOT_NEEDED),
        KvmDevice::Denied => Finding::not(
            NAME,
            Standing::Unusable,
            "permission denied",
            "add yourself to the group kvm: usermod -aG kvm USER",
        ),
        KvmDevice::Unusable(why) => Finding::not(NAME, Standing::Unusable, why.clone(), NOT_NEEDED),
    }
}

fn kvm_guest(probe: &KvmProbe) -> Finding {
    const NAME: &str = "KVM runs a guest";
    match &probe.runs_guest {
        Some(Ok(())) if probe.usable() => {
            Finding::ok(NAME, "a probe ran; this version's engine is QEMU's emulator all the same")
        }
        Some(Ok(())) => Finding::not(
            NAME,
            Standing::Unusable,
            "a probe ran, but not on the CPU's own virtualisation",
            NOT_NEEDED,
        ),
        Some(Err(why)) => Finding::not(NAME, Standing::Unusable, why.clone(), NOT_NEEDED),
        None => Finding::not(NAME, Standing::Missing, "not tried", NOT_NEEDED),
    }
}

async fn qemu(host: &Host) -> Finding {
    const NAME: &str = "QEMU";
    let finding = match EngineChoice::Qemu.engine(host.qemu().map(PathBuf::from)).check().await {
        Ok(info) => Finding::ok(NAME, format!("{} at {}", info.version, info.program.display())),
        Err(error @ cellule_engine::EngineProblem::NotInstalled { .. }) => {
            Finding::not(NAME, Standing::Missing, error.to_string(), "apt-get install qemu-system-x86")
        }
        Err(error) => Finding::not(NAME, Standing::Unusable, error.to_string(), "install QEMU 7.2 or newer"),
    };
    finding.required()
}

fn formatter() -> Finding {
    const NAME: &str = "mkfs.ext4";
    match cellule_supervisor::formatter() {
        Some(program) => Finding::ok(NAME, program.display().to_string()),
        None => Finding::not(
            NAME,
            Standing::Missing,
            "not installed",
            "run --disk needs it, and nothing else: apt-get install e2fsprogs",
        ),
    }
}

fn memory() -> Finding {
    const NAME: &str = "memory";
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    match kib.map(|kib| kib << 10) {
        Some(bytes) if bytes >= MEMORY_WANTED => Finding::ok(NAME, format!("{} available", show_size(bytes))),
        Some(bytes) => Finding::not(
            NAME,
            Standing::Unusable,
            format!("{} available", show_size(bytes)),
            "a sandbox takes up to its --memory, 512 MiB by default, and some 100 MB of QEMU's own",
        ),
        None => Finding::not(NAME, Standing::Missing, "/proc/meminfo does not say", "mount /proc"),
    }
}

fn disk(home: &Path) -> Finding {
    const NAME: &str = "disk";
    // The state directory need not be there yet: what will hold it tells as well.
    let there = home.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(there) {
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            let found = format!("{} free at {}", show_size(free), home.display());
            if free >= DISK_WANTED {
                Finding::ok(NAME, found)
            } else {
                Finding::not(
                    NAME,
                    Standing::Unusable,
                    found,
                    "free some, or set CELLULE_HOME to another disk",
                )
            }
        }
        Err(error) => Finding::not(
            NAME,
            Standing::Unusable,
            error.to_string(),
            "set CELLULE_HOME to a directory of your own",
        ),
    }
}

fn user_namespaces() -> Finding {
    const NAME: &str = "user namespaces";
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let most = number("/proc/sys/user/max_user_namespaces");
    let closed = number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0);
    match most {
        Some(most) if most > 0 && !closed => Finding::ok(NAME, "available"),
        _ => Finding::not(NAME, Standing::Unusable, "switched off", "not needed by this version"),
    }
}

fn cgroup() -> Finding {
    const NAME: &str = "cgroup v2";
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        Finding::ok(NAME, "mounted")
    } else {
        Finding::not(NAME, Standing::Missing, "/sys/fs/cgroup is not cgroup2", "not needed by this version")
    }
}

fn bundle(home: &Path) -> Finding {
    const NAME: &str = "boot bundle";
    match Bundle::open_current(home, &AGENT) {
        Ok(Current::Ready(bundle)) => match bundle.verify() {
            Ok(()) => Finding::ok(NAME, format!("kernel {}", bundle.manifest.contents.kernel.release)),
            Err(error) => {
                Finding::not(NAME, Standing::Unusable, failure::line(&error), "cellule setup --force")
            }
        },
        Ok(Current::Compose(reason)) => remake(NAME, &reason, "the next run makes it, without network"),
        Ok(Current::Setup(reason)) => remake(NAME, &reason, "the next run makes it, or: cellule setup"),
        Err(error) => Finding::not(
            NAME,
            Standing::Unusable,
            error.to_string(),
            "set CELLULE_HOME to a directory of your own",
        ),
    }
}

fn remake(name: &'static str, reason: &Remake, remedy: &str) -> Finding {
    match reason {
        Remake::Missing => Finding::not(name, Standing::Missing, "none yet", remedy),
        Remake::OtherAgent => Finding::not(name, Standing::Missing, "made by another version", remedy),
        Remake::Damaged(error) => Finding::not(name, Standing::Unusable, failure::line(&**error), remedy),
    }
}
