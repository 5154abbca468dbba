//! Where an image comes from, as one text.
//!
//! | text | source |
//! |---|---|
//! | `debian:12`, `host:5000/a/b@sha256:…` | an image in a registry |
//! | `oci:DIR[:TAG]` | an OCI image layout directory |
//! | `docker-archive:FILE[:REFERENCE]` | a file that `docker save` wrote |
//! | `tar:FILE` | the tar of a root filesystem, plain or compressed by gzip, zstd or xz |
//! | `dir:DIR` | a directory that holds a root filesystem |
//! | `/…`, `./…`, `../…`, `.`, `..` | `dir:` if the path is a directory, else `tar:` |
//!
//! Parsing never looks at the disk. A prefix wins over a registry's name for an image, so an image of the default
//! registry that is itself called `oci`, `tar`, `dir` or `docker-archive` is written `docker.io/library/oci:TAG`.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::{InvalidReference, Reference};

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image in a registry, or in the store under that name.
    Registry(Reference),
    /// An OCI image layout directory. Without a tag it must hold one image only.
    OciLayout {
        /// The directory that holds `index.json`.
        dir: PathBuf,
        /// The value of the `org.opencontainers.image.ref.name` annotation.
        tag: Option<String>,
    },
    /// A file that `docker save` wrote. Without a reference it must hold one image only.
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// One of the archive's `RepoTags`.
        reference: Option<Reference>,
    },
    /// The tar of a root filesystem.
    Tar(PathBuf),
    /// A directory that holds a root filesystem.
    Directory(PathBuf),
    /// A path that is a [`Directory`](Self::Directory) or a [`Tar`](Self::Tar), whichever is there.
    Path(PathBuf),
}

/// A text that names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSource {
    /// A prefix with nothing behind it.
    #[error("{prefix:?} must be followed by a path")]
    NoPath {
        /// The prefix, with its colon.
        prefix: &'static str,
    },
    /// The text, or the reference within it, is no reference to an image.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
}

impl FromStr for Source {
    type Err = InvalidSource;

    fn from_str(input: &str) -> Result<Self, InvalidSource> {
        let path = |prefix, text: &str| match text {
            "" => Err(InvalidSource::NoPath { prefix }),
            text => Ok(PathBuf::from(text)),
        };
        if let Some(rest) = input.strip_prefix("oci:") {
            // A tag has no slash, so a colon before a slash belongs to the path.
            let (dir, tag) = match rest.rsplit_once(':') {
                Some((dir, tag)) if !tag.contains('/') && !tag.is_empty() => (dir, Some(tag.to_owned())),
                _ => (rest, None),
            };
            return Ok(Self::OciLayout { dir: path("oci:", dir)?, tag });
        }
        if let Some(rest) = input.strip_prefix("docker-archive:") {
            let (file, reference) = match rest.split_once(':') {
                Some((file, reference)) => (file, Some(reference.parse()?)),
                None => (rest, None),
            };
            return Ok(Self::DockerArchive { file: path("docker-archive:", file)?, reference });
        }
        if let Some(rest) = input.strip_prefix("tar:") {
            return Ok(Self::Tar(path("tar:", rest)?));
        }
        if let Some(rest) = input.strip_prefix("dir:") {
            return Ok(Self::Directory(path("dir:", rest)?));
        }
        if matches!(input, "." | "..") || ["/", "./", "../"].iter().any(|start| input.starts_with(start)) {
            return Ok(Self::Path(input.into()));
        }
        Ok(Self::Registry(input.parse()?))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::OciLayout { dir, tag } => {
                write!(f, "oci:{}", dir.display())?;
                tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
            }
            Self::DockerArchive { file, reference } => {
                write!(f, "docker-archive:{}", file.display())?;
                reference.iter().try_for_each(|reference| write!(f, ":{reference}"))
            }
            Self::Tar(path) => write!(f, "tar:{}", path.display()),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_says_what_a_path_is() {
        let layout =
            |dir: &str, tag: Option<&str>| Source::OciLayout { dir: dir.into(), tag: tag.map(Into::into) };
        assert_eq!(source("oci:dir"), layout("dir", None));
        assert_eq!(source("oci:/a/b:1.0"), layout("/a/b", Some("1.0")));
        assert_eq!(source("oci:/a:b/c"), layout("/a:b/c", None));
        assert_eq!(source("tar:x.tar.gz"), Source::Tar("x.tar.gz".into()));
        assert_eq!(source("dir:x"), Source::Directory("x".into()));
        let archive = Source::DockerArchive { file: "a.tar".into(), reference: Some("b:1".parse().unwrap()) };
        assert_eq!(source("docker-archive:a.tar:b:1"), archive);
    }

    #[test]
    fn a_path_is_told_from_a_reference_by_its_start() {
        for text in ["/rootfs", "./rootfs", "../rootfs.tar", ".", ".."] {
            assert_eq!(source(text), Source::Path(text.into()));
        }
        for text in ["rootfs", "rootfs/tar", "docker.io/library/oci:1"] {
            assert!(matches!(source(text), Source::Registry(_)), "{text}");
        }
    }

    #[test]
    fn a_prefix_alone_is_refused() {
        for text in ["oci:", "tar:", "dir:", "docker-archive:"] {
            assert!(matches!(text.parse::<Source>(), Err(InvalidSource::NoPath { .. })), "{text}");
        }
        assert!(matches!("docker-archive:a.tar:B".parse::<Source>(), Err(InvalidSource::Reference(_))));
    }
}
