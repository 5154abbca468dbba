//! What a user always wants: the configuration file. An option on the command line wins over it.
//!
//! ```toml
//! [templates]
//! cache = "8g"        # what all templates together may take on disk
//!
//! [network]           # of sandboxes that are made, and of `cellule network set`; one from a snapshot has the snapshot's
//! network = "public"  # as --network; an --allow on the command line refuses the rest all the same
//! rules = ["allow 10.1.2.3:5432", "deny *.example.com"]   # behind those of the command line: the first that matches decides
//! dns = ["192.0.2.53"]
//! dns_search = ["example.com"]
//! bandwidth = "10m"
//! connection_rate = 100
//! ```
//! It is `$CELLULE_CONFIG`, else `cellule/config.toml` in `$XDG_CONFIG_HOME`, else in `~/.config`; root's and everyone's is
//! `/etc/cellule/config.toml`. The first that is there is read, and no other.

mod network;

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use cellule::Builder;
use serde::{Deserialize, Deserializer};

pub(crate) use self::network::NetworkDefaults;
use crate::failure::Failure;
use crate::quantity;

/// Far above any that somebody wrote.
const MAX: u64 = 1 << 20;

/// The file, as far as somebody wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) templates: Templates,
    pub(crate) network: NetworkDefaults,
}

/// Of the machines that sandboxes start from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Templates {
    #[serde(deserialize_with = "size")]
    cache: Option<u64>,
}

impl Config {
    /// Reads the file that is there; without one nothing is wanted.
    pub(crate) fn read() -> Result<Self, Failure> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        for (path, must) in places(set) {
            let text = match read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !must => continue,
                text => text,
            };
            let text =
                text.map_err(|error| Failure::because(format!("cannot read {}", path.display()), &error))?;
            return Self::parse(&text).map_err(|error| {
                Failure::new(format!("{} is not a configuration", path.display()))
                    .detail("what is wrong with it", &error.to_string())
            });
        }
        Ok(Self::default())
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let this: Self = toml::from_str(text)?;
        if this.network.dns.is_empty() && !this.network.dns_search.is_empty() {
            return Err(serde::de::Error::custom(
                "dns_search of [network] goes with dns, which is not there",
            ));
        }
        Ok(this)
    }

    /// What all templates together may take on disk.
    pub(crate) fn template_cache(&self) -> u64 {
        self.templates.cache.unwrap_or(Builder::DEFAULT_TEMPLATE_CACHE)
    }
}

/// Where it may be, and whether it must be there.
fn places(set: impl Fn(&str) -> Option<OsString>) -> Vec<(PathBuf, bool)> {
    if let Some(path) = set("CELLULE_CONFIG") {
        return vec![(path.into(), true)];
    }
    let of_user = set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".config")))
        .map(|dir| (dir.join("cellule/config.toml"), false));
    of_user.into_iter().chain([(PathBuf::from("/etc/cellule/config.toml"), false)]).collect()
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(from)?;
    quantity::parse_size(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_file_is_as_without_one() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        assert_eq!(Config::parse("").unwrap().template_cache(), Builder::DEFAULT_TEMPLATE_CACHE);
        assert_eq!(Config::parse("[templates]\ncache = \"8g\"\n").unwrap().template_cache(), 8 << 30);
    }

    #[test]
    fn a_network_is_written_as_on_the_command_line() {
        let text = "[network]\nnetwork = \"none\"\nrules = [\"deny 10.0.0.0/8\", \"allow *.example.com\"]\n\
                    dns = [\"192.0.2.53\"]\ndns_search = [\"example.com\"]\nbandwidth = \"10m\"\nconnection_rate = 5";
        let network = Config::parse(text).unwrap().network;
        let rules: Vec<String> = network.rules.iter().map(ToString::to_string).collect();
        assert_eq!(rules, ["deny 10.0.0.0/8", "allow *.example.com"]);
        assert_eq!(network.dns, ["192.0.2.53:53".parse().unwrap()]);
        assert_eq!((network.bandwidth, network.connection_rate), (Some(10 << 20), Some(5)));
    }

    #[test]
    fn what_nobody_knows_is_refused_with_its_line() {
        for (text, words) in [
            ("[templates]\ncahce = \"8g\"", "cahce"),
            ("[template]", "template"),
            ("[templates]\ncache = \"much\"", "much"),
            ("[templates]\ncache = 8", "8"),
            ("[network]\n\nnetwork = \"open\"", "line 3"),
            ("[network]\nnetwork = \"open\"", "none, public and all"),
            ("[network]\nrules = [\n  \"deny 10.0.0.0/8\",\n  \"allow 10.0.0.1/8\",\n]", "line 4"),
            ("[network]\nrules = [\"allow 10.0.0.1/8\"]", "10.0.0.0/8"),
            ("[network]\nrules = [\"example.com\"]", "allow"),
            ("[network]\ndns = [\"somewhere\"]", "192.0.2.53"),
            ("[network]\nbandwidth = \"0\"", "nothing would ever pass"),
            ("[network]\nconnection_rate = 0", "nonzero"),
            ("[network]\npublish = []", "publish"),
            ("[network]\ndns_search = [\"a.b\"]", "goes with dns"),
            ("templates", "1"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn the_first_that_is_there_is_read() {
        let with = |values: &[(&str, &str)]| {
            let values: Vec<_> =
                values.iter().map(|(name, value)| (name.to_string(), OsString::from(value))).collect();
            let set =
                |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            places(set).into_iter().map(|(path, must)| (path.display().to_string(), must)).collect::<Vec<_>>()
        };
        let everyones = ("/etc/cellule/config.toml".to_owned(), false);
        assert_eq!(with(&[("CELLULE_CONFIG", "/c"), ("HOME", "/h")]), [("/c".to_owned(), true)]);
        assert_eq!(
            with(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]),
            [("/x/cellule/config.toml".to_owned(), false), everyones.clone()]
        );
        assert_eq!(with(&[("HOME", "/h")])[0].0, "/h/.config/cellule/config.toml");
        assert_eq!(with(&[]), [everyones]);
    }
}
