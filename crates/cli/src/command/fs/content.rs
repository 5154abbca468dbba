//! What files hold: read, written, and as archives.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal as _, stdin, stdout};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use cellule::{ReadRange, TarInOptions, WriteOptions};

use super::{Place, absolute, broken, done};
use crate::failure::Failure;
use crate::{flow, host};

#[derive(Debug, clap::Args)]
pub(crate) struct Read {
    /// Begin at this byte
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    offset: u64,
    /// Read no more than this
    #[arg(long, value_name = "BYTES")]
    length: Option<u64>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Write {
    /// Add to the end of the file instead
    #[arg(short, long)]
    append: bool,
    /// Give it these permissions, in octal; by default those that it has, or 0644
    #[arg(short, long, value_parser = parse_mode)]
    mode: Option<u32>,
    /// Give it to this user and group, both numbers; by default to whom it belongs, or root
    #[arg(long, value_name = "UID:GID", value_parser = parse_owner)]
    owner: Option<(u32, u32)>,
    /// Refuse if there is something already
    #[arg(long, conflicts_with = "append")]
    create_new: bool,
    /// End only when it is on the guest's disk
    #[arg(long)]
    sync: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TarOut {
    /// If the path is a symbolic link, write what it leads to
    #[arg(short = 'L', long)]
    follow: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TarIn {
    /// Give all of it to this user and group, both numbers; by default to whom the archive says
    #[arg(long, value_name = "UID:GID", value_parser = parse_owner)]
    owner: Option<(u32, u32)>,
    /// Refuse to replace a directory by something else, and the other way round
    #[arg(long)]
    keep_kinds: bool,
    #[command(flatten)]
    place: Place,
}

/// Permission bits in octal, with setuid, setgid and sticky.
pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o7777);
    mode.ok_or_else(|| "write it in octal, such as 0755".to_owned())
}

fn parse_owner(text: &str) -> Result<(u32, u32), String> {
    let parts =
        text.split_once(':').and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
    parts.ok_or_else(|| "write it as two numbers, such as 1000:1000".to_owned())
}

pub(super) async fn read(arguments: &Read) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(&arguments.place.sandbox).await?;
    let range = ReadRange { offset: arguments.offset, length: arguments.length };
    let opened = sandbox.files().read(absolute(&arguments.place.path), range).await;
    let reader = done(&mut sandbox, opened).await?;
    match flow::to_stdout(reader).await {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(broken(&mut sandbox, error, "pass on the file").await),
    }
}

pub(super) async fn write(arguments: &Write) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(&arguments.place.sandbox).await?;
    let &Write { append, mode, owner, create_new, sync, .. } = arguments;
    let options = WriteOptions { append, mode, owner, create_new, sync };
    let opened = sandbox.files().write(absolute(&arguments.place.path), options).await;
    let mut writer = done(&mut sandbox, opened).await?;
    if let Err(error) = flow::from_stdin(&mut writer).await {
        return Err(broken(&mut sandbox, error, "pass on standard input").await);
    }
    let finished = writer.finish().await;
    done(&mut sandbox, finished).await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn tar_out(arguments: &TarOut) -> Result<ExitCode, Failure> {
    if stdout().is_terminal() {
        return Err(Failure::new("an archive is no text for a terminal").hint("redirect it: > FILE"));
    }
    let mut sandbox = host::connect(&arguments.place.sandbox).await?;
    let path = absolute(&arguments.place.path);
    let name = name_of(&path);
    let opened = sandbox.files().tar_out(path.as_slice(), name.as_bytes(), arguments.follow).await;
    let reader = done(&mut sandbox, opened).await?;
    match flow::to_stdout(reader).await {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(broken(&mut sandbox, error, "pass on the archive").await),
    }
}

/// What a path is called in its archive; nothing for the root and for what ends in `/.`, whose contents are meant.
fn name_of(path: &[u8]) -> OsString {
    if path.ends_with(b"/.") {
        return OsString::new();
    }
    Path::new(OsStr::from_bytes(path)).file_name().unwrap_or_default().to_owned()
}

pub(super) async fn tar_in(arguments: &TarIn) -> Result<ExitCode, Failure> {
    if stdin().is_terminal() {
        return Err(Failure::new("an archive is expected on standard input, which is a terminal")
            .hint("redirect it: < FILE"));
    }
    let mut sandbox = host::connect(&arguments.place.sandbox).await?;
    let options = TarInOptions { owner: arguments.owner, keep_kinds: arguments.keep_kinds };
    let opened = sandbox.files().tar_in(absolute(&arguments.place.path), options).await;
    let mut writer = done(&mut sandbox, opened).await?;
    if let Err(error) = flow::from_stdin(&mut writer).await {
        return Err(broken(&mut sandbox, error, "pass on the archive").await);
    }
    let finished = writer.finish().await;
    done(&mut sandbox, finished).await?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_and_owners_two_numbers() {
        assert_eq!(parse_mode("0755"), Ok(0o755));
        assert_eq!(parse_mode("4755"), Ok(0o4755));
        for bad in ["", "u+x", "10000", "8", "+755"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_owner("1000:100"), Ok((1000, 100)));
        for bad in ["", "1000", "app:app", "1:2:3", "-1:0"] {
            assert!(parse_owner(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_archive_has_the_last_name_of_its_path() {
        for (path, name) in [("/srv/www", "www"), ("/srv/www/", "www"), ("/srv/.", ""), ("/", ""), ("/.", "")]
        {
            assert_eq!(name_of(path.as_bytes()), name, "{path}");
        }
    }
}
