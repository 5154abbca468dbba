//! Authentication: what a registry asks for with 401, and how it is got.
//!
//! ```text
//! 401 Basic   ──► name and password with each request
//! 401 Bearer  ──► the realm is asked for a token, with name and password, identity token, or anonymously
//!                 ──► the token with each request, until the next 401
//! ```

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::Credential;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The value of an `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authorization(pub(super) String);

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(…)")
    }
}

impl Authorization {
    pub(super) fn basic(username: &str, password: &str) -> Self {
        Self(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
    }

    pub(super) fn bearer(token: &str) -> Self {
        Self(format!("Bearer {token}"))
    }

    /// What can be sent in answer to a Basic challenge.
    pub(super) fn of(credential: &Credential) -> Option<Self> {
        match credential {
            Credential::Password { username, password } => Some(Self::basic(username, password)),
            Credential::IdentityToken(_) => None,
        }
    }
}

/// A realm's answer; its names differ between token servers.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl TokenAnswer {
    pub(super) fn token(self) -> Option<String> {
        [self.token, self.access_token].into_iter().find(|token| !token.is_empty())
    }
}

impl Challenge {
    /// The first usable challenge of a `WWW-Authenticate` header; Bearer counts before Basic.
    pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut found = None;
        for header in headers {
            let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                let mut parameters = parameters(rest);
                if let Some(realm) = parameters.remove("realm") {
                    let (service, scope) = (parameters.remove("service"), parameters.remove("scope"));
                    return Some(Self::Bearer { realm, service, scope });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                found = Some(Self::Basic);
            }
        }
        found
    }
}

/// `name="value", name=value`; what is malformed ends the list.
fn parameters(mut text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    while let Some((name, rest)) = text.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let (value, after) = if let Some(quoted) = rest.strip_prefix('"') {
            unquote(quoted)
        } else {
            let (value, after) = rest.split_once(',').unwrap_or((rest, ""));
            (value.trim().to_owned(), after)
        };
        text = after;
        found.entry(name).or_insert(value);
    }
    found
}

/// The text up to the closing quote, and what follows that.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    (value, chars.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bearer_challenge_is_taken_apart() {
        let header =
            r#"Bearer realm="https://auth.example/token",service="a, b",scope="repository:x/y:pull""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: Some("a, b".into()),
            scope: Some("repository:x/y:pull".into()),
        };
        assert_eq!(Challenge::parse(["Basic realm=x", header].into_iter()), Some(expected));
        assert_eq!(Challenge::parse(["basic realm=\"x\""].into_iter()), Some(Challenge::Basic));
        let unquoted =
            Challenge::Bearer { realm: "https://r".into(), service: Some("s".into()), scope: None };
        assert_eq!(Challenge::parse(["bearer realm=https://r, service=s"].into_iter()), Some(unquoted));
    }

    #[test]
    fn a_challenge_of_another_kind_is_none() {
        for header in ["", "Bearer", "Bearer service=\"x\"", "Negotiate abc", "Bearer realm"] {
            assert_eq!(Challenge::parse([header].into_iter()), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(text in r#"(Bearer )?[a-z=",\\ é]{0,40}"#) {
            let _ = Challenge::parse([text.as_str()].into_iter());
        }
    }
}
