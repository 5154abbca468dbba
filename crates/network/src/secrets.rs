//! Secrets that no guest ever has: it is given placeholders, and hosts that are meant to get the secret get it from the gateway.
//!
//! ```text
//!   guest ── TLS, certificate of the sandbox's authority ──▶ gateway ── TLS, verified ──▶ host
//!            Authorization: Bearer cellule-secret-…          Authorization: Bearer the value
//!            …cellule-secret-…                    ◀──────────                  …the value…
//! ```
//! Owned here are the sources of values ([`SecretSpec`]), the values ([`Secrets`]), and the connections to the hosts that get them
//! (`intercept`). Connections to hosts that get no secret are not looked into.
//!
//! What is promised: the value is in no memory of the guest's, no file, no argument, no log. What is not: a host that gets a secret is
//! trusted with it. If it gives it back as it is, the gateway takes it out again; one that gives it back in another form (reversed,
//! encrypted, in parts as a guest may ask for with `Range`) tells it to the guest. Nothing is promised for values shorter than [`SHORT`] bytes there, which
//! would be found everywhere.

mod authority;
mod body;
mod event;
#[cfg(fuzzing)]
pub mod fuzzing;
mod intercept;
mod live;
mod raw;
mod replace;
mod request;
mod response;
mod secret;
mod serve;
mod source;
mod spec;

use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use futures::future::join_all;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls_platform_verifier::Verifier;
use tokio::sync::Semaphore;

use self::authority::Authority;
pub use self::authority::AuthorityError;
pub use self::event::{Event, Report, SecretRecord, What};
pub(crate) use self::intercept::{InterceptError, Target, intercept};
use self::live::Live;
pub use self::secret::{Secret, SecretError, placeholder};
pub use self::source::ValueError;
pub use self::spec::{SecretArgument, SecretSpec, Source, SpecError};
use crate::policy::{Name, Pattern};

/// A value that is shorter is not looked for in answers.
const SHORT: usize = 8;
/// The most secrets of one sandbox.
const MOST: usize = 256;
/// The most connections that are looked into at a time; a further one waits.
const CONNECTIONS: usize = 256;
/// How much of bodies is kept to be sent in one piece. Where there is no room, they are sent in several.
const ROOM: usize = 16 << 20;

/// Secrets could not be made ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretsError {
    /// There are too many.
    #[error("there are more than {MOST} secrets")]
    Many,
    /// Two have the same variable.
    #[error("there are two secrets named {0}")]
    Twice(String),
    /// One has no value.
    #[error("cannot get the secret {name}")]
    Value {
        /// Which one.
        name: String,
        /// Why.
        source: ValueError,
    },
    /// There is no authority for their hosts.
    #[error("cannot make the certificate authority for the secrets' hosts")]
    Authority(#[from] AuthorityError),
    /// It cannot be told which servers to trust.
    #[error("cannot load the host's certificates, which secrets' hosts are verified with")]
    Roots(#[source] rustls::Error),
    /// What is said to be a placeholder is none, or two secrets have it.
    #[error("the placeholder of the secret {0} cannot be used")]
    Placeholder(String),
    /// There are no random numbers.
    #[error("cannot make placeholders")]
    Random(#[source] std::io::Error),
}

/// A secret to begin with.
#[derive(Debug, Clone)]
pub struct Given {
    /// What the user said.
    pub spec: SecretSpec,
    /// The value, where who loads it cannot get it from its source: a variable, or a text.
    pub value: Option<Secret>,
    /// The placeholder that a guest has that was saved with it; if none, a new one is made.
    pub placeholder: Option<String>,
}

impl From<SecretArgument> for Given {
    fn from(SecretArgument { spec, value }: SecretArgument) -> Self {
        Self { spec, value, placeholder: None }
    }
}

/// The secrets of one sandbox, ready to be put in.
pub struct Secrets {
    entries: Vec<Entry>,
    authority: Authority,
    client: Arc<ClientConfig>,
    report: Report,
    connections: Semaphore,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Entry {
    spec: SecretSpec,
    placeholder: String,
    live: Live,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.entries.iter().map(|entry| &entry.spec.name);
        f.debug_tuple("Secrets").field(&names.collect::<Vec<_>>()).finish()
    }
}

impl Secrets {
    /// Gets all values: those that are given with their specification, and the others from where it says. Servers are verified with the
    /// host's certificates, and `extra_roots` besides. A guest that was saved with its trust in an authority needs one with the same
    /// key ([`Secrets::authority_key`]).
    ///
    /// # Errors
    /// All of [`SecretsError`].
    pub async fn load(
        given: Vec<Given>,
        authority_key: Option<Secret>,
        extra_roots: Vec<CertificateDer<'static>>,
        report: Report,
    ) -> Result<Self, SecretsError> {
        if given.len() > MOST {
            return Err(SecretsError::Many);
        }
        let (mut names, mut placeholders) = (HashSet::new(), HashSet::new());
        for Given { spec, placeholder, .. } in &given {
            if !names.insert(spec.name.as_str()) {
                return Err(SecretsError::Twice(spec.name.clone()));
            }
            let placeholder = placeholder.as_deref();
            if placeholder.is_some_and(|text| !secret::is_placeholder(text) || !placeholders.insert(text)) {
                return Err(SecretsError::Placeholder(spec.name.clone()));
            }
        }
        let client = client(extra_roots).map_err(SecretsError::Roots)?;
        let entries = join_all(given.into_iter().map(Entry::load)).await;
        let entries = entries.into_iter().collect::<Result<Vec<_>, _>>()?;
        let hosts: Vec<Pattern> = entries.iter().flat_map(|entry| entry.spec.hosts.clone()).collect();
        Ok(Self {
            entries,
            authority: Authority::new(hosts.iter(), authority_key.as_ref())?,
            client: Arc::new(client),
            report,
            connections: Semaphore::new(CONNECTIONS),
            room: Arc::new(Semaphore::new(ROOM)),
        })
    }

    /// The guest's variables: names, and the placeholders in them.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|entry| (entry.spec.name.as_str(), entry.placeholder.as_str()))
    }

    /// The certificate (PEM) that the guest is to trust.
    pub fn certificate(&self) -> &str {
        self.authority.pem()
    }

    /// The key of the guest's authority, for who saves a guest that trusts it. It speaks for the secrets' hosts and nobody else.
    pub fn authority_key(&self) -> Secret {
        self.authority.key()
    }

    /// Whether connections to a host are to be looked into.
    pub fn wants(&self, host: &Name) -> bool {
        self.entries.iter().any(|entry| entry.spec.is_for(host))
    }

    /// Gets the next values before the present ones expire. It never ends.
    pub async fn keep(&self) {
        join_all(self.entries.iter().map(|entry| entry.keep(&self.report))).await;
        std::future::pending::<()>().await;
    }
}

impl Entry {
    async fn load(Given { spec, value, placeholder }: Given) -> Result<Self, SecretsError> {
        let fetched = match value {
            Some(value) => source::Fetched { value, life: None },
            None => source::load(&spec)
                .await
                .map_err(|source| SecretsError::Value { name: spec.name.clone(), source })?,
        };
        let placeholder = match placeholder {
            Some(placeholder) => placeholder,
            None => secret::placeholder().map_err(SecretsError::Random)?,
        };
        Ok(Self { spec, placeholder, live: Live::new(fetched) })
    }

    async fn keep(&self, report: &Report) {
        let Source::Command(command) = &self.spec.source else { return };
        let failed = |error: &ValueError| {
            let what = What::NotRefreshed(error.to_string());
            report(Event { secret: Some(self.spec.name.clone()), host: None, what });
        };
        self.live.keep(async || source::run(command).await, failed).await;
    }
}

fn client(extra_roots: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra_roots, Arc::clone(&provider))?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// A connection to a host that gets secrets.
#[derive(Debug)]
struct Link {
    secrets: Rc<Secrets>,
    host: Name,
    /// What was told of it: the same again is no news.
    told: std::cell::RefCell<HashSet<(Option<usize>, std::mem::Discriminant<What>)>>,
}

impl Link {
    fn new(secrets: Rc<Secrets>, host: Name) -> Rc<Self> {
        Rc::new(Self { secrets, host, told: std::cell::RefCell::default() })
    }

    fn tell(&self, secret: Option<usize>, what: What) {
        if self.told.borrow_mut().insert((secret, std::mem::discriminant(&what))) {
            let entry = secret.and_then(|secret| self.secrets.entries.get(secret));
            let secret = entry.map(|entry| entry.spec.name.clone());
            (self.secrets.report)(Event { secret, host: Some(self.host.clone()), what });
        }
    }

    /// The secrets that the host gets, and their numbers.
    fn meant(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.secrets.entries.iter().enumerate().filter(|(_, entry)| entry.spec.is_for(&self.host))
    }
}

#[cfg(test)]
mod tests;
