//! One round: what is started and killed in it, and what must be true then.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::leftovers::processes_of;
use super::random::Random;
use super::until;

/// How long after a kill the next command must tell the truth.
const TRUTH: Duration = Duration::from_secs(1);
/// What a busy machine of two cores may add to that: a process's own start, twice.
const SLACK: Duration = Duration::from_secs(2);
/// How long anything may take before it counts as hung.
const HANG: Duration = Duration::from_secs(120);
/// Moments are drawn from this long after the start: longer than a boot takes.
const SPAN: Duration = Duration::from_millis(4500);

/// How its machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Warm,
    Cold,
    /// There is no template: one is made.
    First,
}

const BEGINS: [Begin; 4] = [Begin::Warm, Begin::Warm, Begin::Cold, Begin::First];

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Client,
    Supervisor,
    Engine,
    SupervisorAndEngine,
    All,
}

/// What the sandbox is doing when it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// `run`, its client waiting for the command.
    Attached,
    /// `run -d`, killed at any moment from its start on.
    Detached,
    /// A detached one that runs, with an exec under way.
    Exec,
    /// A detached one that runs, while it is being stopped.
    Stopping,
    /// A detached one that runs, paused.
    Paused,
    /// A detached one that runs, while it is forked.
    Forking,
    /// A detached one that runs, while a snapshot of it is made.
    Saving,
}

const VICTIMS: [Victim; 5] =
    [Victim::Client, Victim::Supervisor, Victim::Engine, Victim::SupervisorAndEngine, Victim::All];
// The first two are cheap and meet a boot at any of its moments, so they come more often.
const SCENES: [Scene; 11] = [
    Scene::Attached,
    Scene::Detached,
    Scene::Attached,
    Scene::Detached,
    Scene::Detached,
    Scene::Exec,
    Scene::Stopping,
    Scene::Paused,
    Scene::Forking,
    Scene::Forking,
    Scene::Saving,
];

/// One round.
#[derive(Debug)]
pub(super) struct Round<'a> {
    name: String,
    scene: Scene,
    victim: Victim,
    remove: bool,
    begin: Begin,
    /// Whether it has a scratch disk.
    disk: bool,
    moment: Duration,
    program: &'a Path,
    home: &'a Path,
}

/// A row of `ps --format json`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Row {
    name: Option<String>,
    state: String,
}

pub(super) type Played<T> = Result<T, String>;

impl<'a> Round<'a> {
    pub(super) fn draw(number: u32, random: &mut Random, program: &'a Path, home: &'a Path) -> Self {
        let scene = SCENES[random.below(SCENES.len())];
        let victim = VICTIMS[random.below(VICTIMS.len())];
        let remove = random.below(2) == 0;
        let begin = BEGINS[random.below(BEGINS.len())];
        let span = match (scene, begin) {
            (Scene::Attached | Scene::Detached, Begin::Cold | Begin::First) => SPAN,
            (Scene::Attached | Scene::Detached, Begin::Warm) => SPAN / 6,
            (Scene::Exec | Scene::Stopping | Scene::Paused | Scene::Forking | Scene::Saving, _) => SPAN / 10,
        };
        let moment =
            Duration::from_micros(random.next() % u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
        // One that boots for itself, since a template with a disk would be one more to make.
        let disk = begin == Begin::Cold && random.below(2) == 0;
        Self { name: format!("round-{number}"), scene, victim, remove, begin, disk, moment, program, home }
    }

    fn cellule(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(words).env("CELLULE_HOME", self.home).stdin(Stdio::null());
        command
    }

    fn start(&self, words: &[&str]) -> Played<Child> {
        let mut command = self.cellule(words);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|error| error.to_string())
    }

    /// Plays the round; gives how long `ps` took to tell the truth.
    pub(super) fn play(&self) -> Played<Duration> {
        let rm = format!("--rm={}", self.remove);
        let run = |detach: &'static [&'static str]| {
            let mut words = vec!["run", "--quiet", "--name", &self.name, &rm];
            words.extend(detach);
            words.extend((self.begin == Begin::Cold).then_some("--cold"));
            if self.disk {
                words.extend(["--disk", "64m"]);
            }
            words.extend(["base", "sleep", "1000"]);
            words.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        if self.begin == Begin::First {
            let pruned = self.cellule(&["template", "prune", "--all"]).stdout(Stdio::null()).status();
            if !pruned.is_ok_and(|status| status.success()) {
                return Err("the templates cannot be removed".to_owned());
            }
        }
        let words = if self.scene == Scene::Attached { run(&[]) } else { run(&["-d"]) };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut client = self.start(&words)?;
        let mut other = None;
        if !matches!(self.scene, Scene::Attached | Scene::Detached) {
            let started = wait(&mut client, HANG)?;
            if !started {
                return Err("the sandbox did not start".to_owned());
            }
            other = match self.scene {
                Scene::Exec => Some(self.start(&["exec", &self.name, "sleep", "1000"])?),
                Scene::Stopping => Some(self.start(&["stop", "--timeout", "2", &self.name])?),
                Scene::Paused => {
                    let mut pause = self.start(&["pause", &self.name])?;
                    wait(&mut pause, HANG)?;
                    None
                }
                Scene::Forking => {
                    Some(self.start(&["fork", "--quiet", "-n", "2", "--name", &self.forks(), &self.name])?)
                }
                Scene::Saving => Some(self.start(&["snapshot", "create", &self.name, &self.name])?),
                Scene::Attached | Scene::Detached => None,
            };
        }
        thread::sleep(self.moment);
        let supervisor_met = self.kill(other.as_mut().unwrap_or(&mut client));
        let killed = Instant::now();

        // A process that was killed takes a moment to be gone, and its lock goes with the last of it.
        let took = loop {
            let row = self.row()?;
            let took = killed.elapsed();
            match self.check(row.as_ref(), &mut client, supervisor_met) {
                Ok(()) if took <= TRUTH + SLACK => break took,
                Ok(()) => return Err(format!("`ps` took {} ms", took.as_millis())),
                Err(why) if took > TRUTH + SLACK => return Err(why),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        self.remove()?;
        // Whoever still waits for the sandbox must come to an end with it. One that had only begun makes it now.
        for waiting in [Some(&mut client), other.as_mut()].into_iter().flatten() {
            if !until(HANG, || wait_is_over(waiting) || self.remove().is_err()) {
                _ = waiting.kill();
                return Err("a client hangs".to_owned());
            }
            _ = waiting.wait();
        }
        self.remove()?;
        self.nothing_left()?;
        Ok(took)
    }

    /// What the forks of the sandbox are called, but for their numbers.
    fn forks(&self) -> String {
        format!("{}-fork", self.name)
    }

    /// Removes the sandbox, and what was made of it, as far as it is there.
    fn remove(&self) -> Played<()> {
        self.removed(&["rm", "--force", &self.name])?;
        match self.scene {
            Scene::Forking => {
                for number in 1..=2 {
                    self.removed(&["rm", "--force", &format!("{}-{number}", self.forks())])?;
                }
                Ok(())
            }
            Scene::Saving => self.removed(&["snapshot", "rm", &self.name]),
            _ => Ok(()),
        }
    }

    fn removed(&self, words: &[&str]) -> Played<()> {
        let removed = self.cellule(words).output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&removed.stderr);
        if removed.status.success() || said.contains("there is no s") {
            Ok(())
        } else {
            Err(format!("{words:?}: {said}"))
        }
    }

    /// Kills this round's victim as far as it is there; tells whether that met a supervisor. A moment soon after the
    /// start finds none, and the sandbox then lives on.
    fn kill(&self, client: &mut Child) -> bool {
        let (supervisor, engine) = self.processes();
        let (clients, supervisors, engines) = match self.victim {
            Victim::Client => (true, false, false),
            Victim::Supervisor => (false, true, false),
            Victim::Engine => (false, false, true),
            Victim::SupervisorAndEngine => (false, true, true),
            Victim::All => (true, true, true),
        };
        if clients {
            _ = client.kill();
        }
        for (wanted, pid) in [(supervisors, supervisor), (engines, engine)] {
            if let Some(pid) = pid.filter(|_| wanted) {
                _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
            }
        }
        supervisors && supervisor.is_some()
    }

    /// The sandbox's id, which its name leads to.
    fn id(&self) -> Option<String> {
        let link = fs::read_link(self.home.join("names").join(&self.name)).ok()?;
        Some(link.to_string_lossy().into_owned())
    }

    /// The supervisor and the engine of this round's sandbox, as far as they are there.
    fn processes(&self) -> (Option<u32>, Option<u32>) {
        let Some(id) = self.id() else { return (None, None) };
        let all = processes_of(&BTreeSet::from([id]));
        let find = |what: &str| all.iter().find(|(_, line)| line.contains(what)).map(|(pid, _)| *pid);
        (find(" supervise "), find("qemu-system"))
    }

    /// What `ps` says of this round's sandbox.
    fn row(&self) -> Played<Option<Row>> {
        let output =
            self.cellule(&["ps", "--all", "--format", "json"]).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("ps: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let rows: Vec<Row> =
            serde_json::from_slice(&output.stdout).map_err(|error| format!("ps: {error}"))?;
        Ok(rows.into_iter().find(|row| row.name.as_deref() == Some(&self.name)))
    }

    /// Whether what `ps` says fits what was killed.
    fn check(&self, row: Option<&Row>, client: &mut Child, supervisor_met: bool) -> Played<()> {
        let live = row.is_some_and(|row| !["created", "stopped", "failed"].contains(&row.state.as_str()));
        let (supervisor, engine) = self.processes();
        let supervisor_killed = !matches!(self.victim, Victim::Client | Victim::Engine);
        // A client that was still starting may start another supervisor a moment later; one that lives is looked at.
        if supervisor_killed && live && supervisor.is_none() {
            return Err(format!("`ps` says {row:?} and no supervisor is there"));
        }
        if supervisor.is_none() && engine.is_some() {
            // It dies with its supervisor; the kernel may need a moment.
            thread::sleep(Duration::from_millis(200));
            if self.processes() == (None, engine) {
                return Err("an engine outlives its supervisor".to_owned());
            }
        }
        if self.scene == Scene::Attached && self.victim == Victim::Client {
            // It was the sandbox's owner.
            return until(HANG, || self.row().is_ok_and(|row| row.is_none_or(|row| !is_live(&row))))
                .then_some(())
                .ok_or_else(|| "the sandbox outlives its owner".to_owned());
        }
        if self.scene == Scene::Attached && !wait_is_over(client) && supervisor_met {
            return until(HANG, || wait_is_over(client))
                .then_some(())
                .ok_or_else(|| "the client waits for a sandbox that is gone".to_owned());
        }
        Ok(())
    }

    fn nothing_left(&self) -> Played<()> {
        let left = || {
            let mut left: Vec<String> = Vec::new();
            if self.home.join("names").join(&self.name).symlink_metadata().is_ok() {
                left.push(format!("names/{}", self.name));
            }
            left.extend(self.row().ok().flatten().map(|row| format!("{row:?}")));
            left
        };
        if until(Duration::from_secs(10), || left().is_empty()) {
            Ok(())
        } else {
            Err(format!("left behind: {:?}", left()))
        }
    }
}

fn is_live(row: &Row) -> bool {
    !["created", "stopped", "failed"].contains(&row.state.as_str())
}

fn wait_is_over(child: &mut Child) -> bool {
    matches!(child.try_wait(), Ok(Some(_)) | Err(_))
}

/// Waits for a process; gives whether it succeeded.
fn wait(child: &mut Child, limit: Duration) -> Played<bool> {
    if !until(limit, || wait_is_over(child)) {
        _ = child.kill();
        _ = child.wait();
        return Err("a client hangs".to_owned());
    }
    Ok(child.wait().is_ok_and(|status| status.success()))
}
