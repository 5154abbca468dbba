//! Credential helpers: programs named `docker-credential-…` that keep credentials in a keychain.

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::{Credential, CredentialsError};

const MAX_OUTPUT: u64 = 1 << 20;

/// The name that stands for "the secret is an identity token".
const TOKEN_NAME: &str = "<token>";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default, rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: String,
}

/// A credential helper.
#[derive(Debug)]
pub(super) struct Helper {
    program: PathBuf,
}

impl Helper {
    /// The helper that Docker's file calls `name`; it is looked for in `PATH`.
    pub(super) fn named(name: &str) -> Result<Self, CredentialsError> {
        let program = format!("docker-credential-{name}");
        // With a slash it would not be looked for in PATH.
        if program.contains('/') {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "its name has a slash");
            return Err(CredentialsError::HelperMissing { helper: program, source });
        }
        Ok(Self { program: program.into() })
    }

    #[cfg(test)]
    pub(super) fn at(program: PathBuf) -> Self {
        Self { program }
    }

    /// The credential that the helper has under `key`.
    pub(super) async fn get(
        &self,
        key: &str,
        limit: Duration,
    ) -> Result<Option<Credential>, CredentialsError> {
        let (ok, output) = self.run("get", key.as_bytes(), limit).await?;
        let text = String::from_utf8_lossy(&output);
        // The protocol has no other way to say so.
        if !ok && text.contains("credentials not found") {
            return Ok(None);
        }
        if !ok {
            return Err(self.failed(&text));
        }
        let entry: Entry =
            serde_json::from_slice(&output).map_err(|_| self.failed("its answer is malformed"))?;
        Ok(Some(match entry.username.as_str() {
            TOKEN_NAME => Credential::IdentityToken(entry.secret),
            _ => Credential::Password { username: entry.username, password: entry.secret },
        }))
    }

    /// Gives the helper a credential to keep.
    pub(super) async fn store(
        &self,
        key: &str,
        credential: &Credential,
        limit: Duration,
    ) -> Result<(), CredentialsError> {
        let (username, secret) = match credential {
            Credential::Password { username, password } => (username.clone(), password.clone()),
            Credential::IdentityToken(token) => (TOKEN_NAME.into(), token.clone()),
        };
        let entry = Entry { server_url: key.into(), username, secret };
        let text = serde_json::to_vec(&entry)
            .map_err(|_| self.failed("the credential cannot be written as JSON"))?;
        self.tell("store", &text, limit).await
    }

    /// Makes the helper forget what it has under `key`.
    pub(super) async fn erase(&self, key: &str, limit: Duration) -> Result<(), CredentialsError> {
        self.tell("erase", key.as_bytes(), limit).await
    }

    async fn tell(&self, action: &str, input: &[u8], limit: Duration) -> Result<(), CredentialsError> {
        let (ok, output) = self.run(action, input, limit).await?;
        if ok { Ok(()) } else { Err(self.failed(&String::from_utf8_lossy(&output))) }
    }

    /// Runs the helper; returns whether it succeeded, and its standard output.
    async fn run(
        &self,
        action: &str,
        input: &[u8],
        limit: Duration,
    ) -> Result<(bool, Vec<u8>), CredentialsError> {
        let missing = |source| CredentialsError::HelperMissing { helper: self.name(), source };
        let mut command = Command::new(&self.program);
        command
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(missing)?;
        let talk = async {
            if let Some(mut stdin) = child.stdin.take() {
                // A helper that does not read its input says why on its output.
                let _ = stdin.write_all(input).await;
            }
            let mut output = Vec::new();
            if let Some(stdout) = child.stdout.take() {
                stdout.take(MAX_OUTPUT).read_to_end(&mut output).await?;
            }
            Ok((child.wait().await?.success(), output))
        };
        match timeout(limit, talk).await {
            Ok(result) => result.map_err(missing),
            Err(_) => Err(CredentialsError::HelperStalled { helper: self.name(), limit }),
        }
    }

    fn failed(&self, message: &str) -> CredentialsError {
        let message: String = message.trim().chars().filter(|c| !c.is_control()).take(200).collect();
        CredentialsError::HelperFailed { helper: self.name(), message }
    }

    fn name(&self) -> String {
        self.program.display().to_string()
    }
}
