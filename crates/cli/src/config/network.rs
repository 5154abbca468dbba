//! What the file says of networks.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::num::NonZeroU64;

use cellule::network::{Base, Rule};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use crate::network_options::{chain, parse_bandwidth, parse_server};

/// Of how sandboxes reach others. Ways into one are no matter for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NetworkDefaults {
    /// What is so where no rule matches.
    #[serde(deserialize_with = "base")]
    pub(crate) network: Option<Base>,
    /// Rules behind those of the command line.
    #[serde(deserialize_with = "rules")]
    pub(crate) rules: Vec<Rule>,
    /// Name servers in place of the host's.
    #[serde(deserialize_with = "servers")]
    pub(crate) dns: Vec<SocketAddr>,
    /// Where short names are looked for, if there are such servers.
    pub(crate) dns_search: Vec<String>,
    #[serde(deserialize_with = "bandwidth")]
    pub(crate) bandwidth: Option<u64>,
    #[serde(deserialize_with = "rate")]
    pub(crate) connection_rate: Option<u64>,
}

/// A text of which something is made; an error has the place of the text in the file.
struct Text<T>(T);

/// What can be written as a text.
trait Parse: Sized {
    fn parse(text: &str) -> Result<Self, String>;
}

/// Reads one; what is said while it is read has its place, what is said afterwards the place of the whole list.
struct Reader<T>(PhantomData<T>);

impl<T: Parse> Visitor<'_> for Reader<T> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<T>, E> {
        T::parse(text).map(Text).map_err(|why| E::custom(format!("{text:?}: {why}")))
    }
}

impl<'de, T: Parse> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Reader(PhantomData))
    }
}

impl Parse for Base {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| chain(&error))
    }
}

impl Parse for Rule {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| chain(&error))
    }
}

impl Parse for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        parse_server(text)
    }
}

fn base<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Base>, D::Error> {
    Text::deserialize(from).map(|Text(base)| Some(base))
}

fn rules<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Rule>, D::Error> {
    all(from)
}

fn servers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    all(from)
}

fn all<'de, T: Parse, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<Text<T>>::deserialize(from)?;
    Ok(texts.into_iter().map(|Text(one)| one).collect())
}

fn bandwidth<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(from)?;
    parse_bandwidth(&text).map(Some).map_err(serde::de::Error::custom)
}

fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    NonZeroU64::deserialize(from).map(|rate| Some(rate.get()))
}
