//! QEMU's program on this host: where it is and which version.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::{EngineInfo, EngineProblem};

const NAME: &str = "qemu-system-x86_64";
/// Where distributions put it, for a `PATH` that lacks them.
const PLACES: [&str; 2] = ["/usr/bin", "/usr/local/bin"];
/// The oldest version that this driver was made and tested with: Debian 12's.
const OLDEST: (u32, u32) = (7, 2);
const OLDEST_NAME: &str = "7.2";
/// How long a program may take to say its version.
const LIMIT: Duration = Duration::from_secs(10);

/// Finds the program: the one that was named, or the first in `PATH`.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf, EngineProblem> {
    let found = match named {
        Some(path) => is_program(path).then(|| path.to_owned()),
        None => env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .chain(PLACES.map(PathBuf::from))
            .map(|dir| dir.join(NAME))
            // A relative path would mean another program in another directory.
            .find(|path| path.is_absolute() && is_program(path)),
    };
    found.ok_or_else(|| EngineProblem::NotInstalled { program: named.unwrap_or(Path::new(NAME)).to_owned() })
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Runs the program to learn its version, and checks that.
pub(super) async fn check(named: Option<&Path>) -> Result<EngineInfo, EngineProblem> {
    let program = find(named)?;
    let unusable = |why: &str| EngineProblem::Unusable { program: program.clone(), why: why.to_owned() };
    let run = Command::new(&program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, run)
        .await
        .map_err(|_| unusable("it does not say its version"))?
        .map_err(|source| EngineProblem::NotExecutable { program: program.clone(), source })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let (version, parsed) =
        version_in(&said).ok_or_else(|| unusable("it does not say its version as QEMU does"))?;
    let version = version.to_owned();
    check_version(&program, parsed, version.clone())?;
    Ok(EngineInfo { program, version })
}

/// Refuses a version that is too old.
pub(super) fn check_version(program: &Path, version: (u32, u32), name: String) -> Result<(), EngineProblem> {
    if version < OLDEST {
        return Err(EngineProblem::TooOld { program: program.to_owned(), found: name, need: OLDEST_NAME });
    }
    Ok(())
}

/// The version in `QEMU emulator version 7.2.22 (Debian …)`, whole and as two numbers.
fn version_in(said: &str) -> Option<(&str, (u32, u32))> {
    let version = said.lines().next()?.strip_prefix("QEMU emulator version ")?.split_whitespace().next()?;
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((version, (major, minor))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A program that says `output`. It is written by a child so that no descriptor of this process, which may be
    /// inherited by another test's child, keeps it "busy".
    fn program_saying(dir: &Path, output: &str) -> PathBuf {
        let path = dir.join("qemu");
        fs::write(dir.join("text"), format!("#!/bin/sh\necho '{output}'\n")).expect("room for a script");
        let copied = std::process::Command::new("install")
            .args([dir.join("text"), path.clone()])
            .status()
            .expect("install from coreutils");
        assert!(copied.success());
        path
    }

    #[test]
    fn the_version_is_read_as_qemu_says_it() {
        assert_eq!(
            version_in("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"),
            Some(("7.2.22", (7, 2)))
        );
        assert_eq!(version_in("QEMU emulator version 10.0.3"), Some(("10.0.3", (10, 0))));
        assert_eq!(version_in("emulator 1.2"), None);
        assert_eq!(version_in("QEMU emulator version x.y"), None);
        assert_eq!(version_in(""), None);
    }

    #[tokio::test]
    async fn an_old_version_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let old = program_saying(dir.path(), "QEMU emulator version 6.1.1");
        match check(Some(&old)).await {
            Err(EngineProblem::TooOld { found, need: OLDEST_NAME, .. }) => assert_eq!(found, "6.1.1"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_qemu_is_unusable() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let other = program_saying(dir.path(), "hello");
        assert!(matches!(check(Some(&other)).await, Err(EngineProblem::Unusable { .. })));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let missing = Path::new("/nonexistent/qemu");
        match check(Some(missing)).await {
            Err(EngineProblem::NotInstalled { program }) => assert_eq!(program, missing),
            other => panic!("{other:?}"),
        }
    }
}
