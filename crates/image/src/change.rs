//! Changes to an image's configuration, written as Dockerfile instructions, as `import --change` takes them.

use crate::ImageConfig;

/// An instruction that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid change {input:?}: {reason}")]
pub struct InvalidChange {
    /// The whole instruction.
    pub input: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ImageConfig {
    /// Applies one Dockerfile instruction: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`, `STOPSIGNAL`, `USER`,
    /// `VOLUME` or `WORKDIR`.
    ///
    /// # Errors
    ///
    /// If the instruction is another one, or its arguments are malformed; nothing is changed then.
    pub fn apply(&mut self, input: &str) -> Result<(), InvalidChange> {
        let fault = |reason| InvalidChange { input: input.into(), reason };
        let trimmed = input.trim();
        let (instruction, rest) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(fault("it has no arguments"));
        }
        match instruction.to_ascii_uppercase().as_str() {
            "CMD" => self.cmd = command(rest).map_err(fault)?,
            "ENTRYPOINT" => self.entrypoint = command(rest).map_err(fault)?,
            "ENV" => {
                for (name, value) in pairs(rest).map_err(fault)? {
                    let start = format!("{name}=");
                    self.env.retain(|variable| !variable.starts_with(&start));
                    self.env.push(start + &value);
                }
            }
            "EXPOSE" => self.exposed_ports.extend(ports(rest).map_err(fault)?),
            "LABEL" => self.labels.extend(pairs(rest).map_err(fault)?),
            "STOPSIGNAL" => self.stop_signal = Some(rest.into()),
            "USER" => self.user = rest.into(),
            "VOLUME" => self.volumes.extend(list_or_words(rest).map_err(fault)?),
            "WORKDIR" if rest.starts_with('/') => self.working_dir = rest.into(),
            "WORKDIR" => {
                let base = self.working_dir.trim_end_matches('/');
                self.working_dir = format!("{base}/{rest}");
            }
            _ => {
                return Err(fault(
                    "the instruction is none of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR",
                ));
            }
        }
        Ok(())
    }
}

/// The exec form, a JSON array, or the shell form, which a shell runs.
fn command(text: &str) -> Result<Vec<String>, &'static str> {
    if text.starts_with('[') {
        return json_list(text);
    }
    Ok(["/bin/sh", "-c", text].map(Into::into).to_vec())
}

fn json_list(text: &str) -> Result<Vec<String>, &'static str> {
    serde_json::from_str(text).map_err(|_| "what begins with '[' must be a JSON array of strings")
}

fn list_or_words(text: &str) -> Result<Vec<String>, &'static str> {
    if text.starts_with('[') { json_list(text) } else { words(text) }
}

fn ports(text: &str) -> Result<Vec<String>, &'static str> {
    words(text)?
        .into_iter()
        .map(|word| {
            let (port, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
            match port.parse::<u16>() {
                Ok(port) if matches!(protocol, "tcp" | "udp" | "sctp") => Ok(format!("{port}/{protocol}")),
                _ => Err("a port is a number from 0 to 65535, with /tcp, /udp or /sctp after it or nothing"),
            }
        })
        .collect()
}

/// `name=value …`, or the old form of one pair, `name value`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let words = words(text)?;
    let first = words.first().map_or("", String::as_str);
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace).ok_or("a name needs a value")?;
        return Ok(vec![(name.into(), value.trim().into())]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err("each pair must be of the form name=value"),
        })
        .collect()
}

/// Words parted by white space; quotes and backslashes protect it as they do in a shell.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().push(chars.next().ok_or("a backslash ends it")?);
            }
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> ImageConfig {
        let mut config = ImageConfig::default();
        for change in changes {
            config.apply(change).unwrap();
        }
        config
    }

    #[test]
    fn commands_have_an_exec_form_and_a_shell_form() {
        let config = changed(&[r#"ENTRYPOINT ["/a", "b c"]"#, "cmd echo $HOME"]);
        assert_eq!(config.entrypoint, ["/a", "b c"]);
        assert_eq!(config.cmd, ["/bin/sh", "-c", "echo $HOME"]);
    }

    #[test]
    fn a_variable_set_twice_keeps_its_last_value() {
        let config = changed(&["ENV A=1 B='x y'", "ENV A two words", r#"LABEL k="v \"q\"""#]);
        assert_eq!(config.env, ["B=x y", "A=two words"]);
        assert_eq!(config.labels["k"], r#"v "q""#);
    }

    #[test]
    fn the_other_instructions_set_their_fields() {
        let changes =
            ["EXPOSE 80 53/udp", "VOLUME /a /b", "USER me:us", "WORKDIR /w", "WORKDIR sub", "STOPSIGNAL 9"];
        let config = changed(&changes);
        assert_eq!(config.exposed_ports.into_iter().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.volumes.into_iter().collect::<Vec<_>>(), ["/a", "/b"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("me:us", "/w/sub"));
        assert_eq!(config.stop_signal.as_deref(), Some("9"));
    }

    #[test]
    fn a_malformed_change_changes_nothing() {
        let mut config = ImageConfig::default();
        for change in
            ["", "RUN x", "CMD", "CMD [1]", "ENV A", "ENV A=1 B", "ENV A='", "EXPOSE http", "LABEL a\\"]
        {
            assert!(config.apply(change).is_err(), "{change}");
        }
        assert_eq!(config, ImageConfig::default());
    }
}
