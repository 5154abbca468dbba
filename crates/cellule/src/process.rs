//! What runs in a sandbox: the image's settings and the user's, put together by Docker's rules.

use cellule_image::ImageConfig;

/// The user's settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserSettings {
    /// Instead of the image's entrypoint; empty takes that away.
    pub(crate) entrypoint: Option<String>,
    /// What stands behind the image.
    pub(crate) arguments: Vec<String>,
    pub(crate) user: Option<String>,
    pub(crate) working_dir: Option<String>,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Empty if neither names a program.
    pub(crate) argv: Vec<String>,
    pub(crate) user: String,
    pub(crate) working_dir: String,
}

/// A working directory that begins with no slash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the working directory {0:?} is not an absolute path")]
pub struct RelativeWorkingDir(pub String);

/// Puts both together.
///
/// An entrypoint of the user's takes the image's command away too, since that was written for the image's entrypoint.
pub(crate) fn compose(image: &ImageConfig, user: UserSettings) -> Result<Process, RelativeWorkingDir> {
    let (entrypoint, default_cmd) = match user.entrypoint {
        Some(entrypoint) if entrypoint.is_empty() => (Vec::new(), Vec::new()),
        Some(entrypoint) => (vec![entrypoint], Vec::new()),
        None => (image.entrypoint.clone(), image.cmd.clone()),
    };
    let arguments = if user.arguments.is_empty() { default_cmd } else { user.arguments };
    let argv: Vec<String> = entrypoint.into_iter().chain(arguments).collect();
    // An empty option is one whose variable was not set: it must not make a root of the image's user.
    let given = |option: Option<String>| option.filter(|text| !text.is_empty());
    let working_dir = given(user.working_dir).unwrap_or_else(|| image.working_dir.clone());
    let working_dir = if working_dir.is_empty() { "/".to_owned() } else { working_dir };
    if !working_dir.starts_with('/') {
        return Err(RelativeWorkingDir(working_dir));
    }
    Ok(Process { argv, user: given(user.user).unwrap_or_else(|| image.user.clone()), working_dir })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: strings(&["/entry", "-x"]),
            cmd: strings(&["serve"]),
            user: "app".into(),
            working_dir: "/srv".into(),
            ..ImageConfig::default()
        }
    }

    fn argv(image: &ImageConfig, entrypoint: Option<&str>, arguments: &[&str]) -> Vec<String> {
        let user = UserSettings {
            entrypoint: entrypoint.map(Into::into),
            arguments: strings(arguments),
            ..UserSettings::default()
        };
        compose(image, user).unwrap().argv
    }

    #[test]
    fn arguments_take_the_place_of_cmd_and_follow_the_entrypoint() {
        assert_eq!(argv(&image(), None, &[]), strings(&["/entry", "-x", "serve"]));
        assert_eq!(argv(&image(), None, &["a", "b"]), strings(&["/entry", "-x", "a", "b"]));
    }

    #[test]
    fn an_own_entrypoint_takes_cmd_away() {
        assert_eq!(argv(&image(), Some("sh"), &[]), strings(&["sh"]));
        assert_eq!(argv(&image(), Some("sh"), &["-c", "x"]), strings(&["sh", "-c", "x"]));
        assert_eq!(argv(&image(), Some(""), &["ls"]), strings(&["ls"]));
        assert!(argv(&image(), Some(""), &[]).is_empty());
    }

    #[test]
    fn user_and_directory_are_the_images_unless_given() {
        let process = compose(&image(), UserSettings::default()).unwrap();
        assert_eq!((process.user.as_str(), process.working_dir.as_str()), ("app", "/srv"));
        let user = UserSettings {
            user: Some("0:0".into()),
            working_dir: Some("/tmp".into()),
            ..UserSettings::default()
        };
        let process = compose(&image(), user).unwrap();
        assert_eq!((process.user.as_str(), process.working_dir.as_str()), ("0:0", "/tmp"));
        let empty = UserSettings { user: Some(String::new()), ..UserSettings::default() };
        assert_eq!(compose(&image(), empty).unwrap().user, "app");
        let relative = UserSettings { working_dir: Some("tmp".into()), ..UserSettings::default() };
        assert_eq!(compose(&image(), relative), Err(RelativeWorkingDir("tmp".to_owned())));
    }
}
