//! A supervisor whose machine runs before there is a sandbox for it: what a pool keeps ready.
//!
//! ```text
//!   warm start ──▶ rehearsed, held ──▶ ready ──claimed──▶ renamed to its place ──▶ a supervisor as any other
//!        │               │             ▲ │ │
//!        │               │             └─┘ │ that cannot be: who claims it is told why
//!        └───────────────┴─────────────────┴──▶ nothing is left
//!                its keeper is gone, its machine died, a claim broke off
//! ```
//! Its directory is one that is being made, `.new-<id>`: nobody sees it as a sandbox, and if its supervisor is killed it goes
//! with what else was half made. Who claims it says what the sandbox is made of; the connection that it does so over is its
//! owner's from then on. What it says must be what the machine was started for, but for what comes after a start anyway.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::directory::{DirectoryError, SandboxDir};
use crate::failure::Failure;
use crate::inherited::complain;
use crate::listener::Listener;
use crate::machine::{self, Launcher, Prepared, Steps};
use crate::name::SandboxName;
use crate::network::NetworkLog;
use crate::process::supervise_start;
use crate::secrets::{self, Vault};
use crate::spec::{SandboxSpec, WarmUp};
use crate::warm::{self, chain, warm_up};

/// What the keeper is told, each a line.
pub(crate) const READY: &str = "ready";
pub(crate) const TAKEN: &str = "taken";
/// What whoever claims it is told, a line too; anything else is why it cannot.
pub(crate) const YOURS: &str = "yours";
/// How long a claim may take to be told.
const CLAIM: Duration = Duration::from_secs(10);

/// What a sandbox is to be that takes the machine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    pub(crate) spec: SandboxSpec,
    pub(crate) name: Option<SandboxName>,
}

/// Has a machine of `spec` ready until somebody claims it, and supervises the sandbox then; or until `keeper` hangs up.
///
/// # Errors
/// Its directory cannot be removed.
pub async fn stand_by(
    dir: SandboxDir,
    spec: SandboxSpec,
    mut keeper: UnixStream,
) -> Result<(), DirectoryError> {
    _ = rustix::process::setsid();
    let spec = Arc::new(spec);
    let (progress, phases) = mpsc::unbounded_channel();
    let steps = Steps::new(progress);
    let prepared = tokio::select! {
        prepared = prepare(&dir, &spec, &steps) => prepared,
        () = gone(&mut keeper) => return dir.remove(),
    };
    let (prepared, listener) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            complain(&failure.line());
            tell(&mut keeper, &failure.line()).await;
            return dir.remove();
        }
    };
    tell(&mut keeper, READY).await;
    let mut dir = dir;
    let (mut owner, claim) = loop {
        let claimed = tokio::select! {
            claimed = claimed(&listener) => claimed,
            () = gone(&mut keeper) => None,
            // A machine that dies meanwhile is nobody's loss.
            _ = prepared.running.machine.wait() => None,
        };
        // Nobody else was told that it is ready: whoever broke off has the only word of it.
        let Some((mut owner, claim)) = claimed else { return dir.remove() };
        match take(&mut dir, &spec, &claim) {
            Ok(()) => break (owner, claim),
            Err(why) => tell(&mut owner, &why).await,
        }
    };
    drop(listener);
    tell(&mut owner, YOURS).await;
    tell(&mut keeper, TAKEN).await;
    drop(keeper);
    let spec = Arc::new(claim.spec);
    let of = Arc::clone(&spec);
    let place = dir.path().to_path_buf();
    let vault = Vault::default();
    let told = vault.clone();
    let start = Box::pin(async move {
        let log = NetworkLog::of(&place);
        let secrets = secrets::load(&of.network.secrets, &told, &log).await?;
        machine::introduce(prepared, &of, &place, secrets, log, &steps).await
    });
    supervise_start(dir, spec, owner, vault, start, phases).await
}

async fn prepare(
    dir: &SandboxDir,
    spec: &Arc<SandboxSpec>,
    steps: &Steps,
) -> Result<(Prepared, Listener), Failure> {
    let launcher = Launcher::new(Arc::clone(spec), dir.path().to_path_buf(), steps.clone())?;
    let (running, start) = warm::start(&launcher).await?;
    warm_up::rehearse(&running, &spec.env).await?;
    let listener = Listener::bind(dir.path()).map_err(|error| {
        Failure::new(crate::failure::FailureKind::Supervisor, "the supervisor cannot listen", Some(&error))
    })?;
    Ok((Prepared { running, start, main: None, lost: Vec::new() }, listener))
}

/// The next claim; none if it broke off or cannot be understood.
async fn claimed(listener: &Listener) -> Option<(UnixStream, Claim)> {
    let mut stream = listener.accept().await.stream;
    let claim = tokio::time::timeout(CLAIM, read_claim(&mut stream)).await.ok().flatten();
    if claim.is_none() {
        complain("a claim broke off, or is another version's");
    }
    Some((stream, claim?))
}

async fn read_claim(stream: &mut UnixStream) -> Option<Claim> {
    let length = stream.read_u32().await.ok().filter(|length| u64::from(*length) <= SandboxSpec::LIMIT)?;
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text).await.ok()?;
    serde_json::from_slice(&text).ok()
}

/// Makes the directory the sandbox's; the error says why that cannot be.
fn take(dir: &mut SandboxDir, ours: &SandboxSpec, claim: &Claim) -> Result<(), String> {
    if let Some(what) = difference(ours, &claim.spec) {
        return Err(format!("the pool's machine has another {what}"));
    }
    let placed = dir.update_spec(&claim.spec).and_then(|()| {
        let sandboxes = dir.sandboxes().clone();
        sandboxes.put(dir, &claim.spec, claim.name.as_ref())
    });
    placed.map_err(|error| chain(&error))
}

fn boot(spec: &SandboxSpec) -> Option<&str> {
    spec.templates.as_ref().map(|templates| templates.boot.as_str())
}

fn warm_up(spec: &SandboxSpec) -> Option<&WarmUp> {
    spec.templates.as_ref().map(|templates| &templates.warm_up)
}

/// What of a machine that was started for the one cannot be the other's.
fn difference(ours: &SandboxSpec, theirs: &SandboxSpec) -> Option<&'static str> {
    let same = [
        ("id", ours.id == theirs.id),
        ("format", ours.format == theirs.format),
        ("image", ours.rootfs_digest == theirs.rootfs_digest && ours.rootfs == theirs.rootfs),
        ("number of processors", ours.cpus == theirs.cpus),
        ("memory", ours.memory_mib == theirs.memory_mib),
        ("disk", ours.disk == theirs.disk),
        ("engine", ours.engine == theirs.engine && ours.engine_program == theirs.engine_program),
        ("boot bundle", ours.kernel == theirs.kernel && boot(ours) == boot(theirs)),
        ("warm-up", warm_up(ours) == warm_up(theirs)),
        ("start", theirs.saved.is_none()),
    ];
    same.into_iter().find_map(|(what, same)| (!same).then_some(what))
}

/// Waits until the other side hangs up.
async fn gone(stream: &mut UnixStream) {
    let mut byte = [0];
    while stream.read(&mut byte).await.is_ok_and(|count| count > 0) {}
}

async fn tell(stream: &mut UnixStream, line: &str) {
    let line = format!("{}\n", line.replace('\n', " "));
    // Whoever does not hear it is gone.
    _ = stream.write_all(line.as_bytes()).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::{entries, home, spec};

    #[test]
    fn a_claim_for_another_machine_is_refused_by_what_differs() {
        let ours = spec();
        let with = |change: &dyn Fn(&mut SandboxSpec)| {
            let mut theirs = ours.clone();
            change(&mut theirs);
            difference(&ours, &theirs)
        };
        assert_eq!(with(&|theirs| theirs.hostname = "other".into()), None);
        assert_eq!(with(&|theirs| theirs.env.push("A=1".into())), None);
        assert_eq!(with(&|theirs| theirs.memory_mib += 1), Some("memory"));
        assert_eq!(with(&|theirs| theirs.disk = Some(crate::DiskSize::MIN)), Some("disk"));
        assert_eq!(with(&|theirs| theirs.rootfs_digest.push('1')), Some("image"));
        assert_eq!(with(&|theirs| theirs.cpus = 2), Some("number of processors"));
        assert_eq!(with(&|theirs| theirs.saved = Some("x".into())), Some("start"));
    }

    #[test]
    fn what_is_taken_appears_under_its_name_and_what_is_not_stays_hidden() {
        let (home, sandboxes) = home();
        let name: SandboxName = "web".parse().unwrap();
        let hidden = |spec: &SandboxSpec| sandboxes.hidden(spec).unwrap();
        let (one, other) = (spec(), spec());
        let claim = |spec: &SandboxSpec| Claim { spec: spec.clone(), name: Some(name.clone()) };
        let mut dir = hidden(&one);
        assert!(sandboxes.list().unwrap().is_empty());
        take(&mut dir, &one, &claim(&one)).unwrap();
        assert_eq!(dir.path().file_name().unwrap(), one.id.as_str());
        assert_eq!(sandboxes.find("web").unwrap().spec.id, one.id);
        let mut dir = hidden(&other);
        let why = take(&mut dir, &other, &claim(&other)).unwrap_err();
        assert!(why.contains("in use"), "{why}");
        take(&mut dir, &other, &Claim { spec: other.clone(), name: None })
            .expect("it can be had by another name");
        dir.remove().unwrap();
        assert_eq!(entries(&home.path().join("sandboxes")), 1);
    }
}
