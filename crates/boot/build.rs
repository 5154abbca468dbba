//! Builds the guest agent as a static program, so that this crate can carry its bytes.
//!
//! The agent is its own program for its own machine: other flags, another profile, another target
//! directory. Cargo cannot say that of a dependency on stable, so a second cargo is started. It gets a
//! target directory of its own, since the cargo that runs this script holds the lock of the usual one.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

const AGENT: &str = "cellule-guest-agent";
const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "agent";
const RUSTFLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";
/// Names a ready-made agent, for those who build it elsewhere.
const READY_MADE: &str = "CELLULE_AGENT_BINARY";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={READY_MADE}");

    let built = match env::var_os(READY_MADE).filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo:rerun-if-changed={}", path.display());
            path
        }
        None => build()?,
    };
    let bytes = fs::read(&built).map_err(|error| format!("cannot read {}: {error}", built.display()))?;

    // A copy of our own: the other cargo may replace its file while rustc reads ours. It is written only if it
    // changed, so that an agent built anew to the same bytes compiles nothing else anew.
    let copy = Path::new(&required("OUT_DIR")?).join(AGENT);
    if fs::read(&copy).ok().as_deref() != Some(bytes.as_slice()) {
        fs::write(&copy, &bytes)?;
    }
    println!("cargo:rustc-env=CELLULE_AGENT_PATH={}", copy.display());
    println!("cargo:rustc-env=CELLULE_AGENT_SHA256={}", hex::encode(Sha256::digest(&bytes)));
    Ok(())
}

/// Builds the agent and returns where it lies.
fn build() -> Result<PathBuf, Box<dyn Error>> {
    let manifest_dir = PathBuf::from(required("CARGO_MANIFEST_DIR")?);
    let workspace =
        manifest_dir.ancestors().nth(2).ok_or("the crate does not lie in crates/ of a workspace")?;
    for input in ["Cargo.toml", "Cargo.lock", "crates/guest-agent", "crates/protocol"] {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }

    let target_dir = workspace.join("target").join("agent");
    let mut cargo = Command::new(required("CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--package", AGENT, "--bin", AGENT, "--profile", PROFILE, "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir);
    for (name, _) in env::vars_os().filter(|(name, _)| !inherited(name)) {
        cargo.env_remove(name);
    }
    // What it says goes to our standard error, which cargo shows if this script fails; our standard output is cargo's.
    let status = cargo.env("RUSTFLAGS", RUSTFLAGS).stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(format!("the guest agent does not build ({status})").into());
    }
    Ok(target_dir.join(TARGET).join(PROFILE).join(AGENT))
}

/// What cargo, or clippy under it, tells this build about itself must not reach the other one; how to fetch
/// crates and which toolchain to use must.
fn inherited(name: &OsStr) -> bool {
    const OURS: [&str; 15] = [
        "CFLAGS",
        "CLIPPY_ARGS",
        "DEBUG",
        "HOST",
        "LD_LIBRARY_PATH",
        "LLVM_PROFILE_FILE",
        "MAKEFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "TARGET",
    ];
    const PREFIXES: [&str; 6] = ["CARGO", "CLIPPY_", "DEP_", "RUSTC_", "RUSTDOC", "__CARGO"];
    const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    let name = name.to_string_lossy();
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    starts(&KEPT) || !(OURS.contains(&name.as_ref()) || starts(&PREFIXES))
}

/// A variable that cargo sets for every build script.
fn required(name: &str) -> Result<std::ffi::OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}
