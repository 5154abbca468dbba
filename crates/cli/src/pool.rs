//! A pool's directory, which its keeper and those who use it share.
//!
//! ```text
//!   pools/<name>/pool.json    what it keeps, and how
//!               /lock         held by its keeper
//!               /state.json   what it does now, as its keeper last wrote it
//!               /ready/<id>   a machine that is ready: whoever removes the file has it
//!               /log          what its keeper has to say
//!       /.tmp-XXXXXX/         being made
//! ```

mod draft;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cellule::{Builder, EngineChoice, Host, PoolOptions, PoolStats, Prepared, Sandbox, SandboxName};
use cellule_supervisor::document;
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::failure::Failure;
use crate::library_failure;

/// The format of the documents; any other is refused.
const FORMAT: u32 = 1;
/// Far above any real document.
const DOCUMENT: u64 = 1 << 20;
const POOL: &str = "pool.json";
const STATE: &str = "state.json";

/// A pool's name: what can be a sandbox's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolName(SandboxName);

impl FromStr for PoolName {
    type Err = <SandboxName as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl std::fmt::Display for PoolName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a pool keeps, and how. Its machines know nothing of any sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolDocument {
    pub(crate) format: u32,
    pub(crate) image: String,
    pub(crate) cpus: u16,
    pub(crate) memory: u64,
    pub(crate) disk: Option<u64>,
    pub(crate) engine: String,
    pub(crate) warmup: Vec<String>,
    pub(crate) warmup_detach: Vec<String>,
    pub(crate) ready_port: Vec<u16>,
    pub(crate) ready_cmd: Vec<String>,
    pub(crate) min: usize,
    pub(crate) max: usize,
    pub(crate) idle_timeout_ms: u64,
    pub(crate) acquire_timeout_ms: u64,
}

/// What a pool's keeper tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolState {
    pub(crate) format: u32,
    pub(crate) keeper_pid: u32,
    pub(crate) stats: PoolStats,
}

/// A pool, whose document says what it is.
#[derive(Debug)]
pub(crate) struct PoolDir {
    pub(crate) place: Place,
    document: PoolDocument,
}

/// The directory of a pool, of which nothing need be right.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl PoolDocument {
    pub(crate) const FORMAT: u32 = FORMAT;

    /// The engine; what is none here is none for any sandbox, which says so.
    pub(crate) fn engine(&self) -> EngineChoice {
        self.engine.parse().unwrap_or_default()
    }

    /// What its warm-up may take, by what a supervisor lets it take.
    pub(crate) fn warm_up_limit(&self) -> Duration {
        let commands = u32::try_from(self.warmup.len()).unwrap_or(u32::MAX);
        let waits = u32::try_from(self.ready_cmd.len() + self.ready_port.len()).unwrap_or(u32::MAX);
        Duration::from_secs(600).saturating_mul(commands) + Duration::from_secs(120).saturating_mul(waits)
    }

    pub(crate) fn options(&self) -> PoolOptions {
        PoolOptions {
            min: self.min,
            max: self.max,
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            acquire_timeout: Duration::from_millis(self.acquire_timeout_ms),
        }
    }

    /// What its machines are started as.
    pub(crate) fn builder(&self, host: &Host) -> Result<Builder, Failure> {
        let cache = Config::read()?.template_cache();
        let sized = host.sandbox(&self.image).cpus(self.cpus).and_then(|builder| builder.memory(self.memory));
        let sized = sized.and_then(|builder| match self.disk {
            Some(bytes) => builder.disk(bytes),
            None => Ok(builder),
        });
        let builder = sized.map_err(|error| library_failure::of(&error))?;
        Ok(self.warm(builder.engine(self.engine()).template_cache(cache)))
    }

    /// With what ran in its machines before they were saved.
    pub(crate) fn warm(&self, builder: Builder) -> Builder {
        let builder = self.warmup.iter().fold(builder, Builder::warm_up);
        let builder = self.warmup_detach.iter().fold(builder, Builder::warm_up_detached);
        let builder = self.ready_port.iter().fold(builder, |builder, port| builder.ready_port(*port));
        self.ready_cmd.iter().fold(builder, Builder::ready_command)
    }
}

impl PoolDir {
    /// Makes the directory of a new pool.
    pub(crate) fn make(host: &Host, name: &PoolName, document: PoolDocument) -> Result<Self, Failure> {
        let place = Place::of(host, name);
        let made = draft::make(&all(host), &place.path, &document);
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
                Failure::new(format!("there is a pool {name} already"))
                    .hint(format!("choose another name, or remove that one: cellule pool rm {name}"))
            }
            _ => Failure::because(format!("cannot make {}", place.path.display()), &error),
        })?;
        Ok(Self { place, document })
    }

    /// The pool of this name.
    pub(crate) fn find(host: &Host, name: &PoolName) -> Result<Self, Failure> {
        let place = Place::of(host, name);
        let document: PoolDocument = read(&place.path.join(POOL)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if !place.path.exists() => none(name),
            _ => Failure::because(format!("cannot read the pool {name}"), &error)
                .hint(format!("make it anew: cellule pool rm {name}")),
        })?;
        if document.format != FORMAT {
            let found = document.format;
            return Err(Failure::new(format!("the pool {name} is another version's: it has format {found}"))
                .hint(format!("make it anew: cellule pool rm {name}")));
        }
        Ok(Self { place, document })
    }

    /// All pools, those left out that cannot be read.
    pub(crate) fn all(host: &Host) -> Vec<Self> {
        let mut names: Vec<PoolName> = fs::read_dir(all(host))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        names.sort_by_key(ToString::to_string);
        names.iter().filter_map(|name| Self::find(host, name).ok()).collect()
    }

    pub(crate) fn document(&self) -> &PoolDocument {
        &self.document
    }

    /// Takes a machine of it for what was prepared.
    pub(crate) async fn claim(
        &self,
        prepared: &Prepared,
        name: Option<SandboxName>,
    ) -> Result<Sandbox, Failure> {
        let place = &self.place;
        if !place.is_kept() {
            return Err(Failure::new(format!("nobody keeps the pool {}: its keeper was killed", place.name))
                .hint(format!("start it again: cellule pool start {}", place.name)));
        }
        let within = self.document.options().acquire_timeout;
        match cellule::claim_in(prepared, place.ready(), name, within).await {
            Err(cellule::Error::PoolEmpty { .. }) => {
                let stats = place.state().map(|state| state.stats).unwrap_or_default();
                let mut failure = Failure::new(format!(
                    "the pool {} had no machine ready within {} s: of at most {}, {} are in use and {} being started",
                    place.name,
                    within.as_secs_f64(),
                    self.document.max,
                    stats.in_use,
                    stats.preparing,
                ));
                if let Some(note) = stats.note {
                    failure.cause(note);
                }
                Err(failure.hint(format!("cellule pool stats {} tells more", place.name)))
            }
            claimed => claimed.map_err(|error| library_failure::of(&error)),
        }
    }
}

impl Place {
    fn of(host: &Host, name: &PoolName) -> Self {
        Self { name: name.to_string(), path: all(host).join(name.to_string()) }
    }

    /// The directory of this name, whatever is in it.
    pub(crate) fn find(host: &Host, name: &PoolName) -> Result<Self, Failure> {
        let place = Self::of(host, name);
        if place.path.exists() { Ok(place) } else { Err(none(name)) }
    }

    pub(crate) fn ready(&self) -> PathBuf {
        self.path.join("ready")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The lock, if no keeper has it; then it is held for as long as the file is open.
    pub(crate) fn try_lock(&self) -> io::Result<Option<File>> {
        try_lock(&self.path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Whether somebody keeps it. Who only looks is in nobody's way.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(try_lock(&self.path, FlockOperation::NonBlockingLockShared), Ok(None))
    }

    /// What its keeper last told; none before it told anything.
    pub(crate) fn state(&self) -> Option<PoolState> {
        read(&self.path.join(STATE)).ok().filter(|state: &PoolState| state.format == FORMAT)
    }

    pub(crate) fn tell(&self, stats: PoolStats) -> io::Result<()> {
        let told = PoolState { format: FORMAT, keeper_pid: std::process::id(), stats };
        document::write(&self.path, STATE, &told)
    }

    /// Takes away what a former keeper told.
    pub(crate) fn forget(&self) {
        _ = fs::remove_file(self.path.join(STATE));
    }
}

fn none(name: &PoolName) -> Failure {
    Failure::new(format!("there is no pool {name}")).hint("cellule pool ls lists those that there are")
}

fn try_lock(dir: &Path, how: FlockOperation) -> io::Result<Option<File>> {
    let path = dir.join("lock");
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    flocked(file, how)
}

/// The file, locked for as long as it is open; none if that is not to be had.
fn flocked(file: File, how: FlockOperation) -> io::Result<Option<File>> {
    match flock(&file, how) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// An image as it is named from anywhere: a path in it may be one from here.
pub(crate) fn from_anywhere(image: &str) -> io::Result<String> {
    let absolute = |prefix: &str, path: &str| -> io::Result<String> {
        let path = std::path::absolute(path)?;
        let path = path.to_str().ok_or_else(|| io::Error::other("a path that is no text"))?;
        Ok(format!("{prefix}{path}"))
    };
    for prefix in ["oci:", "docker-archive:", "tar:", "dir:"] {
        if let Some(path) = image.strip_prefix(prefix).filter(|path| !path.is_empty()) {
            return absolute(prefix, path);
        }
    }
    if matches!(image, "." | "..") || ["./", "../"].iter().any(|start| image.starts_with(start)) {
        return absolute("", image);
    }
    Ok(image.to_owned())
}

fn all(host: &Host) -> PathBuf {
    host.home().join("pools")
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&document::read(path, DOCUMENT)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn document() -> PoolDocument {
        PoolDocument {
            format: FORMAT,
            image: "base".to_owned(),
            cpus: 1,
            memory: 256 << 20,
            disk: None,
            engine: "auto".to_owned(),
            warmup: vec!["true".to_owned()],
            warmup_detach: Vec::new(),
            ready_port: Vec::new(),
            ready_cmd: Vec::new(),
            min: 1,
            max: 2,
            idle_timeout_ms: 1000,
            acquire_timeout_ms: 2000,
        }
    }

    #[test]
    fn an_image_of_here_is_named_from_anywhere() {
        let here = std::env::current_dir().unwrap().display().to_string();
        let cases = [
            ("python:3", "python:3".to_owned()),
            ("base", "base".to_owned()),
            ("/a/b", "/a/b".to_owned()),
            ("./a.tar", format!("{here}/a.tar")),
            ("oci:a:tag", format!("oci:{here}/a:tag")),
            ("tar:/a", "tar:/a".to_owned()),
        ];
        for (image, expected) in cases {
            assert_eq!(from_anywhere(image).unwrap(), expected);
        }
    }

    #[test]
    fn a_pool_is_made_once_found_and_kept_by_one() {
        let home = tempfile::tempdir().unwrap();
        let host = Host::at(home.path()).unwrap();
        let name: PoolName = "py".parse().unwrap();
        assert!(PoolDir::find(&host, &name).unwrap_err().render().contains("pool ls"));
        PoolDir::make(&host, &name, document()).unwrap();
        assert!(PoolDir::make(&host, &name, document()).unwrap_err().render().contains("already"));
        let pool = PoolDir::find(&host, &name).unwrap();
        assert_eq!(*pool.document(), document());
        assert_eq!(pool.place.state(), None);
        pool.place.tell(PoolStats::default()).unwrap();
        assert_eq!(pool.place.state().unwrap().keeper_pid, std::process::id());
        assert!(!pool.place.is_kept());
        let lock = pool.place.try_lock().unwrap();
        assert!(pool.place.is_kept());
        drop(lock);
        assert_eq!(PoolDir::all(&host).len(), 1);
        fs::write(pool.place.path.join(POOL), "{}").unwrap();
        assert!(PoolDir::find(&host, &name).is_err());
    }
}
