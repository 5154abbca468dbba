//! Owns what a user says of a secret: `NAME=SOURCE@host[,host]`. No value is kept here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::secret::{Secret, SecretError};
use crate::policy::{Name, Pattern, PatternError};

/// The longest name of a variable.
const LONGEST_NAME: usize = 255;
/// The most hosts of one secret.
const MOST_HOSTS: usize = 64;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// `env:VAR`: a variable of who starts the sandbox.
    Env(String),
    /// `file:PATH`: a file, without the end of its last line.
    File(PathBuf),
    /// `cmd:COMMAND`: what a command of the shell's writes, again before it expires.
    Command(String),
    /// `value:TEXT`: the text, which is kept beside this and not in it.
    Value,
}

/// A secret: where its value comes from, and who is to get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct SecretSpec {
    /// The variable in the guest that holds the placeholder.
    pub name: String,
    /// Where the value comes from.
    pub source: Source,
    /// The hosts that get the value; there is at least one.
    pub hosts: Vec<Pattern>,
    /// Whether the placeholder is looked for in bodies of requests too.
    pub in_body: bool,
}

/// What was typed for a secret: what may be written down, and what must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretArgument {
    /// What may be written down.
    pub spec: SecretSpec,
    /// The text of `value:`.
    pub value: Option<Secret>,
}

/// Why a text says no secret. No message repeats any of it, for any of it may be the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// There is no `=`, or nothing like a variable before it.
    #[error("it does not begin with the name of a variable and =, as in TOKEN=env:TOKEN@example.com")]
    Name,
    /// What follows the `=` is no source.
    #[error("what follows the = begins with none of env:, file:, cmd: and value:")]
    Source,
    /// `env:` without a variable.
    #[error("what follows env: is not the name of a variable")]
    Variable,
    /// `file:` or `cmd:` with nothing.
    #[error("the source is empty")]
    Empty,
    /// There is no `@`, or nothing after it.
    #[error(
        "it names no host: @ and one or more hosts must follow the source, as in @example.com,*.example.com"
    )]
    Hosts,
    /// Far too many.
    #[error("it names more than {MOST_HOSTS} hosts")]
    ManyHosts,
    /// One of them is none.
    #[error("what follows the last @ is not a list of hosts")]
    Host(#[source] PatternError),
    /// The value itself.
    #[error("its value cannot be used")]
    Value(#[source] SecretError),
}

impl SecretSpec {
    /// Whether a host gets the value.
    pub fn is_for(&self, host: &Name) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

impl FromStr for SecretArgument {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (name, rest) = text.split_once('=').ok_or(SpecError::Name)?;
        if !is_variable(name) {
            return Err(SpecError::Name);
        }
        let (kind, rest) = rest.split_once(':').ok_or(SpecError::Source)?;
        // A value may have an @, a host has none.
        let split = rest.rsplit_once('@');
        let source = split.map_or(rest, |(source, _)| source);
        let (source, value) = match kind {
            "env" if is_variable(source) => (Source::Env(source.to_owned()), None),
            "env" => return Err(SpecError::Variable),
            "file" | "cmd" if source.is_empty() => return Err(SpecError::Empty),
            "file" => (Source::File(source.into()), None),
            "cmd" => (Source::Command(source.to_owned()), None),
            "value" => {
                let value = Secret::new(source.as_bytes().to_vec()).map_err(SpecError::Value)?;
                (Source::Value, Some(value))
            }
            _ => return Err(SpecError::Source),
        };
        let hosts = split.map_or("", |(_, hosts)| hosts);
        let hosts = hosts_of(hosts.split(','))?;
        let spec = SecretSpec { name: name.to_owned(), source, hosts, in_body: false };
        Ok(Self { spec, value })
    }
}

fn hosts_of<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<Pattern>, SpecError> {
    let mut hosts = Vec::new();
    for text in texts.map(str::trim).filter(|text| !text.is_empty()) {
        if hosts.len() == MOST_HOSTS {
            return Err(SpecError::ManyHosts);
        }
        hosts.push(text.parse().map_err(SpecError::Host)?);
    }
    if hosts.is_empty() { Err(SpecError::Hosts) } else { Ok(hosts) }
}

fn is_variable(name: &str) -> bool {
    let begins = name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    begins
        && name.len() <= LONGEST_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// As it is written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    source: Source,
    hosts: Vec<String>,
    #[serde(default)]
    in_body: bool,
}

impl From<SecretSpec> for Text {
    fn from(spec: SecretSpec) -> Self {
        let SecretSpec { name, source, hosts, in_body } = spec;
        Self { name, source, hosts: hosts.iter().map(ToString::to_string).collect(), in_body }
    }
}

impl TryFrom<Text> for SecretSpec {
    type Error = SpecError;

    fn try_from(text: Text) -> Result<Self, SpecError> {
        let Text { name, source, hosts, in_body } = text;
        if !is_variable(&name) {
            return Err(SpecError::Name);
        }
        let hosts = hosts_of(hosts.iter().map(String::as_str))?;
        Ok(Self { name, source, hosts, in_body })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(variable) => write!(f, "env:{variable}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Command(command) => write!(f, "cmd:{command}"),
            Self::Value => f.write_str("value:…"),
        }
    }
}
