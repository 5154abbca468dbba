//! Where sandboxes live on this host, and which programs run them. The one place that asks the environment for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cellule_image::{Digest, Store};
use cellule_snapshot::{Snapshots, Templates};
use cellule_supervisor::{Entry, Journal, Networks, Sandboxes, SavedSandbox, Survey};

use crate::{Builder, Error, Sandbox};

/// Where in the state directory templates and snapshots are.
const TEMPLATES: &str = "templates";
const SNAPSHOTS: &str = "snapshots";

/// This host, as far as sandboxes go: the state directory, the `cellule` program and QEMU's.
///
/// ```text
///   state directory   $CELLULE_HOME, else $XDG_DATA_HOME/cellule, else /var/lib/cellule for root
///                     and ~/.local/share/cellule for everyone else
///   cellule           $CELLULE_PROGRAM, else the first in PATH: it supervises each sandbox
///   QEMU              $CELLULE_QEMU, else the first in PATH
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    home: PathBuf,
    program: Option<PathBuf>,
    qemu: Option<PathBuf>,
}

/// What decides where things are.
struct Surroundings {
    cellule_home: Option<OsString>,
    xdg_data_home: Option<OsString>,
    home: Option<OsString>,
    is_root: bool,
}

impl Host {
    /// The host as the environment describes it.
    ///
    /// # Errors
    /// There is no place for the state: neither `CELLULE_HOME` nor `HOME` is set, or it is not an absolute path.
    pub fn locate() -> Result<Self, Error> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = choose(Surroundings {
            cellule_home: set("CELLULE_HOME"),
            xdg_data_home: set("XDG_DATA_HOME"),
            home: set("HOME"),
            is_root: rustix::process::geteuid().is_root(),
        })?;
        let path = |name| set(name).map(PathBuf::from);
        Ok(Self { home, program: path("CELLULE_PROGRAM"), qemu: path("CELLULE_QEMU") })
    }

    /// The host with its state in this directory, an absolute path, and all else as the environment has it.
    ///
    /// # Errors
    /// The path is not absolute.
    pub fn at(home: impl Into<PathBuf>) -> Result<Self, Error> {
        let home = absolute(home.into())?;
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Ok(Self { home, program: path("CELLULE_PROGRAM"), qemu: path("CELLULE_QEMU") })
    }

    /// With this `cellule` program to supervise sandboxes.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// The state directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// QEMU's program, where one is named.
    pub fn qemu(&self) -> Option<&Path> {
        self.qemu.as_deref()
    }

    /// The program that supervises a sandbox.
    pub(crate) fn supervisor(&self) -> Result<PathBuf, Error> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|dir| dir.join("cellule"))
            .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
            .ok_or(Error::NoProgram)
    }

    /// The directories of its sandboxes.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn sandboxes(&self) -> Result<Sandboxes, Error> {
        Ok(Sandboxes::open(&self.home)?)
    }

    /// The machines that sandboxes start from, which may take this many bytes on disk.
    pub fn templates(&self, limit: u64) -> Templates {
        Templates::new(self.home.join(TEMPLATES), limit)
    }

    /// The snapshots of its sandboxes.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots::new(self.home.join(SNAPSHOTS))
    }

    /// The named networks of its sandboxes.
    pub fn networks(&self) -> Networks {
        Networks::at(&self.home)
    }

    /// Removes what is left of templates whose makers were killed. That something of it stays is no reason for anything to
    /// fail: the next one looks again.
    pub(crate) fn sweep_templates(&self) {
        _ = self.templates(0).sweep();
    }

    /// Its images.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn images(&self) -> Result<Store, Error> {
        Store::open(self.home.join("images")).map_err(|error| Error::Images { source: Box::new(error) })
    }

    /// The images that sandboxes and snapshots are made of, by id, each with one of those: what [`Store::remove`] and
    /// [`Store::prune`] cannot know of those that do not run.
    ///
    /// # Errors
    /// The directory of the sandboxes cannot be read.
    pub fn images_in_use(&self) -> Result<BTreeMap<Digest, String>, Error> {
        let sandboxes = self.sandboxes()?.survey()?.entries.into_iter();
        let used = sandboxes.filter_map(|entry| {
            let name = entry.name.map_or_else(|| entry.spec.id.to_string(), |name| name.to_string());
            Some((entry.spec.image_digest.parse().ok()?, format!("the sandbox {name}")))
        });
        let mut used: BTreeMap<Digest, String> = used.collect();
        for snapshot in self.snapshots().list()? {
            let saved = snapshot.files.ok().and_then(|files| SavedSandbox::of(&files).ok());
            if let Some(id) = saved.and_then(|saved| saved.spec.image_digest.parse().ok()) {
                used.entry(id).or_insert_with(|| format!("the snapshot {}", snapshot.name));
            }
        }
        Ok(used)
    }

    /// Begins a sandbox of an image: a registry's reference, `oci:DIR[:TAG]`, `docker-archive:FILE`, a path of a root
    /// filesystem's tar or directory, or the built-in `base`.
    pub fn sandbox(&self, image: impl Into<String>) -> Builder {
        Builder::new(self.clone(), image.into())
    }

    /// All sandboxes, the newest first. What killed supervisors left is cleaned up on the way.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, Error> {
        self.sweep_templates();
        Ok(self.sandboxes()?.list()?)
    }

    /// All sandboxes, with what is wrong with those that are not right. What killed supervisors left is cleaned up on the way.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn survey(&self) -> Result<Survey, Error> {
        self.sweep_templates();
        Ok(self.sandboxes()?.survey()?)
    }

    /// The sandbox of this name, or whose id begins so.
    ///
    /// # Errors
    /// There is none, or several ids begin so.
    pub fn find(&self, name: &str) -> Result<Entry, Error> {
        Ok(self.sandboxes()?.find(name)?)
    }

    /// Connects to a running sandbox by its name, or what its id begins with.
    ///
    /// # Errors
    /// There is none, or it does not run.
    pub async fn connect(&self, name: &str) -> Result<Sandbox, Error> {
        Sandbox::open(self.clone(), self.find(name)?).await
    }

    /// What happened to all sandboxes.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn events(&self) -> Result<Journal, Error> {
        Ok(self.sandboxes()?.events())
    }
}

fn choose(around: Surroundings) -> Result<PathBuf, Error> {
    let path = if let Some(home) = around.cellule_home {
        PathBuf::from(home)
    } else if let Some(data) = around.xdg_data_home {
        PathBuf::from(data).join("cellule")
    } else if around.is_root {
        PathBuf::from("/var/lib/cellule")
    } else if let Some(home) = around.home {
        PathBuf::from(home).join(".local/share/cellule")
    } else {
        return Err(Error::NoHome);
    };
    absolute(path)
}

fn absolute(path: PathBuf) -> Result<PathBuf, Error> {
    if path.is_absolute() { Ok(path) } else { Err(Error::RelativeHome { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(values: [Option<&str>; 3], is_root: bool) -> Surroundings {
        let [cellule_home, xdg_data_home, home] = values.map(|value| value.map(OsString::from));
        Surroundings { cellule_home, xdg_data_home, home, is_root }
    }

    #[test]
    fn the_first_that_is_set_wins() {
        let cases = [
            ([Some("/c"), Some("/x"), Some("/h")], false, "/c"),
            ([None, Some("/x"), Some("/h")], true, "/x/cellule"),
            ([None, None, Some("/h")], true, "/var/lib/cellule"),
            ([None, None, Some("/h")], false, "/h/.local/share/cellule"),
        ];
        for (values, is_root, expected) in cases {
            assert_eq!(choose(around(values, is_root)).unwrap(), PathBuf::from(expected));
        }
    }

    #[test]
    fn a_relative_or_missing_place_is_refused() {
        assert!(matches!(
            choose(around([Some("state"), None, None], false)),
            Err(Error::RelativeHome { .. })
        ));
        assert!(matches!(choose(around([None; 3], false)), Err(Error::NoHome)));
        assert!(Host::at("state").is_err());
    }
}
