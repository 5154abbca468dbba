//! Docker's `config.json`, of which we know some fields and keep all.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use serde_json::{Map, Value, json};

use super::{Credential, CredentialsError, host, key};

const MAX_FILE: u64 = 16 << 20;

/// Some programs write no padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Debug)]
pub(super) struct DockerConfig {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl DockerConfig {
    /// Reads the file; none is as good as an empty one.
    pub(super) fn read(path: PathBuf) -> Result<Self, CredentialsError> {
        let bytes = match fs::File::open(&path).and_then(|file| {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE), &mut bytes).map(|_| bytes)
        }) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => b"{}".to_vec(),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(source) => return Err(CredentialsError::File { action: "read", path, source }),
        };
        match serde_json::from_slice(&bytes) {
            Ok(fields) => Ok(Self { path, fields }),
            Err(source) => Err(CredentialsError::Malformed { path, source }),
        }
    }

    /// The helper for a host, without the `docker-credential-` of its program's name.
    pub(super) fn helper(&self, host: &str) -> Option<String> {
        let helpers = self.fields.get("credHelpers").and_then(Value::as_object);
        let own = helpers.and_then(|helpers| {
            helpers.iter().find(|(registry, _)| super::host(registry) == host).map(|(_, helper)| helper)
        });
        let helper = own.or_else(|| self.fields.get("credsStore"))?.as_str()?;
        (!helper.is_empty()).then(|| helper.to_owned())
    }

    /// The credential in `auths`.
    pub(super) fn find(&self, registry: &str) -> Result<Option<Credential>, CredentialsError> {
        let Some(auths) = self.fields.get("auths").and_then(Value::as_object) else { return Ok(None) };
        let wanted = host(registry);
        let entry = auths
            .get(&key(registry))
            .or_else(|| auths.iter().find(|(key, _)| host(key) == wanted).map(|(_, entry)| entry))
            .and_then(Value::as_object);
        let Some(entry) = entry else { return Ok(None) };
        let text = |field: &str| entry.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credential::IdentityToken(token.into())));
        }
        let pair = match (text("auth"), text("username"), text("password")) {
            (Some(auth), _, _) => decode(auth),
            (None, Some(username), Some(password)) => Some((username.to_owned(), password.to_owned())),
            // Docker leaves an empty entry to say that a helper has it.
            _ => return Ok(None),
        };
        let Some((username, password)) = pair else {
            return Err(CredentialsError::Entry { path: self.path.clone(), registry: registry.into() });
        };
        Ok(Some(Credential::Password { username, password }))
    }

    /// Sets or removes the entry of a registry and writes the file, whole, readable by its owner only.
    pub(super) fn update(
        mut self,
        registry: &str,
        credential: Option<&Credential>,
    ) -> Result<(), CredentialsError> {
        let auths = self.fields.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            let wanted = host(registry);
            auths.retain(|key, _| host(key) != wanted);
            if let Some(credential) = credential {
                auths.insert(key(registry), entry(credential));
            }
        }
        let path = self.path;
        let text = match serde_json::to_vec_pretty(&self.fields) {
            Ok(text) => text,
            Err(source) => return Err(CredentialsError::Malformed { path, source }),
        };
        write(&path, &text).map_err(|source| CredentialsError::File { action: "write", path, source })
    }
}

fn decode(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(LENIENT.decode(auth).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.into(), password.trim_end_matches('\0').into()))
}

fn entry(credential: &Credential) -> Value {
    match credential {
        Credential::Password { username, password } => {
            json!({ "auth": STANDARD.encode(format!("{username}:{password}")) })
        }
        Credential::IdentityToken(token) => json!({ "identitytoken": token }),
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    // Some keep the file elsewhere, with a link to it.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut file = tempfile::Builder::new()
        .prefix(".config.json.")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(dir)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(&target)?;
    Ok(())
}
