//! `--filter KEY=VALUE`, as Docker has it: values of one key are alternatives, but for labels, of which all must be there.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::failure::Failure;

/// One filter as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    key: String,
    value: String,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_ascii_lowercase(), value: value.to_owned() })
            }
            _ => Err("write it as KEY=VALUE".to_owned()),
        }
    }
}

/// All filters of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filters<'a>(&'a [Filter]);

impl<'a> Filters<'a> {
    /// Takes those that have one of these keys.
    ///
    /// # Errors
    /// One has another key.
    pub(crate) fn check(filters: &'a [Filter], keys: &[&str]) -> Result<Self, Failure> {
        match filters.iter().find(|filter| !keys.contains(&filter.key.as_str())) {
            Some(unknown) => Err(Failure::new(format!("there is no filter {:?}", unknown.key))
                .hint(format!("filters are {}", keys.join(", ")))),
            None => Ok(Self(filters)),
        }
    }

    /// The values of a key.
    pub(crate) fn values(self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |filter| filter.key == key).map(|filter| filter.value.as_str())
    }

    /// Whether a key is filtered by at all.
    pub(crate) fn has(self, key: &str) -> bool {
        self.values(key).next().is_some()
    }

    /// Whether no value is asked for of a key, or one that fits.
    pub(crate) fn any(self, key: &str, mut fits: impl FnMut(&str) -> bool) -> bool {
        !self.has(key) || self.values(key).any(&mut fits)
    }

    /// Whether all labels that are asked for are there, each as `NAME` or `NAME=VALUE`.
    pub(crate) fn labels(self, labels: &BTreeMap<String, String>) -> bool {
        self.values("label").all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|label| label == value),
            None => labels.contains_key(wanted),
        })
    }
}

/// Whether an image goes by this name: with or without its tag, or as the beginning of its digest.
pub(crate) fn names_image(wanted: &str, name: &str, digest: &str) -> bool {
    let digits = digest.split_once(':').map_or(digest, |(_, digits)| digits);
    let wanted_digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    // The tag is what stands behind the last colon, unless that belongs to a registry's port.
    let repository =
        name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map(|(repository, _)| repository);
    let latest = wanted.strip_suffix(":latest");
    name == wanted
        || repository == Some(wanted)
        || latest == Some(name)
        || (wanted_digits.len() >= 4 && digits.starts_with(wanted_digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(words: &[&str]) -> Vec<Filter> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_known() {
        let typed = filters(&["name=a", "colour=red"]);
        let failure = Filters::check(&typed, &["name", "id"]).unwrap_err().render();
        assert!(failure.contains("\"colour\"") && failure.contains("name, id"), "{failure}");
        assert!(Filters::check(&typed, &["name", "colour"]).is_ok());
        for bad in ["", "name", "=x"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn values_of_a_key_are_alternatives_and_labels_are_all_meant() {
        let typed = filters(&["name=a", "NAME=b", "label=x", "label=y=1"]);
        let filters = Filters::check(&typed, &["name", "label"]).unwrap();
        assert!(filters.any("name", |value| value == "b"));
        assert!(!filters.any("name", |value| value == "c"));
        assert!(filters.any("id", |_| false), "nobody asked for an id");
        let labels = |list: &[(&str, &str)]| {
            filters.labels(&list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
        };
        assert!(labels(&[("x", ""), ("y", "1"), ("z", "")]));
        assert!(!labels(&[("x", ""), ("y", "2")]));
        assert!(!labels(&[("y", "1")]));
    }

    #[test]
    fn an_image_goes_by_its_name_with_and_without_a_tag_and_by_its_digest() {
        let digest = "sha256:0123456789abcdef";
        for (wanted, name, fits) in [
            ("debian", "debian:12", true),
            ("debian:12", "debian:12", true),
            ("debian:11", "debian:12", false),
            ("debian:latest", "debian", true),
            ("deb", "debian", false),
            ("localhost", "localhost:5000/app", false),
            ("localhost:5000/app", "localhost:5000/app:1", true),
            ("0123456", "x", true),
            ("sha256:0123456789abcdef", "x", true),
            ("012", "x", false),
        ] {
            assert_eq!(names_image(wanted, name, digest), fits, "{wanted} {name}");
        }
    }
}
