//! Fetches packages from Debian's archive through the host's apt: its sources, its proxies, its signature checks.
//!
//! ```text
//!   the host's lists ── package known and delivered ──> done
//!        │ not in the lists, or gone from the archive since
//!        v
//!   lists of our own (apt-get update below our directory) ──> done, or the error
//! ```
//! Nothing here needs root. Lists of our own are fetched at most once for each [`Apt`].

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::command::run;
use crate::progress::{OnProgress, Phase, Progress};
use crate::{CommandError, Error, Result};

const QUERY_LIMIT: Duration = Duration::from_secs(60);
const UPDATE_LIMIT: Duration = Duration::from_secs(10 * 60);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// The most that a package may weigh: Debian's cloud kernels are near 35 MB.
const PACKAGE_LIMIT: u64 = 512 << 20;

/// apt's settings for lists of our own. The host's hooks run its maintenance, with root's rights in mind; they are
/// no part of fetching lists. Only a file can clear a list of settings.
const SETTINGS: &str = "\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::Languages \"none\";
";

/// Why apt did not deliver a package.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AptError {
    /// apt is not there, failed, or took too long.
    #[error(transparent)]
    Command(CommandError),
    /// The archive could not be reached.
    #[error("the package archive cannot be reached")]
    NoNetwork(#[source] CommandError),
    /// apt's sources have none of the packages that would do.
    #[error("apt's sources have no package {}", names.join(" or "))]
    NotFound {
        /// The names that were looked for.
        names: Vec<String>,
    },
    /// apt says nothing sensible about a package.
    #[error("apt-cache says no {field} of the package {package}")]
    Field {
        /// The package.
        package: String,
        /// What is missing.
        field: &'static str,
    },
    /// What apt delivered is not what its lists promise.
    #[error("the package {package} arrived damaged: {what} is not as the package lists say")]
    Damaged {
        /// The package.
        package: String,
        /// What differs.
        what: &'static str,
    },
}

/// A package, as apt's lists describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    size: u64,
    sha256: String,
    depends: String,
}

/// What a package is looked for by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    /// Its name.
    Named(&'a str),
    /// What the first of these that exists depends on, by a name that begins so.
    DependencyOf {
        /// Names of meta-packages, the best first.
        metas: &'a [&'a str],
        /// How the dependency's name begins.
        prefix: &'a str,
    },
}

/// The host's apt.
pub(crate) struct Apt<'a> {
    /// Where `apt-get` and `apt-cache` lie; empty to search as the shell does.
    programs: PathBuf,
    /// A directory of ours, on whose removal everything is gone.
    scratch: &'a Path,
    /// Whether lists of our own are in use.
    own_lists: bool,
    on_progress: OnProgress<'a>,
}

impl<'a> Apt<'a> {
    pub(crate) fn new(scratch: &'a Path, on_progress: OnProgress<'a>) -> Self {
        Self { programs: PathBuf::new(), scratch, own_lists: false, on_progress }
    }

    /// Whether this host has apt.
    pub(crate) fn is_installed() -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join("apt-get").is_file())
    }

    /// Finds the package and, unless it is `known` already, downloads it.
    pub(crate) fn fetch(
        &mut self,
        wanted: Wanted<'_>,
        known: &dyn Fn(&Package) -> bool,
    ) -> Result<(Package, Option<PathBuf>)> {
        match self.find_and_download(wanted, known) {
            Err(Error::Apt(error)) if !self.own_lists && error.may_be_stale_lists() => {
                self.update()?;
                self.find_and_download(wanted, known)
            }
            other => other,
        }
    }

    fn find_and_download(
        &self,
        wanted: Wanted<'_>,
        known: &dyn Fn(&Package) -> bool,
    ) -> Result<(Package, Option<PathBuf>)> {
        let package = self.find(wanted)?;
        let deb = if known(&package) { None } else { Some(self.download(&package)?) };
        Ok((package, deb))
    }

    fn find(&self, wanted: Wanted<'_>) -> Result<Package> {
        match wanted {
            Wanted::Named(name) => {
                self.show(name)?.ok_or_else(|| AptError::NotFound { names: vec![name.to_owned()] }.into())
            }
            Wanted::DependencyOf { metas, prefix } => {
                for meta in metas {
                    let Some(meta) = self.show(meta)? else { continue };
                    let name = meta
                        .dependency(prefix)
                        .ok_or_else(|| AptError::Field { package: meta.name.clone(), field: "Depends" })?;
                    return self.find(Wanted::Named(name));
                }
                Err(AptError::NotFound { names: metas.iter().map(ToString::to_string).collect() }.into())
            }
        }
    }

    /// What the lists say of a package; `None` if nothing.
    fn show(&self, name: &str) -> Result<Option<Package>> {
        let mut command = self.program("apt-cache");
        command.args(["show", "--no-all-versions", name]);
        match self.run(&mut command, QUERY_LIMIT, &mut || ()) {
            Ok(output) if output.is_empty() => Ok(None),
            Ok(output) => Ok(Some(Package::parse(&String::from_utf8_lossy(&output), name)?)),
            Err(Error::Apt(AptError::Command(CommandError::Failed { stderr, .. })))
                if stderr.contains("No packages found") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn download(&self, package: &Package) -> Result<PathBuf> {
        let dir = self.scratch.join(format!("download-{}", package.name));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).map_err(Error::write(&dir))?;

        let reported = Cell::new(None);
        let report = |done| {
            if reported.replace(Some(done)) != Some(done) {
                let total = Some(package.size);
                (self.on_progress)(Progress { phase: Phase::Downloading, done, total });
            }
        };
        report(0);
        let mut command = self.program("apt-get");
        command
            .current_dir(&dir)
            .args(["-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30"])
            .arg("download")
            .arg(format!("{}={}", package.name, package.version));
        self.run(&mut command, DOWNLOAD_LIMIT, &mut || report(newest_size(&dir)))?;

        let deb = the_deb(&dir).map_err(Error::read(&dir))?.ok_or_else(|| package.damaged("its file"))?;
        let bytes = crate::error::read_file(&deb, PACKAGE_LIMIT)?;
        if bytes.len() as u64 != package.size {
            return Err(package.damaged("its size").into());
        }
        if hex::encode(Sha256::digest(&bytes)) != package.sha256 {
            return Err(package.damaged("its SHA-256").into());
        }
        report(package.size);
        Ok(deb)
    }

    /// Fetches lists of our own. A source that fails is no matter if the others have what is wanted, so apt's own
    /// verdict counts only when it names a cause that no package can cure.
    fn update(&mut self) -> Result<()> {
        (self.on_progress)(Progress::begin(Phase::UpdatingPackageLists));
        for dir in ["apt/state/lists/partial", "apt/cache/archives/partial"] {
            let dir = self.scratch.join(dir);
            fs::create_dir_all(&dir).map_err(Error::write(dir))?;
        }
        let settings = self.scratch.join("apt/settings");
        fs::write(&settings, SETTINGS).map_err(Error::write(&settings))?;
        self.own_lists = true;
        let mut command = self.program("apt-get");
        command.args(["-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30", "update"]);
        match self.run(&mut command, UPDATE_LIMIT, &mut || ()) {
            Ok(_) | Err(Error::Apt(AptError::Command(CommandError::Failed { .. }))) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs one of apt's programs. A full disk is found here: it may have left no room for the words that say so.
    fn run(&self, command: &mut Command, limit: Duration, tick: &mut dyn FnMut()) -> Result<Vec<u8>> {
        run(command, limit, self.scratch, tick).map_err(|error| match &error {
            CommandError::Failed { stderr, .. }
                if stderr.contains("No space left on device") || is_full(self.scratch) =>
            {
                Error::write(self.scratch)(io::ErrorKind::StorageFull.into())
            }
            _ => Error::Apt(AptError::from(error)),
        })
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        if self.own_lists {
            let dir = self.scratch.join("apt");
            let set = |name: &str, path: &Path| format!("{name}={}", path.display());
            command.arg("-c").arg(dir.join("settings"));
            command.arg("-o").arg(set("Dir::State", &dir.join("state")));
            command.arg("-o").arg(set("Dir::State::status", Path::new("/var/lib/dpkg/status")));
            command.arg("-o").arg(set("Dir::Cache", &dir.join("cache")));
        }
        command
    }
}

impl std::fmt::Debug for Apt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Apt").field("scratch", &self.scratch).field("own_lists", &self.own_lists).finish()
    }
}

impl Package {
    /// Reads the first stanza of `apt-cache show`.
    fn parse(text: &str, name: &str) -> Result<Self, AptError> {
        let field = |wanted: &'static str| {
            let stanza = text.lines().take_while(|line| !line.trim().is_empty());
            let mut fields = stanza.filter_map(|line| line.split_once(':'));
            let found = fields.find_map(|(name, value)| (name == wanted).then_some(value.trim().to_owned()));
            found.ok_or_else(|| AptError::Field { package: name.to_owned(), field: wanted })
        };
        Ok(Self {
            name: name.to_owned(),
            version: field("Version")?,
            size: field("Size")?
                .parse()
                .map_err(|_| AptError::Field { package: name.to_owned(), field: "Size" })?,
            sha256: field("SHA256")?,
            depends: field("Depends").unwrap_or_default(),
        })
    }

    /// The first package it depends on whose name begins with `prefix`.
    fn dependency(&self, prefix: &str) -> Option<&str> {
        let names = self.depends.split([',', '|']).filter_map(|part| part.split_ascii_whitespace().next());
        names.into_iter().find(|name| {
            name.starts_with(prefix) && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        })
    }

    fn damaged(&self, what: &'static str) -> AptError {
        AptError::Damaged { package: self.name.clone(), what }
    }
}

impl AptError {
    /// Whether newer lists could make the difference.
    fn may_be_stale_lists(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::Command(CommandError::Failed { .. }) | Self::Field { .. }
        )
    }
}

impl From<CommandError> for AptError {
    /// Tells from apt's words, which are untranslated, whether the network is at fault.
    fn from(error: CommandError) -> Self {
        const SIGNS: [&str; 8] = [
            "Temporary failure resolving",
            "Could not resolve",
            "Could not connect",
            "Unable to connect",
            "Cannot initiate the connection",
            "Connection failed",
            "Connection timed out",
            "Network is unreachable",
        ];
        match &error {
            CommandError::Failed { stderr, .. } if SIGNS.iter().any(|sign| stderr.contains(sign)) => {
                Self::NoNetwork(error)
            }
            _ => Self::Command(error),
        }
    }
}

/// Whether a file system has no room to speak of.
fn is_full(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) < 64 << 10)
}

/// The size of the file that apt is writing.
fn newest_size(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).max().unwrap_or(0)
}

fn the_deb(dir: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
pub(crate) mod tests;
