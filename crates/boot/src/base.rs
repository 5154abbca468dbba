//! The built-in base image: busybox and what it takes to be a root directory, so that a first guest needs no
//! registry.
//!
//! ```text
//! /bin/busybox                 and a symbolic link for each of its applets, where busybox itself wants them
//! /etc/passwd /etc/group       root and nobody
//! /root /home /tmp /var/tmp /run /dev /proc /sys
//! ```
//! The tar is the same for the same busybox: sorted, and nothing in it has a date.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::apt::{Apt, Wanted};
use crate::command::run;
use crate::error::read_file;
use crate::source::SourceRecord;
use crate::{CommandError, Error, Result, deb};

/// Debian's package of the static busybox.
const PACKAGE: &str = "busybox-static";
/// Where a host may have one.
const INSTALLED: [&str; 3] = ["/usr/bin/busybox", "/bin/busybox", "/usr/local/bin/busybox"];
/// The most that a busybox may weigh; Debian's is 2 MB.
const BUSYBOX_LIMIT: u64 = 32 << 20;
const LIST_LIMIT: Duration = Duration::from_secs(10);
const APPLETS_MAX: usize = 2000;
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const DIRECTORIES: [(&str, u32); 14] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
];
const FILES: [(&str, &str); 2] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
];

/// Why the base image could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// The package has no busybox in it.
    #[error("the package {package} has no static busybox for x86-64")]
    NoBusybox {
        /// The package.
        package: String,
    },
    /// busybox did not list its applets.
    #[error("busybox does not list its applets")]
    List(#[from] CommandError),
    /// busybox lists what cannot be an applet.
    #[error("busybox lists what cannot be applets: {line}")]
    Applets {
        /// The first line at fault.
        line: String,
    },
}

/// What of an image's configuration the base image sets; the names are those of the OCI specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageConfig {
    /// The command where the user names none.
    pub cmd: Vec<String>,
    /// The environment, as `NAME=value`.
    pub env: Vec<String>,
}

/// What the manifest of a base image says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BaseContents {
    pub(crate) config: ImageConfig,
    /// Where busybox came from.
    pub(crate) source: SourceRecord,
}

/// A busybox and where it came from.
pub(crate) struct Busybox {
    bytes: Vec<u8>,
    applets: Vec<String>,
    source: SourceRecord,
}

impl Busybox {
    /// The host's own if it is static, for that needs no network; else Debian's package.
    pub(crate) fn find(apt: &mut Apt<'_>, scratch: &Path) -> Result<Self> {
        let installed = INSTALLED.iter().find_map(|path| Self::installed(Path::new(path), scratch));
        installed.map_or_else(|| Self::from_package(apt, scratch), Ok)
    }

    /// The busybox at `path`, if it is there and will do.
    fn installed(path: &Path, scratch: &Path) -> Option<Self> {
        let bytes = read_file(path, BUSYBOX_LIMIT).ok().filter(|bytes| is_static(bytes))?;
        let applets = applets(path, scratch).ok()?;
        Some(Self { bytes, applets, source: SourceRecord::File { path: path.into() } })
    }

    fn from_package(apt: &mut Apt<'_>, scratch: &Path) -> Result<Self> {
        let (package, deb) = apt.fetch(Wanted::Named(PACKAGE), &|_| false)?;
        let no_busybox = || BaseError::NoBusybox { package: package.name.clone() };
        let mut files = deb::files(&deb.ok_or_else(no_busybox)?, &|path| path.ends_with("bin/busybox"))?;
        let (_, bytes) = files.pop_first().filter(|(_, bytes)| is_static(bytes)).ok_or_else(no_busybox)?;

        let program = scratch.join("busybox");
        write_program(&program, &bytes).map_err(Error::write(&program))?;
        let applets = applets(&program, scratch)?;
        let source = SourceRecord::Debian { package: package.name, version: package.version };
        Ok(Self { bytes, applets, source })
    }

    /// What the manifest says.
    pub(crate) fn contents(&self) -> BaseContents {
        let config = ImageConfig { cmd: vec!["sh".into()], env: vec![PATH.into()] };
        BaseContents { config, source: self.source.clone() }
    }

    /// Writes the root directory as a tar.
    pub(crate) fn write_tar(&self, out: impl Write) -> io::Result<()> {
        let mut nodes = BTreeMap::new();
        for applet in &self.applets {
            nodes.insert(applet.as_str(), Node::Link("/bin/busybox"));
            for (at, _) in applet.match_indices('/') {
                nodes.insert(&applet[..at], Node::Directory(0o755));
            }
        }
        nodes.extend(DIRECTORIES.map(|(path, mode)| (path, Node::Directory(mode))));
        nodes.extend(FILES.map(|(path, text)| (path, Node::File(0o644, text.as_bytes()))));
        nodes.insert("bin/busybox", Node::File(0o755, &self.bytes));

        let mut tar = tar::Builder::new(out);
        for (path, node) in nodes {
            node.append(&mut tar, path)?;
        }
        tar.into_inner()?.flush()
    }
}

enum Node<'a> {
    Directory(u32),
    File(u32, &'a [u8]),
    Link(&'a str),
}

impl Node<'_> {
    fn append(&self, tar: &mut tar::Builder<impl Write>, path: &str) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        match self {
            Self::Directory(mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                tar.append_data(&mut header, format!("{path}/"), io::empty())
            }
            Self::File(mode, bytes) => {
                header.set_mode(*mode);
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, path, *bytes)
            }
            Self::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                tar.append_link(&mut header, path, target)
            }
        }
    }
}

/// Whether this is an x86-64 program that needs no loader.
fn is_static(program: &[u8]) -> bool {
    let Ok(elf) = elf::ElfBytes::<elf::endian::LittleEndian>::minimal_parse(program) else { return false };
    let mut segments = elf.segments().into_iter().flat_map(|segments| segments.iter());
    elf.ehdr.e_machine == elf::abi::EM_X86_64 && segments.all(|segment| segment.p_type != elf::abi::PT_INTERP)
}

/// The paths where a busybox wants its applets, without a leading `/`.
fn applets(program: &Path, scratch: &Path) -> Result<Vec<String>, BaseError> {
    let mut command = Command::new(program);
    let output = run(command.arg("--list-full"), LIST_LIMIT, scratch, &mut || ())?;
    parse_applets(&String::from_utf8_lossy(&output))
}

fn parse_applets(list: &str) -> Result<Vec<String>, BaseError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "[_-+.".contains(c);
    let name = |name: &str| !matches!(name, "" | "." | "..") && name.chars().all(plain);
    let wrong = |line: &str| BaseError::Applets { line: line.chars().take(100).collect() };
    let lines: Vec<&str> = list.lines().collect();
    if lines.is_empty() || lines.len() > APPLETS_MAX {
        return Err(wrong(&format!("{} lines", lines.len())));
    }
    for line in &lines {
        if line.len() > 64 || !line.split('/').all(name) || FILES.iter().any(|(file, _)| file == line) {
            return Err(wrong(line));
        }
    }
    Ok(lines.into_iter().map(str::to_owned).collect())
}

fn write_program(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let _ = fs::remove_file(path);
    OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?.write_all(bytes)
}

#[cfg(test)]
pub(crate) mod tests;
