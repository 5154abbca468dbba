//! Owns what is told of secrets: what was put in where is no news, what was not is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::Name;

/// Something that a user wants to know who wonders why a host refuses a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which secret it is about, by the name of its variable.
    pub secret: Option<String>,
    /// Which host.
    pub host: Option<Name>,
    /// What it was.
    pub what: What,
}

/// What happened to a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The placeholder was sent to a host that gets other secrets, and went there as it is.
    WrongHost,
    /// The placeholder was sent without TLS, and went there as it is.
    Plain,
    /// The value is needed, and has expired.
    Expired,
    /// The value cannot be where the placeholder is: it would not be a header any more.
    Unfit,
    /// The next value could not be had; why.
    NotRefreshed(String),
    /// The server answered with the value, which was taken out.
    Scrubbed,
    /// The server encoded its answer (`Content-Encoding`), which so cannot be looked into, and was refused.
    Encoded,
    /// The server sent the value over a connection that is not HTTP any more, which was broken off.
    Leaked,
    /// The request was for another host than the connection.
    OtherHost,
    /// The server is not who it should be, or no TLS server; why.
    Unverified(String),
}

/// An event as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRecord {
    /// When it was: wall clock, nanoseconds since 1970.
    pub time_ns: i64,
    /// Which secret it is about, by the name of its variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Which host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What it was, in words.
    pub event: String,
}

impl SecretRecord {
    /// What is written down of an event of this time.
    pub fn of(event: &Event, time_ns: i64) -> Self {
        let Event { secret, host, what } = event;
        let host = host.as_ref().map(ToString::to_string);
        Self { time_ns, secret: secret.clone(), host, event: what.to_string() }
    }
}

/// Where events go. Called on the gateway's thread, which waits for it.
pub type Report = Box<dyn Fn(Event) + Send>;

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongHost => f.write_str("its placeholder was sent to a host that is none of its hosts"),
            Self::Plain => f.write_str("its placeholder was sent without TLS, and not replaced"),
            Self::Expired => f.write_str("its value has expired, and there is no other"),
            Self::Unfit => f.write_str("its value has characters that a header cannot have"),
            Self::NotRefreshed(why) => write!(f, "its next value cannot be had: {why}"),
            Self::Scrubbed => f.write_str("the server answered with its value, which was replaced"),
            Self::Encoded => f.write_str("the server encoded its answer, which was refused"),
            Self::Leaked => f.write_str("the server sent its value, and the connection was broken off"),
            Self::OtherHost => f.write_str("a request was for another host than its connection"),
            Self::Unverified(why) => write!(f, "the server cannot be trusted: {why}"),
        }
    }
}
