//! The variables that a command gets: `--env`, `--env-file` and the image's own, merged by Docker's rules.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::failure::Failure;

/// An environment file larger than this is a mistake.
const FILE_BYTES: u64 = 1 << 20;

/// Merges the image's variables, those of the files in their order, and those given one by one. The later wins; the
/// place in the list is that of the first.
pub(crate) fn merge(
    image: &[String],
    files: &[impl AsRef<Path>],
    given: &[String],
) -> Result<Vec<String>, Failure> {
    let mut merged: Vec<String> = Vec::new();
    let mut set = |variable: String| {
        let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
        match merged.iter_mut().find(|present| name(present) == name(&variable)) {
            Some(present) => *present = variable,
            None => merged.push(variable),
        }
    };
    // An entry of an image without a value is an empty variable.
    image
        .iter()
        .filter(|v| !v.starts_with('='))
        .for_each(|v| set(if v.contains('=') { v.clone() } else { format!("{v}=") }));
    for file in files {
        read_file(file.as_ref())?.into_iter().for_each(&mut set);
    }
    for variable in given {
        if let Some(variable) =
            resolve(variable).map_err(|why| Failure::new(format!("--env {variable:?}: {why}")))?
        {
            set(variable);
        }
    }
    Ok(merged)
}

/// A variable as given: `NAME=VALUE`, or `NAME` alone for the value that it has here, if it has one.
fn resolve(text: &str) -> Result<Option<String>, String> {
    let name = text.split('=').next().unwrap_or_default();
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
        let name = line.split('=').next().unwrap_or_default();
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

    #[test]
    fn the_later_value_wins_in_the_place_of_the_first() {
        let merged =
            merge(&strings(&["PATH=/bin", "A=1"]), &NO_FILES, &strings(&["A=2", "B=x=y", "PATH="])).unwrap();
        assert_eq!(merged, strings(&["PATH=", "A=2", "B=x=y"]));
    }

    #[test]
    fn a_name_alone_takes_the_value_it_has_here_or_nothing() {
        let path = std::env::var("PATH").unwrap();
        let merged = merge(&[], &NO_FILES, &strings(&["PATH", "CELLULE_TEST_SURELY_UNSET"])).unwrap();
        assert_eq!(merged, [format!("PATH={path}")]);
    }

    #[test]
    fn a_file_may_hold_comments_and_values_with_spaces() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, "# comment\n\n  A=1 2 # not a comment\nB=\n").unwrap();
        assert_eq!(
            merge(&[], &[&file], &strings(&["B=3"])).unwrap(),
            strings(&["A=1 2 # not a comment", "B=3"])
        );
    }

    #[test]
    fn mistakes_name_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, "A=1\nB C=2\n").unwrap();
        assert!(merge(&[], &[&file], &[]).unwrap_err().render().contains("line 2"));
        assert!(merge(&[], &[dir.path().join("none")], &[]).unwrap_err().render().contains("none"));
        assert!(merge(&[], &NO_FILES, &strings(&["=x"])).is_err());
    }
}
