//! The platform of an image: operating system, architecture, variant.
//!
//! Names are those of the OCI image specification, which are Go's (`amd64`, `arm64`), not Rust's.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What an image runs on, written `os/architecture[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system; guests run Linux, so `linux` is the only one that can be used.
    pub os: String,
    /// The processor architecture, such as `amd64`.
    pub architecture: String,
    /// The variant of the architecture, such as `v7`; `None` is the architecture's baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A platform that is not of the form `os/architecture[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {input:?}: expected os/architecture[/variant], such as linux/amd64")]
pub struct InvalidPlatform {
    /// What was given.
    pub input: String,
}

impl Platform {
    /// A platform in its normal form: `x86_64` becomes `amd64`, `arm64/v8` becomes `arm64`.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = match (architecture, variant.filter(|v| !v.is_empty())) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", None | Some("v8" | "8")) => ("arm64", None),
            ("aarch64", variant) => ("arm64", variant),
            ("arm" | "armhf", None) => ("arm", Some("v7")),
            ("i386" | "i686" | "x86", _) => ("386", None),
            other => other,
        };
        Self { os: os.into(), architecture: architecture.into(), variant: variant.map(Into::into) }
    }

    /// The platform of this host's processor; the guest is always Linux.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Self::new("linux", architecture, None)
    }

    /// How well an image of the platform `offered` serves `self`: lower is better, `None` not at all.
    ///
    /// An exact match comes first. A newer variant is never chosen; of the older ones the newest is.
    pub(crate) fn rank(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let level = |platform: &Self| match &platform.variant {
            None => Some(1),
            Some(variant) => variant.strip_prefix('v')?.parse::<u32>().ok(),
        };
        if self.variant == offered.variant {
            return Some(0);
        }
        let (wanted, offered) = (level(self)?, level(offered)?);
        wanted.checked_sub(offered).map(|distance| distance.saturating_add(1))
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self::host()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(input: &str) -> Result<Self, InvalidPlatform> {
        let parts: Vec<&str> = input.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if !parts.iter().all(plain) {
            return Err(InvalidPlatform { input: input.into() });
        }
        let lower: Vec<String> = parts.iter().map(|part| part.to_ascii_lowercase()).collect();
        match lower.as_slice() {
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(InvalidPlatform { input: input.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_of_other_tools_become_the_specifications() {
        assert_eq!(platform("linux/x86_64"), platform("linux/amd64"));
        assert_eq!(platform("linux/aarch64/v8"), platform("linux/arm64"));
        assert_eq!(platform("linux/arm").to_string(), "linux/arm/v7");
    }

    #[test]
    fn the_newest_variant_that_runs_is_preferred() {
        let wanted = platform("linux/arm/v7");
        assert_eq!(wanted.rank(&platform("linux/arm/v7")), Some(0));
        assert!(wanted.rank(&platform("linux/arm/v6")) < wanted.rank(&platform("linux/arm/v5")));
        assert_eq!(platform("linux/arm/v6").rank(&platform("linux/arm/v7")), None);
        assert_eq!(platform("linux/amd64").rank(&platform("linux/amd64/v3")), None);
        assert_eq!(platform("linux/amd64").rank(&platform("windows/amd64")), None);
    }

    #[test]
    fn half_a_platform_is_refused() {
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
