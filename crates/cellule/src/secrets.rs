//! Secrets of sandboxes: what their programs send, and never have.
//!
//! A program has a placeholder in a variable. Where it sends that, over TLS, to a host that is meant to get the secret, the host gets
//! the value.

use std::path::absolute;

use cellule_network::secrets::placeholder;
pub use cellule_network::secrets::{
    Secret, SecretArgument, SecretError, SecretRecord, SecretSpec, Source, SpecError, ValueError,
};
use cellule_supervisor::{Entry, GuestSecret, SandboxSpec, SecretValues};

use crate::builder::authorities;
use crate::{Error, Variables};

/// The most secrets of a sandbox.
const MOST: usize = 64;

/// Puts secrets into what a sandbox is made of, and gives their values as far as its supervisor cannot get them. One that was there
/// before keeps its placeholder, which programs may have already.
pub(crate) fn put(
    arguments: &[SecretArgument],
    before: &[GuestSecret],
    spec: &mut SandboxSpec,
) -> Result<SecretValues, Error> {
    if arguments.len() > MOST {
        let (value, why) = (arguments.len().to_string(), "a sandbox can have 64");
        return Err(Error::Option { option: "--secret", value, why });
    }
    let (mut values, mut secrets) = (SecretValues::default(), Vec::<GuestSecret>::new());
    for SecretArgument { spec: secret, value } in arguments {
        let mut secret = secret.clone();
        if secrets.iter().any(|other| other.secret.name == secret.name) {
            let why = "there are two of this name";
            return Err(Error::Option { option: "--secret", value: secret.name, why });
        }
        if let Source::File(path) = &mut secret.source {
            // It is read by another process, elsewhere.
            let failed = |source| Error::Io { doing: format!("find {}", path.display()), source };
            *path = absolute(&*path).map_err(failed)?;
        }
        if let Some(value) = value.clone().map_or_else(|| resolved(&secret), |value| Ok(Some(value)))? {
            values.values.push((secret.name.clone(), value));
        }
        let known = before.iter().find(|known| known.secret.name == secret.name);
        let placeholder = match known {
            Some(known) => known.placeholder.clone(),
            None => placeholder()
                .map_err(|source| Error::Io { doing: "make a secret's placeholder".to_owned(), source })?,
        };
        secrets.push(GuestSecret { secret, placeholder });
    }
    if !secrets.is_empty() {
        let mut variables = Variables::default();
        for GuestSecret { secret, placeholder } in &secrets {
            variables.set(format!("{}={placeholder}", secret.name))?;
        }
        let main = spec.main.iter_mut().map(|main| &mut main.env);
        for env in main.chain([&mut spec.env]) {
            *env = variables.merge(std::mem::take(env));
            // The hosts of secrets have certificates of the sandbox's own authority.
            authorities::name_in(env);
        }
    }
    spec.network.secrets = secrets;
    Ok(values)
}

/// Whether a sandbox can have its secrets when it is started again, as far as that shows before: variables are set, and no value was only
/// said once.
///
/// # Errors
/// [`Error::SecretLost`], [`Error::Secret`].
pub fn check(sandbox: &Entry) -> Result<(), Error> {
    again(&sandbox.spec).map(drop)
}

/// The values of a sandbox's secrets, when it is started again.
pub(crate) fn again(spec: &SandboxSpec) -> Result<SecretValues, Error> {
    let mut values = SecretValues::default();
    for GuestSecret { secret, .. } in &spec.network.secrets {
        if secret.source == Source::Value {
            return Err(Error::SecretLost { name: secret.name.clone() });
        }
        values.values.extend(resolved(secret)?.map(|value| (secret.name.clone(), value)));
    }
    Ok(values)
}

fn resolved(secret: &SecretSpec) -> Result<Option<Secret>, Error> {
    secret.resolve().map_err(|source| Error::Secret { name: secret.name.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::tests::spec;

    fn arguments(texts: &[&str]) -> Vec<SecretArgument> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_guest_gets_placeholders_and_what_is_written_down_has_no_value() {
        let mut spec = SandboxSpec { env: vec!["T=mine".to_owned(), "A=1".to_owned()], ..spec() };
        let texts = arguments(&["T=value:hush-hush@api.example.com", "U=file:key@api.example.com"]);
        let values = put(&texts, &[], &mut spec).unwrap();
        assert_eq!(values.values.len(), 1, "the file is its supervisor's to read");
        let [t, u] = spec.network.secrets.as_slice() else { panic!() };
        assert_eq!(spec.env[..2], [format!("T={}", t.placeholder), "A=1".to_owned()]);
        assert!(spec.env.contains(&format!("U={}", u.placeholder)));
        assert!(spec.env.iter().any(|variable| variable.starts_with("SSL_CERT_FILE=")));
        assert!(matches!(&u.secret.source, Source::File(path) if path.is_absolute()));
        assert!(!serde_json::to_string(&spec).unwrap().contains("hush"));

        let before = spec.network.secrets.clone();
        put(&arguments(&["T=env:PATH@other.example.com"]), &before, &mut spec).unwrap();
        assert_eq!(spec.network.secrets[0].placeholder, before[0].placeholder, "programs have it already");
        assert_eq!(spec.network.secrets.len(), 1);
    }

    #[test]
    fn a_value_that_cannot_be_had_is_an_error_with_its_name() {
        let mut spec = spec();
        let unset = arguments(&["T=env:CELLULE_NO_SUCH_VARIABLE@a.example.com"]);
        assert!(matches!(put(&unset, &[], &mut spec), Err(Error::Secret { name, .. }) if name == "T"));
        let twice = arguments(&["T=env:PATH@a.example.com", "T=env:PATH@b.example.com"]);
        assert!(matches!(put(&twice, &[], &mut spec), Err(Error::Option { .. })));
        let given = put(&arguments(&["T=value:x@a.example.com"]), &[], &mut spec).unwrap();
        assert_eq!(given.values[0].0, "T");
        assert!(matches!(again(&spec), Err(Error::SecretLost { name }) if name == "T"));
        put(&arguments(&["T=env:PATH@a.example.com"]), &[], &mut spec).unwrap();
        assert_eq!(again(&spec).unwrap().values.len(), 1);
    }
}
