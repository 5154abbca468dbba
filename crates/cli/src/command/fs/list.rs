//! What there is: directories, and what is known of files.

use std::process::ExitCode;

use cellule::{FileError, FileInfo, FileKind};
use serde::Serialize;

use super::{Place, Places, absolute, done};
use crate::each::code;
use crate::failure::Failure;
use crate::line::one_line;
use crate::listing::{Format, FormatOption, Row};
use crate::quantity::show_size;
use crate::{host, moment};

/// What `exists` says by its exit code.
const MISSING: u8 = 1;

#[derive(Debug, clap::Args)]
pub(crate) struct Ls {
    /// Show more than names
    #[arg(short, long)]
    long: bool,
    #[command(flatten)]
    format: FormatOption,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Stat {
    /// Of a symbolic link, tell of the link itself
    #[arg(long)]
    no_follow: bool,
    #[command(flatten)]
    format: FormatOption,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Readlink {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Exists {
    #[command(flatten)]
    place: Place,
}

/// A file. Its name is a path where paths were asked for.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    kind: &'static str,
    /// Octal.
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    modified_ns: i64,
    inode: u64,
    links: u64,
    target: Option<String>,
}

impl Line {
    fn of(name: &[u8], info: &FileInfo) -> Self {
        Self {
            name: String::from_utf8_lossy(name).into_owned(),
            kind: match info.kind {
                FileKind::Regular => "file",
                FileKind::Directory => "directory",
                FileKind::Symlink => "symlink",
                FileKind::Fifo => "fifo",
                FileKind::Socket => "socket",
                FileKind::CharacterDevice => "character device",
                FileKind::BlockDevice => "block device",
            },
            mode: format!("{:04o}", info.mode),
            uid: info.uid,
            gid: info.gid,
            size: info.size,
            modified_ns: moment::of(info.modified),
            inode: info.inode,
            links: info.links,
            target: info.target.as_deref().map(|target| String::from_utf8_lossy(target).into_owned()),
        }
    }
}

impl Row<6> for Line {
    const HEADER: [&'static str; 6] = ["KIND", "MODE", "OWNER", "SIZE", "MODIFIED", "NAME"];

    fn id(&self) -> String {
        self.name.clone()
    }

    fn lines(&self, _full: bool) -> Vec<[String; 6]> {
        let name = one_line(self.name.as_bytes());
        let name = match &self.target {
            Some(target) => format!("{name} -> {}", one_line(target.as_bytes())),
            None => name,
        };
        // Whole seconds, as ls(1) has it.
        let modified = moment::show(self.modified_ns);
        let seconds = modified.get(..19).unwrap_or(&modified);
        vec![[
            self.kind.to_owned(),
            self.mode.clone(),
            format!("{}:{}", self.uid, self.gid),
            show_size(self.size),
            format!("{seconds}Z"),
            name,
        ]]
    }
}

pub(super) async fn ls(arguments: &Ls) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(&arguments.place.sandbox).await?;
    let path = absolute(&arguments.place.path);
    let files = sandbox.files();
    let mut lines: Vec<Line> = match files.list(&path).await {
        Ok(entries) => entries.iter().map(|entry| Line::of(&entry.name, &entry.info)).collect(),
        // What is no directory is the only one to tell of, as ls(1) does.
        Err(FileError::Failed { kind: std::io::ErrorKind::NotADirectory, .. }) => {
            let info = files.stat(&path, false).await;
            vec![Line::of(&path, &done(&mut sandbox, info).await?)]
        }
        Err(error) => return Err(host::explained(&mut sandbox, error).await),
    };
    lines.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let text = match arguments.format.format {
        Format::Table if !arguments.long => {
            lines.iter().map(|line| one_line(line.name.as_bytes()) + "\n").collect()
        }
        _ => arguments.format.render(&lines, true)?,
    };
    crate::answer(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn stat(arguments: &Stat) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(&arguments.places.sandbox).await?;
    let (mut lines, mut failures) = (Vec::new(), Vec::new());
    for path in &arguments.places.paths {
        let path = absolute(path);
        let info = sandbox.files().stat(&path, !arguments.no_follow).await;
        match done(&mut sandbox, info).await {
            Ok(info) => lines.push(Line::of(&path, &info)),
            Err(failure) => failures.push(failure),
        }
    }
    if !lines.is_empty() || arguments.format.format != Format::Table {
        crate::answer(&arguments.format.render(&lines, true)?)?;
    }
    for failure in &failures {
        crate::say(&failure.render());
    }
    Ok(code(!failures.is_empty()))
}

pub(super) async fn readlink(arguments: &Readlink) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(&arguments.place.sandbox).await?;
    let target = sandbox.files().read_link(absolute(&arguments.place.path)).await;
    let target = done(&mut sandbox, target).await?;
    crate::answer(&(one_line(&target) + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn exists(arguments: &Exists) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(&arguments.place.sandbox).await?;
    let exists = sandbox.files().exists(absolute(&arguments.place.path)).await;
    let exists = done(&mut sandbox, exists).await?;
    Ok(ExitCode::from(if exists { 0 } else { MISSING }))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn info(kind: FileKind, target: Option<&[u8]>) -> FileInfo {
        FileInfo {
            kind,
            size: 1500,
            mode: 0o4755,
            uid: 0,
            gid: 5,
            modified: UNIX_EPOCH + Duration::from_millis(1500),
            inode: 9,
            links: 1,
            target: target.map(Into::into),
        }
    }

    #[test]
    fn a_line_tells_kind_permissions_owner_and_time() {
        let cells = Line::of(b"a\n", &info(FileKind::Regular, None)).lines(true).remove(0);
        assert_eq!(
            cells.each_ref().map(String::as_str),
            ["file", "4755", "0:5", "1.50 kB", "1970-01-01T00:00:01Z", "a\u{fffd}"]
        );
        let link = Line::of(b"l", &info(FileKind::Symlink, Some(b"/t\x1b")));
        assert_eq!(link.lines(true)[0][5], "l -> /t\u{fffd}");
    }

    #[test]
    fn programs_get_numbers_and_the_mode_in_octal() {
        let json = serde_json::to_value(Line::of(b"d", &info(FileKind::Directory, None))).unwrap();
        let expected = serde_json::json!({
            "name": "d", "kind": "directory", "mode": "4755", "uid": 0, "gid": 5, "size": 1500,
            "modified_ns": 1_500_000_000, "inode": 9, "links": 1, "target": null,
        });
        assert_eq!(json, expected);
    }
}
