//! What the owner of a sandbox says of its secrets, which is written down nowhere, and what the gateway gets of it.
//!
//! ```text
//!   spec.json: name, source, hosts, placeholder ─────────┐
//!   owner's connection: values of env: and value: ───────┼──▶ Secrets ──▶ gateway
//!   here: file:, cmd:                            ────────┘       └──▶ certificate ──▶ guest
//! ```
//! Whoever copies the running sandbox asks for the values and the authority's key, so that its copies go on as they are: their guests
//! trust that authority already. They go from memory to memory.

use std::sync::Arc;
use std::time::Duration;

use cellule_network::secrets::{Given, Secret, SecretError, SecretSpec, Secrets, Source};
use cellule_protocol::supervisor::v1;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::failure::{Failure, FailureKind};
use crate::inherited::complain;
use crate::network::NetworkLog;

/// How long the owner may take to say the values: it does so as soon as it is connected.
const GIVEN: Duration = Duration::from_secs(30);

/// A secret of a sandbox, as far as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestSecret {
    /// What the user said.
    pub secret: SecretSpec,
    /// What the guest has in the value's place.
    pub placeholder: String,
}

/// What is known of a sandbox's secrets and written down nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretValues {
    /// Values by the name of their secret: those that the supervisor cannot get from their sources itself.
    pub values: Vec<(String, Secret)>,
    /// The key of the authority that the guest trusts, if it is a copy of one that does.
    pub authority_key: Option<Secret>,
}

impl SecretValues {
    fn of(&self, name: &str) -> Option<Secret> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

impl From<SecretValues> for v1::SecretValues {
    fn from(values: SecretValues) -> Self {
        let value = |(name, value): (String, Secret)| v1::secret_values::Value {
            name,
            value: value.expose().to_vec(),
        };
        Self {
            values: values.values.into_iter().map(value).collect(),
            authority_key: values.authority_key.map(|key| key.expose().to_vec()).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::SecretValues> for SecretValues {
    type Error = SecretError;

    fn try_from(message: v1::SecretValues) -> Result<Self, SecretError> {
        let value = |value: v1::secret_values::Value| Ok((value.name, Secret::new(value.value)?));
        let key = message.authority_key;
        Ok(Self {
            values: message.values.into_iter().map(value).collect::<Result<_, _>>()?,
            authority_key: if key.is_empty() { None } else { Some(Secret::new(key)?) },
        })
    }
}

/// Where the values are told, and told again; clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vault(Arc<watch::Sender<Told>>);

#[derive(Debug, Default)]
enum Told {
    #[default]
    Nothing,
    /// By the owner.
    Given(SecretValues),
    /// With the authority's key that came of it.
    Used(SecretValues),
}

impl Vault {
    /// Takes what the owner says; `false` if it has said it before.
    pub(crate) fn give(&self, values: SecretValues) -> bool {
        self.0.send_if_modified(|told| {
            let is_first = matches!(told, Told::Nothing);
            if is_first {
                *told = Told::Given(values);
            }
            is_first
        })
    }

    /// What copies of the sandbox are to have; nothing while it is still starting.
    pub(crate) fn for_copies(&self) -> Option<SecretValues> {
        match &*self.0.borrow() {
            Told::Used(values) => Some(values.clone()),
            Told::Nothing | Told::Given(_) => None,
        }
    }

    async fn given(&self) -> Option<SecretValues> {
        let mut told = self.0.subscribe();
        let given = told.wait_for(|told| matches!(told, Told::Given(_)));
        match &*tokio::time::timeout(GIVEN, given).await.ok()?.ok()? {
            Told::Given(values) => Some(values.clone()),
            Told::Nothing | Told::Used(_) => None,
        }
    }
}

/// Gets all secrets of a sandbox, if it has any.
pub(crate) async fn load(
    secrets: &[GuestSecret],
    vault: &Vault,
    log: &NetworkLog,
) -> Result<Option<Secrets>, Failure> {
    if secrets.is_empty() {
        return Ok(None);
    }
    leave_no_core();
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(FailureKind::Secret, "the sandbox's secrets cannot be had", Some(error))
    };
    let Some(told) = vault.given().await else {
        let message = "whoever started the sandbox did not say the values of its secrets";
        return Err(Failure::new(FailureKind::Secret, message, None));
    };
    let given = secrets.iter().map(|GuestSecret { secret, placeholder }| Given {
        value: told.of(&secret.name),
        spec: secret.clone(),
        placeholder: Some(placeholder.clone()),
    });
    let log = log.clone();
    let report = Box::new(move |event| log.secret(&event));
    let loaded = Secrets::load(given.collect(), told.authority_key.clone(), Vec::new(), report);
    let loaded = loaded.await.map_err(|error| failed(&error))?;
    let authority_key = Some(loaded.authority_key());
    vault.0.send_replace(Told::Used(SecretValues { authority_key, ..told }));
    Ok(Some(loaded))
}

/// What is in memory from now on is in no file if this process crashes.
fn leave_no_core() {
    _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // The limit counts for files alone, not for programs that cores are piped to.
    if let Err(error) = std::fs::write("/proc/self/coredump_filter", "0") {
        complain(&format!("memory with secrets cannot be kept out of core dumps: {error}"));
    }
}

/// The variables of this process that are the values of secrets: nobody else is to have them.
pub(crate) fn variables(secrets: &[GuestSecret]) -> impl Iterator<Item = &str> {
    secrets.iter().filter_map(|GuestSecret { secret, .. }| match &secret.source {
        Source::Env(variable) => Some(variable.as_str()),
        Source::File(_) | Source::Command(_) | Source::Value => None,
    })
}

#[cfg(test)]
mod tests {
    use cellule_network::secrets::SecretArgument;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec()).unwrap()
    }

    fn guest_secret(text: &str) -> GuestSecret {
        let argument: SecretArgument = text.parse().unwrap();
        GuestSecret { secret: argument.spec, placeholder: cellule_network::secrets::placeholder().unwrap() }
    }

    #[test]
    fn values_and_the_key_are_the_same_after_the_wire() {
        let all = SecretValues {
            values: vec![("T".to_owned(), secret("hush")), ("U".to_owned(), secret("\0\u{ff}"))],
            authority_key: Some(secret("key")),
        };
        for values in [all, SecretValues::default()] {
            assert_eq!(SecretValues::try_from(v1::SecretValues::from(values.clone())), Ok(values));
        }
    }

    #[tokio::test]
    async fn what_the_owner_says_becomes_the_secrets_and_is_kept_for_copies() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, log) = (Vault::default(), NetworkLog::of(dir.path()));
        let secrets = [guest_secret("T=value:hush@api.example.com"), guest_secret("U=env:U@api.example.com")];
        let values = [("T", "hush-hush"), ("U", "quiet-quiet")];
        let values = values.map(|(name, value)| (name.to_owned(), secret(value))).to_vec();
        let told = SecretValues { values, authority_key: None };
        assert!(vault.give(told.clone()) && !vault.give(SecretValues::default()), "they are said once");
        assert_eq!(vault.for_copies(), None);
        let loaded = load(&secrets, &vault, &log).await.unwrap().unwrap();
        let variables: Vec<_> = loaded.variables().collect();
        assert_eq!(variables, [("T", secrets[0].placeholder.as_str()), ("U", &secrets[1].placeholder)]);
        let copies = vault.for_copies().unwrap();
        assert_eq!((&copies.values, copies.authority_key), (&told.values, Some(loaded.authority_key())));
        assert_eq!(super::variables(&secrets).collect::<Vec<_>>(), ["U"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sandbox_whose_owner_says_nothing_fails_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, log) = (Vault::default(), NetworkLog::of(dir.path()));
        assert!(load(&[], &vault, &log).await.unwrap().is_none());
        let failure = load(&[guest_secret("T=env:T@a.example")], &vault, &log).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Secret);
    }
}
