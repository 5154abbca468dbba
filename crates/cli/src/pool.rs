//! A pool's directory, which its keeper and those who use it share.
//!
//! ```text
//!   pools/<name>/pool.json    what it keeps, and how
//!               /lock         held by its keeper
//!               /state.json   what it does now, as its keeper last wrote it
//!               /ready/<id>   a machine that is ready: whoever removes the file has it
//!               /log          what its keeper has to say
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cellule::{Builder, EngineChoice, Host, PoolOptions, PoolStats, Prepared, Sandbox, SandboxName};
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

/// The directory of a pool.
#[derive(Debug)]
pub(crate) struct PoolDir {
    pub(crate) name: String,
    path: PathBuf,
    document: PoolDocument,
}

impl PoolDocument {
    pub(crate) const FORMAT: u32 = FORMAT;

    /// The engine; what is none here is none for any sandbox, which says so.
    pub(crate) fn engine(&self) -> EngineChoice {
        self.engine.parse().unwrap_or_default()
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
        let builder = sized.map_err(|error| library_failure::of(&error))?;
        let builder = builder.engine(self.engine()).template_cache(cache);
        let builder = self.warmup.iter().fold(builder, Builder::warm_up);
        let builder = self.warmup_detach.iter().fold(builder, Builder::warm_up_detached);
        let builder = self.ready_port.iter().fold(builder, |builder, port| builder.ready_port(*port));
        Ok(self.ready_cmd.iter().fold(builder, Builder::ready_command))
    }
}

impl PoolDir {
    /// Makes the directory of a new pool.
    pub(crate) fn make(host: &Host, name: &PoolName, document: PoolDocument) -> Result<Self, Failure> {
        let path = all(host).join(name.to_string());
        let made = || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(all(host))?;
            fs::DirBuilder::new().mode(0o700).create(&path)?;
            write(&path, POOL, &document)
        };
        made().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::new(format!("there is a pool {name} already"))
                .hint(format!("choose another name, or remove that one: cellule pool rm {name}")),
            _ => Failure::because(format!("cannot make {}", path.display()), &error),
        })?;
        Ok(Self { name: name.to_string(), path, document })
    }

    /// The pool of this name.
    pub(crate) fn find(host: &Host, name: &PoolName) -> Result<Self, Failure> {
        let path = all(host).join(name.to_string());
        let document: PoolDocument = read(&path.join(POOL)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::new(format!("there is no pool {name}"))
                .hint("cellule pool ls lists those that there are"),
            _ => Failure::because(format!("cannot read the pool {name}"), &error),
        })?;
        if document.format != FORMAT {
            let found = document.format;
            return Err(Failure::new(format!("the pool {name} is another version's: it has format {found}"))
                .hint(format!("make it anew: cellule pool rm {name}")));
        }
        Ok(Self { name: name.to_string(), path, document })
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

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn ready(&self) -> PathBuf {
        self.path.join("ready")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The lock, if no keeper has it; then it is held for as long as the file is open.
    pub(crate) fn try_lock(&self) -> io::Result<Option<File>> {
        let path = self.path.join("lock");
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether somebody keeps it.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self.try_lock(), Ok(None))
    }

    /// What its keeper last told; none before it told anything.
    pub(crate) fn state(&self) -> Option<PoolState> {
        read(&self.path.join(STATE)).ok().filter(|state: &PoolState| state.format == FORMAT)
    }

    pub(crate) fn tell(&self, stats: PoolStats) -> io::Result<()> {
        write(&self.path, STATE, &PoolState { format: FORMAT, keeper_pid: std::process::id(), stats })
    }

    /// Takes a machine of it for what was prepared.
    pub(crate) async fn claim(
        &self,
        prepared: &Prepared,
        name: Option<SandboxName>,
    ) -> Result<Sandbox, Failure> {
        if !self.is_kept() {
            return Err(Failure::new(format!("nobody keeps the pool {}: its keeper was killed", self.name))
                .hint(format!("start it again: cellule pool start {}", self.name)));
        }
        let within = self.document.options().acquire_timeout;
        match cellule::claim_in(prepared, self.ready(), name, within).await {
            Err(cellule::Error::PoolEmpty { .. }) => {
                let stats = self.state().map(|state| state.stats).unwrap_or_default();
                let mut failure = Failure::new(format!(
                    "the pool {} had no machine ready within {} s: of at most {}, {} are in use and {} being started",
                    self.name,
                    within.as_secs_f64(),
                    self.document.max,
                    stats.in_use,
                    stats.preparing,
                ));
                if let Some(note) = stats.note {
                    failure.cause(note);
                }
                Err(failure.hint(format!("cellule pool stats {} tells more", self.name)))
            }
            claimed => claimed.map_err(|error| library_failure::of(&error)),
        }
    }
}

fn all(host: &Host) -> PathBuf {
    host.home().join("pools")
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut text = Vec::new();
    File::open(path)?.take(DOCUMENT).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::from)
}

fn write(dir: &Path, name: &str, document: &impl Serialize) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}"));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(document)?)?;
    fs::rename(&temporary, dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> PoolDocument {
        PoolDocument {
            format: FORMAT,
            image: "base".to_owned(),
            cpus: 1,
            memory: 256 << 20,
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
    fn a_pool_is_made_once_found_and_kept_by_one() {
        let home = tempfile::tempdir().unwrap();
        let host = Host::at(home.path()).unwrap();
        let name: PoolName = "py".parse().unwrap();
        assert!(PoolDir::find(&host, &name).unwrap_err().render().contains("pool ls"));
        PoolDir::make(&host, &name, document()).unwrap();
        assert!(PoolDir::make(&host, &name, document()).unwrap_err().render().contains("already"));
        let pool = PoolDir::find(&host, &name).unwrap();
        assert_eq!(*pool.document(), document());
        assert_eq!(pool.state(), None);
        pool.tell(PoolStats::default()).unwrap();
        assert_eq!(pool.state().unwrap().keeper_pid, std::process::id());
        assert!(!pool.is_kept());
        let lock = pool.try_lock().unwrap();
        assert!(pool.is_kept());
        drop(lock);
        assert_eq!(PoolDir::all(&host).len(), 1);
        fs::write(pool.path().join(POOL), "{}").unwrap();
        assert!(PoolDir::find(&host, &name).is_err());
    }
}
