//! Owns how the Rust code of the `.proto` files is made: no `protoc`, the same bytes on every machine.
//!
//! The code is committed, so that a build needs none of this. It knows nothing of what the services mean.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the files are made, and what from, beneath the workspace.
const GENERATED: &str = "crates/protocol/src/generated";
const PROTO_ROOT: &str = "crates/protocol/proto";

/// The definitions of each package and the file that is made of them, which is named after the package.
const PACKAGES: [(&[&str], &str); 2] = [
    (&["cellule/agent/v1/agent.proto", "cellule/agent/v1/files.proto"], "cellule.agent.v1.rs"),
    (&["cellule/supervisor/v1/supervisor.proto"], "cellule.supervisor.v1.rs"),
];

/// Why no code was made, or why the committed code is not it.
#[derive(Debug, thiserror::Error)]
pub enum CodegenError {
    /// The `.proto` is not valid.
    #[error("{package} does not compile")]
    Proto {
        /// The file that would be made of it.
        package: String,
        /// What is wrong with it.
        source: protox::Error,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// "read", "write", "generate".
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The committed code is older, or newer, than its source.
    #[error("{} is not what the .proto gives; run `cargo xtask codegen`", .0.display())]
    Stale(PathBuf),
}

/// Writes the code, or with `check` only compares it with what is committed.
///
/// # Errors
/// When the `.proto` does not compile, a file can't be read or written, or, with `check`, the code is stale.
pub fn codegen(check: bool) -> Result<(), CodegenError> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    for (protos, file) in PACKAGES {
        let path = workspace.join(GENERATED).join(file);
        let code = generate(&workspace.join(PROTO_ROOT), protos, file)?;
        if !check {
            fs::write(&path, code).map_err(io_error("write", &path))?;
        } else if fs::read_to_string(&path).map_err(io_error("read", &path))? != code {
            return Err(CodegenError::Stale(path));
        }
    }
    Ok(())
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CodegenError {
    let path = path.to_owned();
    move |source| CodegenError::Io { action, path, source }
}

fn generate(root: &Path, protos: &[&str], file: &str) -> Result<String, CodegenError> {
    let descriptors = protox::compile(protos, [root])
        .map_err(|source| CodegenError::Proto { package: file.to_owned(), source })?;
    let out = tempfile::tempdir().map_err(io_error("generate", Path::new("a temporary directory")))?;
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .out_dir(out.path())
        .compile_fds(descriptors)
        .map_err(io_error("generate", Path::new(file)))?;
    let made = out.path().join(file);
    let code = fs::read_to_string(&made).map_err(io_error("read", &made))?;
    let protos = protos.join(" and ");
    Ok(format!("// Made from {protos} by `cargo xtask codegen`; edit that.\n{code}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_code_is_what_the_proto_gives() {
        super::codegen(true).unwrap();
    }
}
