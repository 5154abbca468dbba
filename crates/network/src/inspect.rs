//! Owns the look at what a guest says first on a connection, where what it may reach depends on a name: the server name of TLS, the
//! host of HTTP.
//!
//! An address may be many names', one of them allowed. So what a client says whom it wants to talk to is held to the same rules as the
//! name that it looked up; on every port, for a guest chooses the port. Nothing of what it says is passed on before. TLS says it once;
//! HTTP with each request, of which the first is looked at here, and the others where they pass (`requests`).
//!
//! Servers are generous, each in its own way: some skip blanks before a request, some an alert before TLS. What one of them may take
//! for either is not passed on as something else; where rules have names, it is refused if it cannot be read here, as is HTTP/2 in the clear.
//!
//! Under an allow-list this is strict: TLS without a server name or with an encrypted one (ECH, which hides the name that counts, and
//! whose decoys look the same) is refused. What is neither TLS nor HTTP passes, to addresses of allowed names only: there is no name in it
//! to be held to.

mod hello;
mod http;

use std::net::IpAddr;
use std::time::{Duration, Instant};

pub(crate) use self::http::host;
use crate::policy::{Name, Policy};

/// How long a guest may take from the first byte to the last that is needed.
const WITHIN: Duration = Duration::from_secs(10);
/// The same where nothing is refused, for what does not begin like TLS.
const BRIEFLY: Duration = Duration::from_secs(1);
/// How long what it says first may be.
pub(crate) const LONGEST: usize = 64 << 10;

/// What was found in the first bytes.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// It takes more to tell.
    Incomplete,
    /// A TLS client's first message.
    Tls { server: Option<Name>, encrypted: bool },
    /// A request.
    Http { host: Option<Name> },
    /// HTTP/2 without TLS.
    Http2,
    /// It begins like one of those, and is not: another reader might take it for one all the same.
    Broken,
    /// Something else.
    Other,
}

/// What a connection is that may go on, and the name that it showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// TLS, to this server.
    Tls(Option<Name>),
    /// HTTP in the clear, of which the first request is for this host.
    Http(Option<Name>),
    /// Something else, in which there is no name.
    Other,
}

/// What is not let through: the name that it showed, and why.
pub(crate) type Refused = (Option<Name>, String);

/// What is done with the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// More must be said.
    Wait,
    /// It may go on.
    Passes(Spoken),
    /// It may not.
    Refused(Refused),
}

/// A look that is to be taken.
#[derive(Debug)]
pub(crate) struct Inspection {
    /// Whether only names make it allowed.
    by_name: bool,
    /// Whether what it shows is held to rules. Else it is looked at for the hosts of secrets alone.
    has_rules: bool,
    deadline: Option<Instant>,
}

impl Inspection {
    /// The look that is needed, if any, at a connection that was allowed.
    pub(crate) fn needed(policy: &Policy, by_name: bool, has_secrets: bool) -> Option<Self> {
        let has_rules = by_name || policy.has_name_rules();
        (has_rules || has_secrets).then_some(Self { by_name, has_rules, deadline: None })
    }

    /// The look that finds the hosts of secrets, if there are any, where everything is allowed.
    pub(crate) fn of_secrets(has_secrets: bool) -> Option<Self> {
        has_secrets.then_some(Self { by_name: false, has_rules: false, deadline: None })
    }

    /// Whether only names make the connection allowed, where all its requests are to be held to the rules.
    pub(crate) fn of_requests(&self) -> Option<bool> {
        self.has_rules.then_some(self.by_name)
    }

    /// When it is over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Looks at all that was said so far. `is_whole`: there will be no more. `judge` says why a name may not be talked to there.
    pub(crate) fn look(
        &mut self,
        said: &[u8],
        is_whole: bool,
        judge: impl Fn(&Name) -> Result<(), String>,
    ) -> Verdict {
        if said.is_empty() {
            // A server may speak first, and a client never.
            return if is_whole { Verdict::Passes(Spoken::Other) } else { Verdict::Wait };
        }
        let within = if self.has_rules || said.first() == Some(&hello::RECORD) { WITHIN } else { BRIEFLY };
        let late = *self.deadline.get_or_insert_with(|| Instant::now() + within) <= Instant::now();
        let refused = |name, why: &str| Verdict::Refused((name, why.to_owned()));
        match see(said) {
            Seen::Incomplete if !is_whole && !late && said.len() < LONGEST => Verdict::Wait,
            Seen::Incomplete | Seen::Broken | Seen::Http2 if !self.has_rules => {
                Verdict::Passes(Spoken::Other)
            }
            Seen::Incomplete | Seen::Broken => {
                refused(None, "it begins like TLS or HTTP, and cannot be read")
            }
            Seen::Tls { encrypted: true, server } if self.by_name => refused(
                server,
                "the TLS server's name is encrypted (ECH), so that it cannot be held to the rules",
            ),
            Seen::Tls { server: None, .. } if self.by_name => {
                refused(None, "the TLS client names no server, so that there is no name to hold to the rules")
            }
            Seen::Http2 => {
                refused(None, "HTTP/2 without TLS is not read, so that it cannot be held to the rules")
            }
            Seen::Tls { server: Some(name), .. } => match judged(&name, "the TLS server's name", judge) {
                Ok(()) => Verdict::Passes(Spoken::Tls(Some(name))),
                Err(why) => Verdict::Refused((Some(name), why)),
            },
            Seen::Http { host } => match hold(host.as_ref(), self.by_name, judge) {
                Ok(()) => Verdict::Passes(Spoken::Http(host)),
                Err(why) => Verdict::Refused((host, why)),
            },
            Seen::Tls { server: None, .. } => Verdict::Passes(Spoken::Tls(None)),
            Seen::Other => Verdict::Passes(Spoken::Other),
        }
    }
}

/// Holds the host of a request to the rules; the error says why it is refused. It must have one if `by_name`.
pub(crate) fn hold(
    host: Option<&Name>,
    by_name: bool,
    judge: impl Fn(&Name) -> Result<(), String>,
) -> Result<(), String> {
    match host {
        None if by_name => {
            Err("the request names no host, so that there is no name to hold to the rules".to_owned())
        }
        None => Ok(()),
        Some(name) => judged(name, "the request's host", judge),
    }
}

fn judged(name: &Name, what: &str, judge: impl Fn(&Name) -> Result<(), String>) -> Result<(), String> {
    judge(name).map_err(|why| format!("{what} is {name}: {why}"))
}

/// A host as clients write it; an address is no name.
fn name(text: &str) -> Result<Option<Name>, ()> {
    if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    Name::from_wire(text.as_bytes()).map(Some).map_err(drop)
}

/// Reads the first bytes.
fn see(said: &[u8]) -> Seen {
    match said {
        [hello::RECORD, ..] => hello::read(said),
        // An alert, which some servers skip, or another record that no client begins with; and a client's first message in the form of
        // SSL 2, which names no server.
        [20 | 21 | 23, 3, ..] | [0x80..=0xff, _, 1, 0 | 3, ..] => Seen::Broken,
        [20 | 21 | 23 | 0x80..=0xff] | [0x80..=0xff, _] | [0x80..=0xff, _, 1] => Seen::Incomplete,
        _ => http::read(said),
    }
}

/// The name that first bytes show, if they show one.
#[cfg(fuzzing)]
pub fn shown(said: &[u8]) -> Option<Name> {
    match see(said) {
        Seen::Tls { server, .. } => server,
        Seen::Http { host } => host,
        _ => None,
    }
}

#[cfg(test)]
mod tests;
