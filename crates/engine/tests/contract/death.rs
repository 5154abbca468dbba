//! Every way in which a machine can end, or not begin.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cellule_engine::{
    ConnectError, ControlError, Engine, ExitReason, Kernel, KernelProblem, LaunchError, MachineState, Start,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use crate::guest::{Guest, Session, config, initramfs, limited};

/// The longest that a death may go unnoticed.
const NOTICED: Duration = Duration::from_secs(1);

async fn end_after(engine: &dyn Engine, command: &str) -> ExitReason {
    let Guest { machine, mut session, dir } = Guest::boot(engine).await;
    let pids = pids(machine.processes());
    assert!(!pids.is_empty());
    session.tell(command).await;
    let reason = limited(machine.wait()).await;
    assert_eq!(machine.wait().await, reason, "the reason stays the same");
    assert_eq!(machine.state(), MachineState::Exited(reason.clone()));
    assert!(machine.processes().is_empty());
    // The end of the machine is the end of the stream.
    let mut rest = Vec::new();
    let _ = limited(session.stream.read_to_end(&mut rest)).await;
    for pid in pids {
        assert!(test_kill_process(pid).is_err(), "process {pid:?} is left");
    }
    drop(machine);
    assert_eq!(left_in(dir.path()), 0);
    reason
}

fn pids(processes: Vec<cellule_engine::HostProcess>) -> Vec<Pid> {
    processes.into_iter().filter_map(|p| Pid::from_raw(i32::try_from(p.pid).ok()?)).collect()
}

fn left_in(dir: &Path) -> usize {
    fs::read_dir(dir).expect("the machine's directory").count()
}

pub(crate) async fn a_power_off_is_told(engine: &dyn Engine) {
    assert_eq!(end_after(engine, "poweroff").await, ExitReason::PoweredOff);
}

pub(crate) async fn a_reset_is_told_and_not_obeyed(engine: &dyn Engine) {
    assert_eq!(end_after(engine, "reset").await, ExitReason::Reset);
}

pub(crate) async fn a_panic_is_told_with_its_reason(engine: &dyn Engine) {
    match end_after(engine, "panic").await {
        ExitReason::GuestPanicked { message, out_of_memory: false } => {
            assert_eq!(message, "sysrq triggered crash");
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn the_death_of_init_is_told(engine: &dyn Engine) {
    match end_after(engine, "die").await {
        ExitReason::GuestPanicked { message, out_of_memory: false } => {
            assert_eq!(message, "Attempted to kill init! exitcode=0x00000700");
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_guest_without_memory_is_told(engine: &dyn Engine) {
    match end_after(engine, "hog").await {
        ExitReason::GuestPanicked { out_of_memory: true, .. } => {}
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_kill_is_told(engine: &dyn Engine) {
    let guest = Guest::boot(engine).await;
    guest.machine.kill();
    assert_eq!(limited(guest.machine.wait()).await, ExitReason::Killed);
}

pub(crate) async fn a_killed_paused_guest_is_told(engine: &dyn Engine) {
    let guest = Guest::boot(engine).await;
    guest.machine.pause().await.expect("a pause");
    guest.machine.kill();
    assert_eq!(limited(guest.machine.wait()).await, ExitReason::Killed);
}

pub(crate) async fn a_dropped_machine_leaves_nothing(engine: &dyn Engine) {
    let Guest { machine, session, dir } = Guest::boot(engine).await;
    let pids = pids(machine.processes());
    drop(machine);
    for pid in pids {
        assert!(test_kill_process(pid).is_err(), "process {pid:?} is left");
    }
    assert_eq!(left_in(dir.path()), 0);
    drop(session);
}

pub(crate) async fn a_dead_engine_is_told_within_a_second(engine: &dyn Engine) {
    for signal in [Signal::KILL, Signal::TERM] {
        let guest = Guest::boot(engine).await;
        for pid in pids(guest.machine.processes()) {
            kill_process(pid, signal).expect("a process of ours");
        }
        let before = Instant::now();
        match limited(guest.machine.wait()).await {
            ExitReason::EngineDied { status, stderr } => {
                // Asked to end, it may do so in order; but it isn't the guest's end.
                if signal == Signal::KILL {
                    assert_eq!(status.signal(), Some(signal.as_raw()), "{stderr}");
                }
            }
            other => panic!("{other:?}"),
        }
        assert!(before.elapsed() < NOTICED, "{:?}", before.elapsed());
    }
}

/// Set for the child that plays the owner.
const OWNER: &str = "CELLULE_TEST_OWNER_DIR";

pub(crate) async fn a_dead_owner_takes_the_machine_along(engine: &dyn Engine) {
    if let Some(dir) = std::env::var_os(OWNER) {
        own_until_killed(engine, Path::new(&dir)).await;
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let test = std::thread::current().name().expect("a test's thread has its name").to_owned();
    let mut owner = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", &test, "--ignored", "--nocapture"])
        .env(OWNER, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("this program");
    let told = dir.path().join("pids");
    let machine: Vec<Pid> = limited(async {
        loop {
            match fs::read_to_string(&told) {
                Ok(line) if line.ends_with('\n') => {
                    break line.split_whitespace().filter_map(|n| Pid::from_raw(n.parse().ok()?)).collect();
                }
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    assert!(!machine.is_empty());
    assert!(machine.iter().all(|pid| alive(*pid)));
    owner.kill().expect("a child of ours");
    let before = Instant::now();
    owner.wait().expect("a child of ours");
    while machine.iter().any(|pid| alive(*pid)) {
        assert!(before.elapsed() < NOTICED, "the machine outlives its owner");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process runs: one that only waits to be reaped, by whoever inherited it, does not.
fn alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

async fn own_until_killed(engine: &dyn Engine, dir: &Path) {
    let (mut config, _unused) = config();
    let inner = dir.join("machine");
    fs::create_dir(&inner).expect("room for a directory");
    config.dir = inner;
    let machine = limited(engine.launch(config)).await.expect("a launched machine");
    let _session = Session::open(machine.as_ref()).await;
    let pids: Vec<String> = machine.processes().iter().map(|p| p.pid.to_string()).collect();
    fs::write(dir.join("pids"), pids.join(" ") + "\n").expect("room for a line");
    // Killed long before.
    sleep(crate::guest::LIMIT).await;
}

pub(crate) async fn a_kernel_that_can_not_boot_is_named(engine: &dyn Engine) {
    let launch = async |kernel: File| {
        let (mut config, dir) = config();
        config.start = Start::Boot(Kernel { kernel, initramfs: initramfs(), cmdline: String::new() });
        let error = limited(engine.launch(config)).await.map(drop).expect_err("no such kernel boots");
        assert_eq!(left_in(dir.path()), 0);
        error
    };
    let text = File::open("/etc/passwd").expect("a text file");
    assert!(matches!(launch(text).await, LaunchError::Kernel(KernelProblem::NotElf)));
    // A program is an ELF file, but no kernel: that is for the engine to say.
    let program = File::open(std::env::current_exe().expect("this program")).expect("this program");
    match launch(program).await {
        LaunchError::Exited { stderr, .. } => assert!(stderr.to_lowercase().contains("kernel"), "{stderr}"),
        LaunchError::Kernel(_) => {}
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_missing_directory_is_named(engine: &dyn Engine) {
    let (mut config, _dir) = config();
    config.dir = "/nonexistent".into();
    match limited(engine.launch(config)).await {
        Err(LaunchError::Directory { path, .. }) => assert!(path.starts_with("/nonexistent")),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn commands_after_the_end_say_so(engine: &dyn Engine) {
    let Guest { machine, mut session, dir: _dir } = Guest::boot(engine).await;
    session.tell("poweroff").await;
    limited(machine.wait()).await;
    drop(session);
    assert!(matches!(machine.pause().await, Err(ControlError::Exited(ExitReason::PoweredOff))));
    assert!(matches!(machine.resume().await, Err(ControlError::Exited(ExitReason::PoweredOff))));
    assert!(matches!(machine.connect().await, Err(ConnectError::Exited(ExitReason::PoweredOff))));
    machine.kill();
    assert_eq!(machine.wait().await, ExitReason::PoweredOff);
}

pub(crate) async fn a_long_path_is_no_obstacle(engine: &dyn Engine) {
    let (mut config, dir) = config();
    let deep = dir.path().join("d".repeat(150)).join("e".repeat(150));
    fs::create_dir_all(&deep).expect("room for directories");
    config.dir = deep;
    let mut guest = Guest::boot_with(engine, config, dir).await;
    assert_eq!(guest.session.ask("cpus").await, "1");
}
