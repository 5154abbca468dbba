//! One request: authenticated as the registry asks for, redirected only where that is safe, bounded in time and size.

use std::{sync::atomic::Ordering, time::Duration};

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    header::{self, HeaderMap},
    redirect,
};
use tokio::time::timeout;

use super::{
    Registry, RegistryError,
    auth::{Authorization, Challenge, TokenAnswer},
    retry::{Again, Failure},
};
use crate::{
    Credential, Error, Options, Result,
    error::blocking,
    manifest::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST},
    reference::is_loopback,
};

const MAX_REDIRECTS: usize = 10;
const MAX_ERROR_BODY: u64 = 16 << 10;
const MAX_TOKEN_BODY: u64 = 1 << 20;
const MAX_DETAIL: usize = 200;

impl Registry {
    /// Sends a request, authenticated as the registry asks for, and returns an answer that is a success.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        what: &str,
        range_from: Option<u64>,
    ) -> Result<Response, Failure> {
        let url = match path {
            "" => Ok(self.base.clone()),
            path => self.base.join(&format!("{}/{path}", self.repository)),
        };
        let url = url.map_err(|error| self.protocol(format!("no URL can be made: {error}")))?;
        let mut may_authorize = true;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let mut request = self.client.request(method.clone(), url.clone());
            if path.starts_with("manifests/") {
                for accepted in [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST] {
                    request = request.header(header::ACCEPT, accepted);
                }
            }
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, &authorization.0);
            }
            if let Some(from) = range_from {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let response = self.answer(request).await?;
            if response.status() != StatusCode::UNAUTHORIZED || !may_authorize {
                return self.success(response, what).await;
            }
            may_authorize = false;
            let challenge = Challenge::parse(
                response
                    .headers()
                    .get_all(header::WWW_AUTHENTICATE)
                    .iter()
                    .filter_map(|value| value.to_str().ok()),
            );
            let Some(challenge) = challenge else { return self.success(response, what).await };
            // Of several requests that are refused at once, the first gets a token for all.
            let mut current = self.authorization.lock().await;
            if *current == authorization {
                match self.authorize(&challenge).await? {
                    Some(new) => *current = Some(new),
                    None => return self.success(response, what).await,
                }
            }
        }
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let limit = self.options.network.connect + self.options.network.stall;
        match timeout(limit, request.send()).await {
            Err(_) => Err(self.stalled()),
            Ok(Ok(response)) => {
                self.answered.store(true, Ordering::Relaxed);
                Ok(response)
            }
            Ok(Err(source)) if source.is_redirect() => {
                Err(self.protocol(format!("its redirection: {}", innermost(&source))).into())
            }
            Ok(Err(source)) => {
                // One that never answered is rather named wrongly than busy, which is better said at once.
                let again = if self.answered.load(Ordering::Relaxed) { Again::Backoff } else { Again::Never };
                let (registry, source) = (self.name.clone(), source.without_url());
                Err(Failure {
                    error: Box::new(RegistryError::Unreachable { registry, source }.into()),
                    again,
                })
            }
        }
    }

    /// Gets what the challenge asks for; `None` if there is nothing that would answer it.
    async fn authorize(&self, challenge: &Challenge) -> Result<Option<Authorization>, Failure> {
        let (realm, service, scope) = match challenge {
            Challenge::Basic => return Ok(self.credential.as_ref().and_then(Authorization::of)),
            Challenge::Bearer { realm, service, scope } => (realm, service, scope),
        };
        let mut url: Url =
            realm.parse().map_err(|_| self.protocol(format!("the token realm {realm:?} is no URL")))?;
        let local = url.host_str().is_some_and(is_loopback);
        if !(url.scheme() == "https" || url.scheme() == "http" && (local || self.options.insecure)) {
            return Err(self.protocol(format!("the token realm {realm:?} is not HTTPS")).into());
        }
        // A registry on this machine is trusted without a certificate; a realm elsewhere is not.
        let client =
            if local || self.options.insecure { self.client.clone() } else { self.strict_client().await? };
        let pull = || format!("repository:{}:pull", self.repository);
        let scope = scope.clone().or_else(|| (!self.repository.is_empty()).then(pull));
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        pairs.extend(service.as_deref().map(|service| ("service", service)));
        pairs.extend(scope.as_deref().map(|scope| ("scope", scope)));
        let request = match &self.credential {
            Some(Credential::IdentityToken(token)) => {
                pairs.extend([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("client_id", "cellule"),
                ]);
                let mut form = Url::parse("form:").map_err(|error| self.protocol(error.to_string()))?;
                let body = form
                    .query_pairs_mut()
                    .extend_pairs(pairs)
                    .finish()
                    .query()
                    .unwrap_or_default()
                    .to_owned();
                client.post(url).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
            }
            credential => {
                url.query_pairs_mut().extend_pairs(pairs);
                let request = client.get(url);
                match credential.as_ref().and_then(Authorization::of) {
                    Some(basic) => request.header(header::AUTHORIZATION, basic.0),
                    None => request,
                }
            }
        };
        let response = self.success(self.answer(request).await?, "token").await?;
        let body = self.small_body(response, MAX_TOKEN_BODY, "token").await?;
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|error| self.protocol(format!("the token is malformed: {error}")))?;
        let token = answer.token().ok_or_else(|| self.protocol("the token is empty".into()))?;
        Ok(Some(Authorization::bearer(&token)))
    }

    async fn strict_client(&self) -> Result<Client> {
        let options = self.options.clone();
        blocking(move || http_client(false, &options)).await
    }

    /// Turns answers that are no success to failures.
    async fn success(&self, response: Response, what: &str) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = text_header(response.headers(), header::RETRY_AFTER.as_str())
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs);
        let body = self.small_body(response, MAX_ERROR_BODY, what).await.unwrap_or_default();
        let (registry, what, detail) = (self.name.clone(), what.to_owned(), detail(&body));
        let later = retry_after.map_or(Again::Backoff, Again::After);
        let (error, again) = match status.as_u16() {
            status @ (401 | 403) => {
                let authenticated = self.credential.is_some();
                (RegistryError::Denied { registry, what, status, authenticated, detail }, Again::Never)
            }
            404 => (RegistryError::NotFound { registry, what, detail }, Again::Never),
            429 => (RegistryError::RateLimited { registry, retry_after, detail }, later),
            status @ (408 | 500..=599) => {
                (RegistryError::ServerError { registry, status, attempts: 1, detail }, later)
            }
            status => (self.protocol(format!("status {status} for {what} {detail}")), Again::Never),
        };
        Err(Failure { error: Box::new(error.into()), again })
    }

    /// Reads a body of at most `limit` bytes, all of which has to come before a stall would be declared.
    pub(super) async fn small_body(
        &self,
        mut response: Response,
        limit: u64,
        what: &str,
    ) -> Result<Vec<u8>, Failure> {
        let read = async {
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|source| self.interrupted(source))? {
                body.extend_from_slice(&chunk);
                let actual = body.len() as u64;
                if actual > limit {
                    let what = format!("{what} from {}", self.name);
                    return Err(Error::Limit { what, field: "bytes or more", actual, allowed: limit }.into());
                }
            }
            Ok(body)
        };
        timeout(self.options.network.stall, read).await.unwrap_or_else(|_| Err(self.stalled()))
    }

    pub(super) fn protocol(&self, detail: String) -> RegistryError {
        RegistryError::Protocol { registry: self.name.clone(), detail }
    }

    pub(super) fn stalled(&self) -> Failure {
        let (registry, limit) = (self.name.clone(), self.options.network.stall);
        Failure::passing(RegistryError::Stalled { registry, limit })
    }

    pub(super) fn interrupted(&self, source: reqwest::Error) -> Failure {
        let (registry, source) = (self.name.clone(), source.without_url());
        Failure::passing(RegistryError::Interrupted { registry, source })
    }
}

pub(super) fn http_client(lenient: bool, options: &Options) -> Result<Client> {
    // reqwest asks for the process's provider. If another part of the program has chosen one, that is as good.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let insecure = options.insecure;
    let redirects = redirect::Policy::custom(move |attempt| {
        let plain = attempt.url().scheme() != "https";
        let local = attempt.url().host_str().is_some_and(is_loopback);
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("there are too many of them")
        } else if plain && !insecure && !(lenient && local) {
            attempt.error("it leads to a URL that is not HTTPS")
        } else {
            attempt.follow()
        }
    });
    let builder = Client::builder()
        .user_agent(concat!("cellule/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.network.connect)
        .redirect(redirects)
        .retry(reqwest::retry::never())
        .tls_danger_accept_invalid_certs(lenient);
    Ok(builder.build().map_err(|source| RegistryError::Tls { source })?)
}

pub(super) fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(|text| text.trim().to_owned())
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What a registry says of an error, made fit for a terminal: one line, bounded.
fn detail(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(default)]
        message: String,
    }
    let message = serde_json::from_slice::<Errors>(body)
        .ok()
        .and_then(|errors| errors.errors.into_iter().next())
        .map(|item| item.message)
        .unwrap_or_default();
    message.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect()
}
