//! The configuration document of an image: how its command is run, and what its layers unpack to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Digest, Platform};

/// How an image wants its command run. Fields bear the specification's names when serialised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// What is run; the command is appended to it.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The default command, or the entrypoint's default arguments.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// The environment, each `NAME=value`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers; empty is root.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The working directory; empty is `/`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Absolute paths that the image wants to be volumes.
    #[serde(with = "keys", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// Ports that the image listens on, each `port[/protocol]`.
    #[serde(with = "keys", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// Labels.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the command to stop, such as `SIGTERM` or `15`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// The whole configuration document, whose digest is the image's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    #[serde(flatten)]
    platform: RawPlatform,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) config: ImageConfig,
    pub(crate) rootfs: RootfsSection,
}

/// The platform as the document has it, which need not be in normal form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RawPlatform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

/// The digests of the uncompressed layers, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootfsSection {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) diff_ids: Vec<Digest>,
}

impl ConfigFile {
    /// The document of an image that is made here. It has no time in it, so equal input makes an equal image.
    pub(crate) fn new(platform: &Platform, config: ImageConfig, diff_ids: Vec<Digest>) -> Self {
        let platform = RawPlatform {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
        };
        Self { created: None, platform, config, rootfs: RootfsSection { kind: "layers".into(), diff_ids } }
    }

    pub(crate) fn platform(&self) -> Platform {
        Platform::new(&self.platform.os, &self.platform.architecture, self.platform.variant.as_deref())
    }
}

/// Go writes an empty slice, map or object as `null`.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A set, written as an object with empty objects for values.
mod keys {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(serde::Serialize)]
    struct Empty {}

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(set.iter().map(|key| (key, Empty {})))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<String>, D::Error> {
        // What the values hold means nothing.
        let map = Option::<BTreeMap<String, serde_json::Value>>::deserialize(from)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_full_of_nulls_is_an_empty_config() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Entrypoint":null,"Cmd":null,"Env":null,
            "User":null,"WorkingDir":null,"Volumes":null,"ExposedPorts":null,"Labels":null,"StopSignal":null},
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let file: ConfigFile = serde_json::from_str(text).unwrap();
        assert_eq!(file.config, ImageConfig::default());
        let file: ConfigFile = serde_json::from_str(r#"{"os":"linux","config":null,"rootfs":{}}"#).unwrap();
        assert_eq!(file.config, ImageConfig::default());
    }

    #[test]
    fn a_config_survives_a_round_trip() {
        let text = r#"{"Entrypoint":["/init"],"Cmd":["a b"],"Env":["A=1"],"User":"me","WorkingDir":"/w",
            "Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}},"Labels":{"k":"v"},"StopSignal":"SIGINT"}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.volumes, BTreeSet::from(["/data".to_owned()]));
        let again = serde_json::to_value(&config).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
    }

    #[test]
    fn a_config_of_the_wrong_shape_is_refused() {
        for text in
            ["[]", "{}", r#"{"rootfs":{"diff_ids":["x"]}}"#, r#"{"rootfs":{},"config":{"Env":"A=1"}}"#]
        {
            assert!(serde_json::from_str::<ConfigFile>(text).is_err(), "{text}");
        }
    }
}
