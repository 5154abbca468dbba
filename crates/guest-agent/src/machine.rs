//! Owns the machine as the host configures it: clock, entropy, name, files, mounts, power.

mod configuration;
mod identity;
mod power;
mod trust;

use std::ffi::CStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cellule_protocol::v1::handshake_request::Programs;
use cellule_protocol::v1::{BootStep, HandshakeRequest, HandshakeResponse, Problem, problem::Kind};

pub use self::power::power_off;
pub(crate) use self::power::shut_down;
use crate::boot::System;
use crate::cgroup::Cgroups;
use crate::fault::Fault;
use crate::insight::diff::Sides;

/// Where the boot mounts something over whatever is there.
const MOUNTED: [&str; 3] = ["/dev", "/proc", "/sys"];

/// The machine that this program is PID 1 of.
#[derive(Debug)]
pub struct Machine {
    /// What does not change, and is asked anew by each host: found out once, since a guest that has just been restored
    /// comes to each system call for the first time.
    description: HandshakeResponse,
    problems: Vec<Problem>,
    system: System,
    configured: Mutex<configuration::Configured>,
    /// Whether programs stand still until a host says what this machine is.
    held: AtomicBool,
}

impl Machine {
    /// The machine as it booted.
    pub fn new(steps: Vec<BootStep>, problems: Vec<Problem>, system: System) -> Self {
        let description = HandshakeResponse { boot_steps: steps, ..describe() };
        let held = AtomicBool::new(false);
        Self { description, problems, system, configured: Mutex::default(), held }
    }

    /// Whether programs have a root filesystem to run in.
    pub(crate) fn has_root(&self) -> bool {
        self.system.files.is_some()
    }

    /// Whether programs stand still, so that this machine may be a copy that does not know it yet.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn cgroups(&self) -> Option<&Cgroups> {
        self.system.cgroups.as_ref()
    }

    /// The root filesystem and its image, if there are any, and what of it is the agent's doing.
    pub(crate) fn sides(&self) -> Option<(Arc<Sides>, Vec<Vec<u8>>)> {
        let sides = Arc::clone(self.system.sides.as_ref()?);
        let configured = self.configured.lock().unwrap_or_else(PoisonError::into_inner);
        let mounted = configured.mounted().map(|path| path.as_os_str().as_bytes().to_vec());
        let boots = MOUNTED.iter().map(|path| path.as_bytes().to_vec());
        Some((sides, boots.chain(mounted).collect()))
    }

    /// Makes the machine what the host asks for, as far as it goes.
    pub(crate) fn handshake(&self, request: &HandshakeRequest) -> HandshakeResponse {
        let mut problems = self.problems.clone();
        let mut note = |kind: Kind, result: Result<(), Fault>| {
            if let Err(fault) = result {
                problems.push(Problem { kind: kind.into(), message: fault.to_string() });
            }
        };
        // Before all else: nothing may draw random numbers that another copy of this machine draws too.
        note(Kind::Identity, identity::seed(&request.entropy));
        note(Kind::Identity, identity::set_clock(request.wall_clock_ns));
        if let Some(configuration) = &request.configuration {
            let mut configured = self.configured.lock().unwrap_or_else(PoisonError::into_inner);
            configuration::apply(configuration, &mut configured, self.system.files.as_ref(), |result| {
                note(Kind::Configuration, result);
            });
        }
        if let Some(image) = self.system.image.as_ref().filter(|_| request.read_ahead) {
            note(Kind::RootFilesystem, crate::boot::read_ahead(image));
        }
        // After all else: what they find when they go on is what this machine is now.
        if let Some(cgroups) = self.cgroups() {
            match request.programs() {
                Programs::AsTheyAre => {}
                Programs::Held => {
                    self.held.store(true, Ordering::Relaxed);
                    note(Kind::Identity, cgroups.hold());
                }
                Programs::Released => {
                    note(Kind::Identity, cgroups.release());
                    self.held.store(false, Ordering::Relaxed);
                }
            }
        }
        HandshakeResponse { problems, ..self.description.clone() }
    }
}

/// What any process can say of the machine that it runs on.
pub(crate) fn describe() -> HandshakeResponse {
    let kernel = rustix::system::uname();
    let memory = rustix::system::sysinfo();
    HandshakeResponse {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: text(kernel.release()),
        memory_bytes: u64::from(memory.mem_unit).saturating_mul(memory.totalram),
        cpus: std::thread::available_parallelism()
            .map_or(0, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        problems: Vec::new(),
        boot_steps: Vec::new(),
    }
}

/// What is left for programs, as the kernel estimates it; zero if it does not say.
pub(crate) fn memory_available_bytes() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What this program itself holds; zero if the kernel does not say.
pub(crate) fn own_rss_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    resident * rustix::param::page_size() as u64
}

fn text(value: &CStr) -> String {
    value.to_string_lossy().into_owned()
}
