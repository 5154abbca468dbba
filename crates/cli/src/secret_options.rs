//! The options that describe a sandbox's secrets.

use cellule::secrets::SecretArgument;

use crate::failure::Failure;

/// What programs send, and never have.
#[derive(Debug, clap::Args)]
pub(crate) struct SecretOptions {
    /// Give programs a placeholder in this variable, in whose place these hosts alone get the secret, where it is sent over TLS
    /// in a header or a query. The source is env:VARIABLE, `file:PATH`, cmd:COMMAND (what it writes, or JSON with a value and a
    /// ttl or `expires_at`) or value:TEXT (which lists of processes show)
    #[arg(long, value_name = "NAME=SOURCE@HOST[,HOST]")]
    // A text until it is known to be one: what clap says of a wrong one would have the value in it.
    secret: Vec<String>,
    /// Look for the placeholder of this secret in the bodies of requests too
    #[arg(long, value_name = "NAME", requires = "secret")]
    secret_in_body: Vec<String>,
}

impl SecretOptions {
    /// All of them.
    ///
    /// # Errors
    /// One is none, or something is asked of one that there is not.
    pub(crate) fn all(&self) -> Result<Vec<SecretArgument>, Failure> {
        let mut secrets = Vec::with_capacity(self.secret.len());
        for (number, text) in self.secret.iter().enumerate() {
            let mut secret: SecretArgument = text.parse().map_err(|error| {
                Failure::because(format!("--secret, the {}: it is no secret", ordinal(number)), &error)
                    .hint("write it as TOKEN=env:TOKEN@api.example.com")
            })?;
            secret.spec.in_body = self.secret_in_body.contains(&secret.spec.name);
            secrets.push(secret);
        }
        let is_known = |name: &&String| secrets.iter().any(|secret| secret.spec.name == **name);
        match self.secret_in_body.iter().find(|name| !is_known(name)) {
            Some(name) => Err(Failure::new(format!("--secret-in-body {name}: there is no such --secret"))),
            None => Ok(secrets),
        }
    }
}

/// Which one of several, since the text itself is not to be repeated.
fn ordinal(number: usize) -> String {
    match number {
        0 => "first".to_owned(),
        1 => "second".to_owned(),
        2 => "third".to_owned(),
        number => format!("{}th", number + 1),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        secrets: SecretOptions,
    }

    fn all(words: &[&str]) -> Result<Vec<SecretArgument>, String> {
        let options = Program::try_parse_from([&["x"], words].concat()).unwrap().secrets;
        options.all().map_err(|failure| failure.render())
    }

    #[test]
    fn a_secret_that_is_none_is_refused_without_being_repeated() {
        let good = "--secret=A=env:A@a.example.com";
        for bad in ["--secret=TOKEN=hush-hush", "--secret=TOKEN=value:hush-hush", "--secret=hush-hush"] {
            let error = all(&[good, bad]).unwrap_err();
            assert!(error.contains("the second") && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn bodies_are_searched_for_those_that_are_named() {
        let two = ["--secret=A=env:A@a.example.com", "--secret=B=env:B@a.example.com"];
        let secrets = all(&[&two[..], &["--secret-in-body=B"]].concat()).unwrap();
        assert_eq!(secrets.iter().map(|secret| secret.spec.in_body).collect::<Vec<_>>(), [false, true]);
        let error = all(&[&two[..], &["--secret-in-body=C"]].concat()).unwrap_err();
        assert!(error.contains("--secret-in-body C"), "{error}");
    }
}
