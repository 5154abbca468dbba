//! The variables that a command gets from `--env` and `--env-file`, read by Docker's rules.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use cellule::Variables;

use crate::failure::Failure;

/// An environment file larger than this is a mistake.
const FILE_BYTES: u64 = 1 << 20;

/// The variables of the files in their order and then those given one by one, each as `NAME=VALUE`.
///
/// The files are read here and only here: one may be a pipe.
pub(crate) fn read(files: &[impl AsRef<Path>], given: &[String]) -> Result<Variables, Failure> {
    let mut variables = Variables::default();
    let refused = |text: &str, why: &dyn std::fmt::Display| Failure::new(format!("--env {text:?}: {why}"));
    for file in files {
        for variable in read_file(file.as_ref())? {
            variables.set(variable.as_str()).map_err(|error| refused(&variable, &error))?;
        }
    }
    for text in given {
        match resolve(text).map_err(|why| refused(text, &why))? {
            Some(variable) => variables.set(variable).map_err(|error| refused(text, &error))?,
            // By Docker's rule a name without a value here takes the image's variable away.
            None => variables.unset(text.as_str()),
        }
    }
    Ok(variables)
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
        read(files, &strings(given)).unwrap().over_image(&strings(image), "h")
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
