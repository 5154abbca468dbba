//! Credentials for registries, kept where Docker keeps them: in `config.json` and in credential helpers.
//!
//! For a registry the helper named in `credHelpers` is asked, else the one in `credsStore`; what it does not have is
//! looked for in `auths`. Writing goes to the helper too, if there is one.

mod docker_config;
mod helper;

use std::{fmt, io, path::PathBuf, time::Duration};

use self::{docker_config::DockerConfig, helper::Helper};
use crate::{Options, Result, error::blocking, registry::Registry};

/// The key under which Docker keeps the credentials of its default registry.
const DEFAULT_REGISTRY_KEY: &str = "https://index.docker.io/v1/";

/// What a registry is told. Its debug form shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password or access token.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// A token that a registry's token server changes for others.
    IdentityToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => {
                write!(f, "Password {{ username: {username:?}, password: … }}")
            }
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
        }
    }
}

/// Why credentials could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// The file is no JSON object of Docker's form.
    #[error("{} is malformed", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The entry of a registry in the file holds no name and password.
    #[error("{} has a malformed entry for {registry}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The registry.
        registry: String,
    },
    /// A credential helper could not be run.
    #[error("cannot run the credential helper {helper}")]
    HelperMissing {
        /// The name of the program.
        helper: String,
        /// The host's reason.
        source: io::Error,
    },
    /// A credential helper failed.
    #[error("the credential helper {helper} failed: {message}")]
    HelperFailed {
        /// The name of the program.
        helper: String,
        /// What it said.
        message: String,
    },
    /// A credential helper did not end in time; it has been killed.
    #[error("the credential helper {helper} did not answer within {} s", limit.as_secs_f64())]
    HelperStalled {
        /// The name of the program.
        helper: String,
        /// How long it had.
        limit: Duration,
    },
    /// There is no home directory to keep the file in.
    #[error("there is no place for credentials: neither DOCKER_CONFIG nor HOME is set")]
    NoPlace,
}

/// Where credentials are.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Docker's `config.json`; `None` means that there are no credentials.
    pub file: Option<PathBuf>,
    /// How long a credential helper may take.
    pub helper_limit: Duration,
}

impl Default for Credentials {
    /// `config.json` in `$DOCKER_CONFIG`, else in `$HOME/.docker`.
    fn default() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")));
        Self { file: dir.map(|dir| dir.join("config.json")), helper_limit: Duration::from_secs(30) }
    }
}

impl Credentials {
    /// No credentials at all.
    pub fn none() -> Self {
        Self { file: None, ..Self::default() }
    }

    /// The credentials in that file.
    pub fn at(file: impl Into<PathBuf>) -> Self {
        Self { file: Some(file.into()), ..Self::default() }
    }

    /// The credential for a registry, as users write it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the file or a helper that it names is there but cannot be used.
    pub async fn find(&self, registry: &str) -> Result<Option<Credential>> {
        let Some(config) = self.read().await? else { return Ok(None) };
        if let Some(helper) = config.helper(&host(registry)) {
            let found = Helper::named(&helper)?.get(&key(registry), self.helper_limit).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(config.find(registry)?)
    }

    /// Checks a credential with the registry, then keeps it.
    ///
    /// # Errors
    ///
    /// If the registry cannot be reached or denies access; or if the credential cannot be kept.
    pub async fn login(&self, registry: &str, credential: Credential, options: &Options) -> Result<()> {
        let host = host(registry);
        let connect = if host == "docker.io" { "registry-1.docker.io" } else { &host };
        Registry::open(&host, connect, "", Some(credential.clone()), options).await?.check_access().await?;
        let config = self.read().await?.ok_or(CredentialsError::NoPlace)?;
        if let Some(helper) = config.helper(&host) {
            return Ok(Helper::named(&helper)?.store(&key(registry), &credential, self.helper_limit).await?);
        }
        let registry = registry.to_owned();
        blocking(move || Ok(config.update(&registry, Some(&credential))?)).await
    }

    /// Forgets the credential for a registry; returns whether there was one.
    ///
    /// # Errors
    ///
    /// If the file or helper cannot be read or written.
    pub async fn logout(&self, registry: &str) -> Result<bool> {
        let had = self.find(registry).await?.is_some();
        let Some(config) = self.read().await?.filter(|_| had) else { return Ok(false) };
        if let Some(helper) = config.helper(&host(registry)) {
            Helper::named(&helper)?.erase(&key(registry), self.helper_limit).await?;
        }
        let registry = registry.to_owned();
        blocking(move || Ok(config.update(&registry, None)?)).await?;
        Ok(true)
    }

    async fn read(&self) -> Result<Option<DockerConfig>> {
        let Some(file) = self.file.clone() else { return Ok(None) };
        blocking(move || Ok(Some(DockerConfig::read(file)?))).await
    }
}

/// The host of a registry, however it is written: keys of Docker's file may be URLs.
fn host(registry: &str) -> String {
    let rest = registry.split_once("://").map_or(registry, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".into(),
        host => host.to_owned(),
    }
}

/// The key under which the credential of a registry is kept.
fn key(registry: &str) -> String {
    match host(registry) {
        host if host == "docker.io" => DEFAULT_REGISTRY_KEY.into(),
        host => host,
    }
}

#[cfg(test)]
mod tests;
