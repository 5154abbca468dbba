//! The guest's `/init`.

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Duration;

use cellule_guest_agent::machine::{Machine, power_off};
use cellule_guest_agent::port::VirtioPort;
use cellule_guest_agent::session::Agent;
use cellule_guest_agent::{boot, report};

fn main() -> ExitCode {
    if std::process::id() != 1 {
        report("this program is the first process of a guest and does nothing anywhere else");
        return ExitCode::from(2);
    }
    panic::set_hook(Box::new(|panic| report(format_args!("this should not have happened: {panic}"))));
    let Ok(booted) = panic::catch_unwind(boot::boot) else { power_off() };
    for problem in &booted.problems {
        report(&problem.message);
    }
    // Without a port nobody will ever ask for anything; the console has the reason.
    let Ok(mut port) = booted.port else { power_off() };
    let agent = Agent::new(Some(Machine::new(booted.steps, booted.problems, booted.system)));
    // The kernel must not lose its first process: what ends the loop below is reported and the loop begun anew.
    loop {
        let _reported = panic::catch_unwind(AssertUnwindSafe(|| live(&agent, &mut port)));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn live(agent: &std::sync::Arc<Agent>, port: &mut VirtioPort) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(std::sync::Arc::clone(agent).serve(port)),
        Err(error) => report(format_args!("no event loop: {error}")),
    }
}
