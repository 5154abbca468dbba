//! References to images in registries, by Docker's rules.
//!
//! ```text
//! [registry[:port]/]path[:tag][@sha256:hex]
//! ```
//! The part before the first `/` is a registry if it has a `.` or a `:`, is `localhost`, or has a capital letter;
//! otherwise it belongs to the path, and the registry is `docker.io`, where a path of one component gets
//! `library/` before it. With neither tag nor digest the tag is `latest`.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::Digest;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_REGISTRY_HOST: &str = "registry-1.docker.io";
const DEFAULT_TAG: &str = "latest";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A reference in its complete form: nothing is left to a default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The part of a reference that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferencePart {
    /// The host and port of the registry.
    Registry,
    /// The path of the repository.
    Repository,
    /// What follows the last `:`.
    Tag,
    /// What follows `@`.
    Digest,
}

impl fmt::Display for ReferencePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registry => "registry",
            Self::Repository => "repository",
            Self::Tag => "tag",
            Self::Digest => "digest",
        })
    }
}

/// A text that is no reference, with the part that is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {input:?}: {part} {text:?} {reason}")]
pub struct InvalidReference {
    /// The whole text.
    pub input: String,
    /// The part at fault.
    pub part: ReferencePart,
    /// The text of that part.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Reference {
    /// The registry as users write it, such as `docker.io` or `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The host (and port) to connect to, which for `docker.io` is another one.
    pub fn registry_host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY { DEFAULT_REGISTRY_HOST } else { &self.registry }
    }

    /// The path of the repository, such as `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `None` where only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which where given decides alone what is pulled.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `registry/repository`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository with a digest in place of tag and digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// What a request for the manifest asks for: the digest, else the tag.
    pub(crate) fn manifest_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.as_deref().unwrap_or(DEFAULT_TAG).to_owned(),
        }
    }

    /// The short form that users know: defaults are left out, but never the tag. Parsed, it is this reference again.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(short) = full.strip_prefix("docker.io/") else { return full };
        match self.repository.split_once('/') {
            // Only a path of one component gets `library/` again, and one that looks like an id is none.
            Some(("library", path)) if !path.contains('/') && !is_image_id(path) => {
                short.strip_prefix("library/").unwrap_or(short).to_owned()
            }
            Some((first, _)) if names_a_registry(first) => full,
            _ => short.to_owned(),
        }
    }
}

/// Whether `host` (with or without port) can only be this machine, where plain HTTP is no risk.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(input: &str) -> Result<Self, InvalidReference> {
        let fault = |part, text: &str, reason| InvalidReference {
            input: input.into(),
            part,
            text: text.into(),
            reason,
        };

        let (rest, digest) = match input.split_once('@') {
            None => (input, None),
            Some((rest, text)) => {
                let digest = text.parse().map_err(|_| {
                    fault(ReferencePart::Digest, text, "is not of the form sha256:<64 lowercase hex digits>")
                })?;
                (rest, Some(digest))
            }
        };
        // A colon after the last slash starts a tag; one before it belongs to the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag).map_err(|reason| fault(ReferencePart::Tag, tag, reason))?;
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if names_a_registry(first) => (first, path),
            _ => (DEFAULT_REGISTRY, name),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        check_registry(registry).map_err(|reason| fault(ReferencePart::Registry, registry, reason))?;
        check_repository(path).map_err(|reason| fault(ReferencePart::Repository, path, reason))?;
        if registry == DEFAULT_REGISTRY && is_image_id(path) {
            return Err(fault(ReferencePart::Repository, path, "is 64 hex digits, which name an image id"));
        }
        let repository = match registry {
            DEFAULT_REGISTRY if !path.contains('/') => format!("library/{path}"),
            _ => path.to_owned(),
        };
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(fault(ReferencePart::Repository, path, "makes a name of more than 255 characters"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag,
        };
        Ok(Self { registry: registry.into(), repository, tag: tag.map(Into::into), digest })
    }
}

impl serde::Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn names_a_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_image_id(path: &str) -> bool {
    path.len() == 64 && path.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match tag.bytes().next() {
        None => Err("is empty"),
        Some(first) if !word(first) => Err("must begin with a letter, a digit or '_'"),
        Some(_) if tag.len() > MAX_TAG => Err("has more than 128 characters"),
        Some(_) if tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-')) => Ok(()),
        Some(_) => Err("may hold only letters, digits, '_', '.' and '-'"),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let (host, port) = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("has no IPv6 address in its brackets");
            }
            match rest.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if rest.is_empty() => (None, None),
                None => return Err("has something other than a port after its brackets"),
            }
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    // `u16`'s parser would also take a sign.
    if port.is_some_and(|port| port.starts_with('+') || port.parse::<u16>().is_err()) {
        return Err("has a port that is no number from 0 to 65535");
    }
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
    };
    match host {
        Some(host) if !host.split('.').all(label) => Err("is no host name"),
        _ => Ok(()),
    }
}

fn check_repository(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("is empty");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("must be lowercase");
    }
    if path.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err(
            "must be words of a-z and 0-9, joined by one '.', one or two '_', or any number of '-', between slashes",
        )
    }
}

fn is_path_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let separators = bytes.split(|b| word(*b)).filter(|run| !run.is_empty());
    let good = |run: &[u8]| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-');
    word(*first) && word(*last) && separators.into_iter().all(good)
}

#[cfg(test)]
mod tests;
