//! Requests to one repository of one registry.

use std::sync::atomic::AtomicBool;

use reqwest::{Client, Method, Url, header};
use tokio::time::timeout;

use super::{
    RegistryError,
    auth::Authorization,
    request::{http_client, text_header},
    retry::{Attempts, Failure},
};
use crate::{
    Credential, Digest, Error, Options, Reference, Result, error::blocking, manifest::Descriptor,
    reference::is_loopback,
};

const CONTENT_DIGEST: &str = "docker-content-digest";

/// A repository of a registry, or the registry alone.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(super) options: Options,
    /// The registry as the user writes it.
    pub(super) name: String,
    pub(super) repository: String,
    pub(super) client: Client,
    pub(super) base: Url,
    pub(super) credential: Option<Credential>,
    pub(super) authorization: tokio::sync::Mutex<Option<Authorization>>,
    /// Whether any request has had an answer.
    pub(super) answered: AtomicBool,
}

/// A manifest or index as it came, verified as far as a digest was known.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) content_type: Option<String>,
}

impl Registry {
    /// Makes ready to pull from the repository of `reference`.
    pub(crate) async fn connect(reference: &Reference, options: &Options) -> Result<Self> {
        let credential = options.credentials.find(reference.registry()).await?;
        Self::open(
            reference.registry(),
            reference.registry_host(),
            reference.repository(),
            credential,
            options,
        )
        .await
    }

    pub(crate) async fn open(
        name: &str,
        host: &str,
        repository: &str,
        credential: Option<Credential>,
        options: &Options,
    ) -> Result<Self> {
        let lenient = options.insecure || is_loopback(host);
        let (client, network) = (options.clone(), options.network.clone());
        // Reads the host's certificates.
        let client = blocking(move || http_client(lenient, &client)).await?;
        let url = |scheme: &str| {
            format!("{scheme}://{host}/v2/").parse::<Url>().map_err(|error| RegistryError::Protocol {
                registry: name.into(),
                detail: format!("no URL can be made of its name: {error}"),
            })
        };
        let mut base = url("https")?;
        if lenient {
            match timeout(network.connect, client.get(base.clone()).send()).await {
                Ok(Err(error)) if error.is_connect() => base = url("http")?,
                // What it says there, an error even, it says in answer to the real request too.
                _ => {}
            }
        }
        Ok(Self {
            options: options.clone(),
            name: name.into(),
            repository: repository.into(),
            client,
            base,
            credential,
            authorization: tokio::sync::Mutex::new(None),
            answered: AtomicBool::new(false),
        })
    }

    /// The manifest or index of a name, which is a tag or a digest.
    pub(crate) async fn manifest(&self, name: &str) -> Result<Answer> {
        let what = format!("manifest {}:{name}", self.repository).replace(":sha256:", "@sha256:");
        let mut attempts = self.attempts();
        loop {
            match self.try_manifest(name, &what).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => attempts.after(failure).await?,
            }
        }
    }

    async fn try_manifest(&self, name: &str, what: &str) -> Result<Answer, Failure> {
        let response = self.send(Method::GET, &format!("manifests/{name}"), what, None).await?;
        let content_type = text_header(response.headers(), header::CONTENT_TYPE.as_str());
        let stated =
            text_header(response.headers(), CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok());
        let bytes = self.small_body(response, self.options.limits.document, what).await?;
        let actual = Digest::of(&bytes);
        // A digest that was asked for decides; else the registry is held to its own word.
        if let Some(expected) = name.parse().ok().or(stated)
            && expected != actual
        {
            return Err(Error::DigestMismatch { what: what.into(), expected, actual }.into());
        }
        Ok(Answer { bytes, digest: actual, content_type })
    }

    /// The digest that the registry gives for a name, without the manifest; `None` if it does not say.
    pub(crate) async fn digest(&self, name: &str) -> Result<Option<Digest>> {
        let what = format!("manifest {}:{name}", self.repository);
        let mut attempts = self.attempts();
        loop {
            match self.send(Method::HEAD, &format!("manifests/{name}"), &what, None).await {
                Ok(response) => {
                    return Ok(
                        text_header(response.headers(), CONTENT_DIGEST).and_then(|text| text.parse().ok())
                    );
                }
                Err(failure) => attempts.after(failure).await?,
            }
        }
    }

    /// A blob that is small enough for memory, verified.
    pub(crate) async fn small_blob(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        let what = format!("blob {}", blob.digest);
        let mut attempts = self.attempts();
        loop {
            match self.try_small_blob(blob, &what).await {
                Ok(bytes) => break Ok(bytes),
                Err(failure) => attempts.after(failure).await?,
            }
        }
    }

    async fn try_small_blob(&self, blob: &Descriptor, what: &str) -> Result<Vec<u8>, Failure> {
        let response = self.send(Method::GET, &format!("blobs/{}", blob.digest), what, None).await?;
        let bytes = self.small_body(response, self.options.limits.document, what).await?;
        let (actual, expected) = (bytes.len() as u64, blob.size);
        if actual != expected {
            return Err(Error::SizeMismatch { what: what.into(), expected, actual, at_least: false }.into());
        }
        let (actual, expected) = (Digest::of(&bytes), blob.digest);
        if actual != expected {
            return Err(Error::DigestMismatch { what: what.into(), expected, actual }.into());
        }
        Ok(bytes)
    }

    /// Asks the registry for nothing but whether it accepts the credentials.
    pub(crate) async fn check_access(&self) -> Result<()> {
        let mut attempts = self.attempts();
        loop {
            match self.send(Method::GET, "", "login", None).await {
                Ok(_) => return Ok(()),
                Err(failure) => attempts.after(failure).await?,
            }
        }
    }

    pub(super) fn attempts(&self) -> Attempts<'_> {
        Attempts::new(&self.options.network, &*self.options.progress, &self.name)
    }
}
