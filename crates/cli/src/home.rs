//! Where the state directory and QEMU are. The one place that asks the environment for them.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::Failure;

/// QEMU's program where `$CELLULE_QEMU` names one, rather than the first in `PATH`.
pub(crate) fn qemu() -> Option<PathBuf> {
    std::env::var_os("CELLULE_QEMU").filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What decides where the state directory is.
struct Surroundings {
    cellule_home: Option<OsString>,
    xdg_data_home: Option<OsString>,
    home: Option<OsString>,
    is_root: bool,
}

/// The state directory: `$CELLULE_HOME`, else `$XDG_DATA_HOME/cellule`, else `/var/lib/cellule` for root and
/// `~/.local/share/cellule` for everyone else.
pub(crate) fn locate() -> Result<PathBuf, Failure> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    choose(Surroundings {
        cellule_home: set("CELLULE_HOME"),
        xdg_data_home: set("XDG_DATA_HOME"),
        home: set("HOME"),
        is_root: rustix::process::geteuid().is_root(),
    })
}

fn choose(around: Surroundings) -> Result<PathBuf, Failure> {
    let path = if let Some(home) = around.cellule_home {
        PathBuf::from(home)
    } else if let Some(data) = around.xdg_data_home {
        PathBuf::from(data).join("cellule")
    } else if around.is_root {
        PathBuf::from("/var/lib/cellule")
    } else if let Some(home) = around.home {
        PathBuf::from(home).join(".local/share/cellule")
    } else {
        return Err(Failure::new("there is no place for the state: neither CELLULE_HOME nor HOME is set")
            .hint("set CELLULE_HOME to a directory of your own"));
    };
    if path.is_relative() {
        return Err(Failure::new(format!("the state directory {} is not an absolute path", path.display()))
            .hint("set CELLULE_HOME to an absolute path"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(values: [Option<&str>; 3], is_root: bool) -> Surroundings {
        let [cellule_home, xdg_data_home, home] = values.map(|value| value.map(OsString::from));
        Surroundings { cellule_home, xdg_data_home, home, is_root }
    }

    #[test]
    fn the_first_that_is_set_wins() {
        let cases = [
            ([Some("/c"), Some("/x"), Some("/h")], false, "/c"),
            ([None, Some("/x"), Some("/h")], true, "/x/cellule"),
            ([None, None, Some("/h")], true, "/var/lib/cellule"),
            ([None, None, Some("/h")], false, "/h/.local/share/cellule"),
        ];
        for (values, is_root, expected) in cases {
            assert_eq!(choose(around(values, is_root)).unwrap(), PathBuf::from(expected));
        }
    }

    #[test]
    fn a_relative_or_missing_place_is_refused() {
        assert!(choose(around([Some("state"), None, None], false)).is_err());
        assert!(choose(around([None; 3], false)).is_err());
    }
}
