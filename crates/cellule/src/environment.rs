//! The variables that programs get: the image's own and the user's, merged by Docker's rules.

/// Where programs are looked up in an image that does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a user sets and takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables {
    set: Vec<String>,
    unset: Vec<String>,
}

impl Variables {
    /// Sets a variable, as `NAME=VALUE`.
    ///
    /// # Errors
    /// It has no name, or holds a NUL byte.
    pub fn set(&mut self, variable: impl Into<String>) -> Result<(), InvalidVariable> {
        let variable = variable.into();
        if variable.contains('\0') {
            return Err(InvalidVariable::Nul);
        }
        if name(&variable).is_empty() || !variable.contains('=') {
            return Err(InvalidVariable::NoName);
        }
        self.set.push(variable);
        Ok(())
    }

    /// Takes a variable of the image's away.
    pub fn unset(&mut self, name: impl Into<String>) {
        self.unset.push(name.into());
    }

    /// Merges the variables below and these. The later wins; the place in the list is that of the first.
    ///
    /// `PATH` and `HOSTNAME` are added where nobody sets them, as programs expect them of a container.
    #[must_use]
    pub fn over_image(&self, image: &[String], hostname: &str) -> Vec<String> {
        let defaults = [format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
        // An entry of an image without a value is an empty variable.
        let image = image
            .iter()
            .filter(|variable| !variable.starts_with('='))
            .map(|variable| if variable.contains('=') { variable.clone() } else { format!("{variable}=") });
        self.merge(defaults.into_iter().chain(image))
    }

    /// Merges the variables below, each `NAME=VALUE`, and these.
    #[must_use]
    pub fn merge(&self, below: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut merged: Vec<String> = Vec::new();
        for variable in below.into_iter().chain(self.set.iter().cloned()) {
            match merged.iter_mut().find(|present| name(present) == name(&variable)) {
                Some(present) => *present = variable,
                None => merged.push(variable),
            }
        }
        merged.retain(|variable| !self.unset.iter().any(|unset| unset == name(variable)));
        merged
    }
}

/// A text that is no variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVariable {
    /// There is nothing before the equals sign, or no such sign.
    #[error("a variable needs a name")]
    NoName,
    /// The kernel's strings end at a NUL byte.
    #[error("a variable cannot hold a NUL byte")]
    Nul,
}

fn name(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    fn merged(image: &[&str], given: &[&str]) -> Vec<String> {
        let mut variables = Variables::default();
        for variable in given {
            variables.set(*variable).unwrap();
        }
        variables.over_image(&strings(image), "h")
    }

    #[test]
    fn the_later_value_wins_in_the_place_of_the_first() {
        let merged = merged(&["PATH=/bin", "A=1"], &["A=2", "B=x=y", "PATH="]);
        assert_eq!(merged, strings(&["PATH=", "HOSTNAME=h", "A=2", "B=x=y"]));
    }

    #[test]
    fn path_and_hostname_are_there_unless_somebody_sets_them() {
        assert_eq!(merged(&[], &[]), [format!("PATH={DEFAULT_PATH}"), "HOSTNAME=h".to_owned()]);
    }

    #[test]
    fn what_is_unset_is_taken_away_from_the_image() {
        let mut variables = Variables::default();
        variables.unset("A");
        let merged = variables.over_image(&strings(&["PATH=/", "A=1", "HOSTNAME=x"]), "h");
        assert_eq!(merged, strings(&["PATH=/", "HOSTNAME=x"]));
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        let mut variables = Variables::default();
        assert_eq!(variables.set("=x"), Err(InvalidVariable::NoName));
        assert_eq!(variables.set("x"), Err(InvalidVariable::NoName));
        assert_eq!(variables.set("a=\0"), Err(InvalidVariable::Nul));
    }
}
