//! Named networks, which sandboxes reach one another on. Owns their directories.
//!
//! ```text
//!  networks/<name>/        a network
//!  networks/<name>/<id>    the socket of a sandbox that is on it and runs; one that was killed leaves it behind, until
//!                          the next look at that sandbox
//! ```
//! There is nothing else to a network: whoever can open a socket there can reach its sandbox, and only its user can.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use cellule_network::{Neighbourhood, neighbour_answers};

use crate::directory::{private_dir, remove_all};
use crate::name::{NetworkName, SandboxId};
use crate::names;
use crate::sandboxes::NAMES;

/// Where in a home they are.
const NETWORKS: &str = "networks";

/// A user's networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks {
    dir: PathBuf,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedNetwork {
    /// Its name.
    pub name: NetworkName,
    /// The sandboxes that are on it and run.
    pub members: Vec<SandboxId>,
}

/// Something cannot be done with a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworksError {
    /// There is none of this name.
    #[error("there is no network {0}")]
    NotFound(NetworkName),
    /// There is one already.
    #[error("there is a network {0} already")]
    Exists(NetworkName),
    /// It is in use.
    #[error("{} on the network {name}", if members.len() == 1 { "a sandbox is".to_owned() } else { format!("{} sandboxes are", members.len()) })]
    InUse {
        /// Which one.
        name: NetworkName,
        /// The sandboxes that are on it.
        members: Vec<SandboxId>,
    },
    /// Its directory.
    #[error("cannot change {}", path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Networks {
    /// Those of a home.
    pub fn at(home: &Path) -> Self {
        Self { dir: home.join(NETWORKS) }
    }

    fn path(&self, name: &NetworkName) -> PathBuf {
        self.dir.join(name.as_str())
    }

    /// Makes one.
    ///
    /// # Errors
    /// [`NetworksError::Exists`], [`NetworksError::Directory`].
    pub fn create(&self, name: &NetworkName) -> Result<(), NetworksError> {
        let path = self.path(name);
        let made = private_dir(&self.dir, true).and_then(|()| private_dir(&path, false));
        made.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => NetworksError::Exists(name.clone()),
            _ => NetworksError::Directory { path, source },
        })
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// [`NetworksError::Directory`].
    pub fn list(&self) -> Result<Vec<NamedNetwork>, NetworksError> {
        let failed = |source| NetworksError::Directory { path: self.dir.clone(), source };
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name().into_string().ok();
            if let Some(name) = name.and_then(|name| NetworkName::try_from(name).ok()) {
                // One that is removed meanwhile is not there.
                let Ok(found) = self.find(&name) else { continue };
                all.push(found);
            }
        }
        all.sort_unstable_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        Ok(all)
    }

    /// Whether all of these are there. Their members are not asked.
    ///
    /// # Errors
    /// [`NetworksError::NotFound`], of the first that is not.
    pub fn check(&self, names: &[NetworkName]) -> Result<(), NetworksError> {
        match names.iter().find(|name| !self.path(name).is_dir()) {
            Some(missing) => Err(NetworksError::NotFound(missing.clone())),
            None => Ok(()),
        }
    }

    /// The network of a name, and which of its members answer.
    ///
    /// # Errors
    /// [`NetworksError::NotFound`], [`NetworksError::Directory`].
    pub fn find(&self, name: &NetworkName) -> Result<NamedNetwork, NetworksError> {
        let path = self.path(name);
        let entries = fs::read_dir(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => NetworksError::NotFound(name.clone()),
            _ => NetworksError::Directory { path: path.clone(), source },
        })?;
        let mut members: Vec<SandboxId> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
            .filter_map(|entry| SandboxId::try_from(entry.file_name().into_string().ok()?).ok())
            .filter(|id| neighbour_answers(&path, id.as_str()))
            .collect();
        members.sort_unstable();
        Ok(NamedNetwork { name: name.clone(), members })
    }

    /// Removes one that no sandbox is on.
    ///
    /// # Errors
    /// All but [`NetworksError::Exists`].
    pub fn remove(&self, name: &NetworkName) -> Result<(), NetworksError> {
        let members = self.find(name)?.members;
        if !members.is_empty() {
            return Err(NetworksError::InUse { name: name.clone(), members });
        }
        let path = self.path(name);
        // By another name nobody comes to it any more. One that is there already a removal left that broke off.
        let gone = self.dir.join(format!(".gone-{}", name.as_str()));
        let removed =
            remove_all(&gone).and_then(|()| fs::rename(&path, &gone)).and_then(|()| remove_all(&gone));
        removed.map_err(|source| NetworksError::Directory { path, source })
    }

    /// Takes away what a sandbox that was killed left in its networks.
    pub(crate) fn leave(&self, id: &SandboxId, names: &[NetworkName]) {
        for name in names {
            // What stays is in nobody's way, and goes with its network.
            _ = fs::remove_file(self.path(name).join(id.as_str()));
        }
    }
}

/// The networks that a sandbox is on, for its gateway.
pub(crate) fn of(home: &Path, id: &SandboxId, networks: &[NetworkName]) -> Vec<Neighbourhood> {
    let all = Networks::at(home);
    let neighbourhood = |name: &NetworkName| {
        let names = home.join(NAMES);
        Neighbourhood {
            name: name.to_string(),
            dir: all.path(name),
            id: id.to_string(),
            resolve: Box::new(move |called| resolve(&names, called)),
        }
    };
    networks.iter().map(neighbourhood).collect()
}

/// Whom a guest means, whose words are in lower case.
fn resolve(names: &Path, called: &str) -> Option<String> {
    if let Ok(id) = called.parse::<SandboxId>() {
        return Some(id.to_string());
    }
    let exact = called.parse().ok().and_then(|name| names::owner(names, &name));
    let id = exact.or_else(|| {
        let mut all = names::all(names).into_iter();
        all.find(|(_, name)| name.as_str().eq_ignore_ascii_case(called)).map(|(id, _)| id)
    });
    id.map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn name(text: &str) -> NetworkName {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_comes_once_and_goes_when_nobody_is_on_it() {
        let home = tempfile::tempdir().unwrap();
        let networks = Networks::at(home.path());
        assert!(networks.list().unwrap().is_empty());
        assert!(matches!(networks.remove(&name("back")), Err(NetworksError::NotFound(_))));
        networks.create(&name("back")).unwrap();
        assert!(networks.check(&[name("back")]).is_ok());
        let missing = networks.check(&[name("back"), name("front")]);
        assert!(matches!(missing, Err(NetworksError::NotFound(missing)) if missing == name("front")));
        assert!(matches!(networks.create(&name("back")), Err(NetworksError::Exists(_))));
        networks.create(&name("apex")).unwrap();

        let dir = networks.path(&name("back"));
        drop(UnixListener::bind(dir.join("000000000000")).unwrap());
        drop(UnixListener::bind(dir.join("111111111111")).unwrap());
        networks.leave(&"111111111111".parse().unwrap(), &[name("back"), name("front")]);
        assert!(!dir.join("111111111111").exists());
        let member = UnixListener::bind(dir.join("0123456789ab")).unwrap();
        let members: Vec<SandboxId> = vec!["0123456789ab".parse().unwrap()];
        let list = networks.list().unwrap();
        assert_eq!((list[0].name.as_str(), list[1].members.as_slice()), ("apex", members.as_slice()));
        let refused = networks.remove(&name("back")).unwrap_err();
        assert_eq!(refused.to_string(), "a sandbox is on the network back");
        drop(member);
        fs::create_dir_all(networks.dir.join(".gone-back/left")).unwrap();
        networks.remove(&name("back")).expect("what killed sandboxes and removals left is in nobody's way");
        assert_eq!(networks.list().unwrap().len(), 1);
        assert_eq!(fs::read_dir(home.path().join(NETWORKS)).unwrap().count(), 1);
    }

    #[test]
    fn a_neighbour_is_called_by_its_name_in_any_case_or_by_its_id() {
        let home = tempfile::tempdir().unwrap();
        let (id, names) = ("0123456789ab".parse::<SandboxId>().unwrap(), home.path());
        names::bind(names, &"Web".parse().unwrap(), &id).unwrap();
        for called in ["web", "0123456789ab"] {
            assert_eq!(resolve(names, called).as_deref(), Some("0123456789ab"), "{called}");
        }
        for called in ["db", "../x", "", "web.example"] {
            assert_eq!(resolve(names, called), None, "{called}");
        }
    }
}
