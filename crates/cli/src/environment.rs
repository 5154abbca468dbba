//! The variables that a command gets: `--env`, `--env-file` and the image's own, merged by Docker's rules.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::failure::Failure;

/// An environment file larger than this is a mistake.
const FILE_BYTES: u64 = 1 << 20;
/// Where programs are looked up in an image that does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables of the files in their order and then those given one by one, each as `NAME=VALUE`.
///
/// The files are read here and only here: one may be a pipe.
pub(crate) fn read(files: &[impl AsRef<Path>], given: &[String]) -> Result<Variables, Failure> {
    let mut variables = Variables::default();
    for file in files {
        variables.set.extend(read_file(file.as_ref())?);
    }
    for text in given {
        match resolve(text).map_err(|why| Failure::new(format!("--env {text:?}: {why}")))? {
            Some(variable) => variables.set.push(variable),
            // By Docker's rule a name without a value here takes the image's variable away.
            None => variables.unset.push(text.clone()),
        }
    }
    Ok(variables)
}

/// What the user gave.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    set: Vec<String>,
    unset: Vec<String>,
}

impl Variables {
    /// Merges the image's variables and these. The later wins; the place in the list is that of the first.
    ///
    /// `PATH` and `HOSTNAME` are added where nobody sets them, as programs expect them of a container.
    pub(crate) fn merge(self, image: &[String], hostname: &str) -> Vec<String> {
        let defaults = [format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
        // An entry of an image without a value is an empty variable.
        let image = image
            .iter()
            .filter(|variable| !variable.starts_with('='))
            .map(|variable| if variable.contains('=') { variable.clone() } else { format!("{variable}=") });
        let mut merged: Vec<String> = Vec::new();
        for variable in defaults.into_iter().chain(image).chain(self.set) {
            match merged.iter_mut().find(|present| name(present) == name(&variable)) {
                Some(present) => *present = variable,
                None => merged.push(variable),
            }
        }
        merged.retain(|variable| !self.unset.iter().any(|unset| unset == name(variable)));
        merged
    }
}

fn name(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

/// A variable as given: `NAME=VALUE`, or `NAME` alone for the value that it has here, if it has one.
fn resolve(text: &str) -> Result<Option<String>, String> {
    let name = name(text);
    if name.is_empty() {
        return Err("a variable needs a name".to_owned());
    }
    if text.contains('\0') {
        return Err("a variable cannot hold a NUL byte".to_owned());
    }
    if text.contains('=') {
        return Ok(Some(text.to_owned()));
    }
    match std::env::var(name) {
        Ok(value) => Ok(Some(format!("{name}={value}"))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err("its value here is not UTF-8".to_owned()),
    }
}

fn read_file(path: &Path) -> Result<Vec<String>, Failure> {
    let failed = |why: String| Failure::new(format!("--env-file {}: {why}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let read =
        file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    if read as u64 > FILE_BYTES {
        return Err(failed(format!("it is larger than {FILE_BYTES} bytes")));
    }
    let mut variables = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = name(line);
        if name.contains(char::is_whitespace) {
            return Err(failed(format!("line {}: the name {name:?} contains white space", number + 1)));
        }
        variables.extend(resolve(line).map_err(|why| failed(format!("line {}: {why}", number + 1)))?);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_FILES: [&str; 0] = [];

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    fn merged(image: &[&str], files: &[&Path], given: &[&str]) -> Vec<String> {
        read(files, &strings(given)).unwrap().merge(&strings(image), "h")
    }

    #[test]
    fn the_later_value_wins_in_the_place_of_the_first() {
        let merged = merged(&["PATH=/bin", "A=1"], &[], &["A=2", "B=x=y", "PATH="]);
        assert_eq!(merged, strings(&["PATH=", "HOSTNAME=h", "A=2", "B=x=y"]));
    }

    #[test]
    fn path_and_hostname_are_there_unless_somebody_sets_them() {
        assert_eq!(merged(&[], &[], &[]), [format!("PATH={DEFAULT_PATH}"), "HOSTNAME=h".to_owned()]);
    }

    #[test]
    fn a_name_alone_takes_the_value_it_has_here_or_takes_the_images_away() {
        let path = std::env::var("PATH").unwrap();
        let merged = merged(&["CELLULE_TEST_SURELY_UNSET=1"], &[], &["PATH", "CELLULE_TEST_SURELY_UNSET"]);
        assert_eq!(merged, [format!("PATH={path}"), "HOSTNAME=h".to_owned()]);
    }

    #[test]
    fn a_file_may_hold_comments_and_values_with_spaces() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, "# comment\n\n  A=1 2 # not a comment\nB=\n").unwrap();
        let merged = merged(&["PATH=/"], &[&file], &["B=3"]);
        assert_eq!(merged, strings(&["PATH=/", "HOSTNAME=h", "A=1 2 # not a comment", "B=3"]));
    }

    #[test]
    fn mistakes_name_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, "A=1\nB C=2\n").unwrap();
        assert!(read(&[&file], &[]).unwrap_err().render().contains("line 2"));
        assert!(read(&[dir.path().join("none")], &[]).unwrap_err().render().contains("none"));
        assert!(read(&NO_FILES, &strings(&["=x"])).is_err());
    }
}
