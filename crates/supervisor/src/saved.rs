//! What a sandbox was when it was saved, and the start of another one from there. Owns the format of that document, which lies
//! within the manifest of a saved machine.
//!
//! It may be anybody's: a snapshot is a file that people pass on. Nothing in it that leads to something on this host is used:
//! programs and paths come from here.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use cellule_engine::{LaunchError, SavedMachine};
use cellule_network::OpenConnection;
use cellule_snapshot::{SavedFiles, Subject};
use serde::{Deserialize, Serialize};

use crate::directory::SAVED;
use crate::disk::DiskSize;
use crate::document::DocumentError;
use crate::failure::{Failure, FailureKind};
use crate::machine::{Launcher, Prepared, apart};
use crate::record::StartRecord;
use crate::spec::{FORMAT, SandboxSpec};
use crate::warm::chain;

/// A sandbox as it was when it was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSandbox {
    /// What it was made of.
    pub spec: SandboxSpec,
    /// Its main program, if that ran.
    pub main: Option<SavedMain>,
    /// The connections that its guest had, which a copy does not have.
    pub connections: Vec<OpenConnection>,
}

/// More than any guest has.
const CONNECTIONS: usize = 8192;

/// A main program that ran when its sandbox was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedMain {
    /// When it was started: wall clock, nanoseconds since 1970.
    pub started_ns: i64,
    /// How many bytes of its standard output had been read.
    pub stdout: u64,
    /// The same of its standard error.
    pub stderr: u64,
}

impl SavedSandbox {
    /// Reads what a saved machine says of its sandbox.
    ///
    /// # Errors
    /// It is no sandbox's, or not one of this version's.
    pub fn of(files: &SavedFiles) -> Result<Self, DocumentError> {
        let Subject::Sandbox(subject) = &files.manifest().subject else {
            return Err(DocumentError::Bounds { field: "subject" });
        };
        let text = serde_json::to_vec(&subject.sandbox)?;
        let sandbox = Self::parse(&text)?;
        // The machine has what its sandbox says that it has.
        let disk = files.manifest().disk.map(|record| record.bytes);
        if disk == sandbox.spec.disk.map(DiskSize::bytes) {
            Ok(sandbox)
        } else {
            Err(DocumentError::Bounds { field: "disk" })
        }
    }

    /// Reads such a document.
    ///
    /// # Errors
    /// It is not one of this version's.
    pub fn parse(text: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Outer {
            spec: Inner,
        }
        #[derive(Deserialize)]
        struct Inner {
            format: u32,
        }
        let Outer { spec: Inner { format: found } } = serde_json::from_slice(text)?;
        if found != FORMAT {
            return Err(DocumentError::Format { found });
        }
        let sandbox: Self = serde_json::from_slice(text)?;
        if sandbox.connections.len() > CONNECTIONS {
            return Err(DocumentError::Bounds { field: "connections" });
        }
        Ok(sandbox)
    }
}

/// Starts the machine that lies in the sandbox's own directory. There is nothing else to start in its place.
pub(crate) async fn start(launcher: &Launcher, of: &str) -> Result<Prepared, Failure> {
    let begun = Instant::now();
    let dir = launcher.dir().join(SAVED);
    let (machine, disk, sandbox) = apart(move || load(&dir)).await?;
    launcher.steps.tell("load", begun);
    let running = match launcher.restore(machine, disk).await? {
        Ok(running) => running,
        Err(error) => return Err(unusable(&error)),
    };
    let start = StartRecord { saved: Some(of.to_owned()), ..StartRecord::default() };
    Ok(Prepared { running, start, main: sandbox.main, lost: sandbox.connections })
}

fn load(dir: &Path) -> Result<(SavedMachine, Option<File>, SavedSandbox), Failure> {
    let files = SavedFiles::open(dir).map_err(|error| damaged(&error))?;
    let sandbox = SavedSandbox::of(&files).map_err(|error| damaged(&error))?;
    let (machine, disk) = (files.load(), files.disk());
    Ok((machine.map_err(|error| damaged(&error))?, disk.map_err(|error| damaged(&error))?, sandbox))
}

fn damaged(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut failure = Failure::new(FailureKind::Launch, "the saved machine cannot be used", Some(error));
    failure.causes.dedup();
    failure
}

fn unusable(error: &LaunchError) -> Failure {
    match error {
        LaunchError::Mismatch(mismatch) => {
            Failure::new(FailureKind::Launch, "the saved machine cannot go on here", Some(mismatch))
        }
        LaunchError::Damaged { .. } | LaunchError::Exited { .. } => {
            let mut failure = Failure::launch(error);
            failure.causes.insert(0, chain(error));
            "the saved machine cannot be used".clone_into(&mut failure.message);
            failure
        }
        _ => Failure::launch(error),
    }
}
