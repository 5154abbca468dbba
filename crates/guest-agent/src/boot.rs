//! Owns the way from the kernel's first process to a machine that can run an image's programs.
//!
//! ```text
//!   kernel's mounts ──▶ modules ──▶ port ──▶ rootfs disk ──▶ overlay ──▶ new root ──▶ a container's mounts
//! ```
//! Nothing here ends the boot: a step that fails is a problem that the host hears of, with its cause. Each step's time is
//! kept, since under an emulated CPU every one of them shows.

mod disk;
mod limits;
mod modules;
mod mounts;
mod network;
mod rest;
mod root;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cellule_protocol::v1::{BootStep, Problem, problem::Kind};
use rustix::time::{ClockId, clock_gettime};

pub(crate) use self::root::read_ahead;
use crate::cgroup::Cgroups;
use crate::fault::Fault;
use crate::insight::diff::Sides;
use crate::interface;
use crate::port::VirtioPort;

/// What the boot gave.
#[derive(Debug)]
pub struct Booted {
    /// The steps in their order.
    pub steps: Vec<BootStep>,
    /// What went wrong.
    pub problems: Vec<Problem>,
    /// The port to the host.
    pub port: Result<VirtioPort, Fault>,
    /// What programs run in.
    pub system: System,
}

/// What the rest of the agent needs of the machine that was set up.
#[derive(Debug, Default)]
pub struct System {
    /// The directory of the files that the agent puts over the image's, once there is a root filesystem.
    pub files: Option<OwnedFd>,
    /// What the root filesystem is made of, if there is one.
    pub(crate) sides: Option<Arc<Sides>>,
    /// The disk with the image, if there is a root filesystem.
    pub(crate) image: Option<File>,
    /// The control groups, if the kernel has them.
    pub cgroups: Option<Cgroups>,
}

/// Boots the machine. Only PID 1 of a guest may call this, once.
pub fn boot() -> Booted {
    let mut log = Log::default();
    log.step("kernel filesystems", Kind::Mount, mounts::for_the_kernel);
    log.step("limits", Kind::Mount, limits::set);
    log.step("modules", Kind::Module, modules::load_all);
    let port = log.try_step("port", VirtioPort::open);
    if let Err(fault) = &port {
        log.problem(Kind::Module, fault);
    }
    let mut system = System::default();
    let root = log.try_step("root filesystem", root::mount);
    match root {
        Ok(parts) => {
            system.files = Some(parts.files);
            system.sides = Some(Arc::new(parts.sides));
            system.image = Some(parts.image);
            for (name, mount) in mounts::CONTAINER {
                log.step(name, Kind::Mount, mount);
            }
            match log.try_step("control groups", Cgroups::new) {
                Ok(cgroups) => system.cgroups = Some(cgroups),
                Err(fault) => log.problem(Kind::Mount, &fault),
            }
            log.step("loopback interface", Kind::Network, || interface::bring_up("lo"));
            log.step("network card", Kind::Network, network::set_up);
        }
        Err(fault) => log.problem(Kind::RootFilesystem, &fault),
    }
    log.step("scheduling", Kind::Mount, limits::yield_to_programs);
    log.step("rest", Kind::Mount, rest::set);
    Booted { steps: log.steps, problems: log.problems, port, system }
}

#[derive(Default)]
struct Log {
    steps: Vec<BootStep>,
    problems: Vec<Problem>,
}

impl Log {
    fn step(&mut self, name: &'static str, kind: Kind, run: impl FnOnce() -> Result<(), Fault>) {
        if let Err(fault) = self.try_step(name, run) {
            self.problem(kind, &fault);
        }
    }

    fn try_step<T>(
        &mut self,
        name: &'static str,
        run: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let started_us = since_boot_us();
        let result = run();
        self.steps.push(BootStep {
            name: name.to_owned(),
            started_us,
            took_us: since_boot_us().saturating_sub(started_us),
        });
        result
    }

    fn problem(&mut self, kind: Kind, fault: &Fault) {
        self.problems.push(Problem { kind: kind.into(), message: fault.to_string() });
    }
}

/// Microseconds since the kernel started its clock.
pub(crate) fn since_boot_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}
