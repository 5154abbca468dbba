//! `cellule cp`: copies files between this host and a running sandbox.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, stdin, stdout};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cellule::{FileError, FileInfo, FileKind, Files, Sandbox, TarInOptions};
use cellule_rootfs::PackOptions;

use super::fs;
use crate::copy::local;
use crate::copy::place::{Destination, Place, Source, follows, place, place_of_stream, without_end};
use crate::copy::unpack::{Keep, UnpackError, unpack};
use crate::copy::words::{Copy, Direction, Local};
use crate::failure::Failure;
use crate::quantity::show_size;
use crate::{bridge, completion, flow, host};

/// Links that are followed in the guest, as the kernel does.
const LINKS: usize = 40;

/// Copy files between this host and a running sandbox
///
/// One side is a path of this host, the other NAME:PATH. With - instead of the host's path, a tar is read from standard
/// input and unpacked into the directory PATH, or written to standard output. What comes out of a sandbox never lands
/// outside of the destination, whatever the sandbox says.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Keep user and group; out of a sandbox that takes root. Otherwise all is root's in a sandbox, and your own here
    #[arg(short, long)]
    archive: bool,
    /// If the source is a symbolic link, copy what it leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not say what was copied
    #[arg(short, long)]
    quiet: bool,
    /// Where from: PATH, NAME:PATH or -
    #[arg(value_name = "SRC", add = completion::copy_side())]
    source: OsString,
    /// Where to: NAME:PATH, PATH or -
    #[arg(value_name = "DST", add = completion::copy_side())]
    destination: OsString,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let copy = Copy::parse(&arguments.source, &arguments.destination).map_err(|error| Failure::of(&error))?;
    let runtime = super::runtime()?;
    let copied = runtime.block_on(async {
        let mut sandbox = host::connect(&copy.sandbox).await?;
        match (copy.direction, &copy.local) {
            (Direction::In, Local::Stream) => stream_in(&mut sandbox, &copy, arguments).await,
            (Direction::In, Local::Path(from)) => {
                path_in(&mut sandbox, &copy, from, arguments).await.map(Some)
            }
            (Direction::Out, Local::Stream) => stream_out(&mut sandbox, &copy, arguments).await,
            (Direction::Out, Local::Path(to)) => path_out(&mut sandbox, &copy, to, arguments).await.map(Some),
        }
    });
    // A thread may still wait for standard input, which need not end for us to.
    runtime.shutdown_background();
    if let Some(bytes) = copied?
        && !arguments.quiet
    {
        let to = arguments.destination.to_string_lossy();
        crate::say(&format!("copied {} to {}\n", show_size(bytes), crate::failure::printable(&to)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn path_in(
    sandbox: &mut Sandbox,
    copy: &Copy,
    from: &OsStr,
    arguments: &Arguments,
) -> Result<u64, Failure> {
    let follow = arguments.follow_link;
    let (path, source) = local::source(from, follow)
        .map_err(|error| Failure::because(format!("cannot look at {}", from.display()), &error))?;
    let place = {
        let (to, destination) = in_guest(sandbox, &copy.path).await?;
        place(&path, source, &to, destination).map_err(|error| Failure::of(&error))?
    };
    let pack = PackOptions {
        name: place.name.clone().unwrap_or_default().into_encoded_bytes(),
        owner: owner(arguments),
        follow: follows(&path, follow),
    };
    let options = TarInOptions { owner: owner(arguments), keep_kinds: true };
    let opened = sandbox.files().tar_in(place.directory.as_bytes(), options).await;
    let mut writer = ours(sandbox, opened).await?;
    let packed =
        bridge::write_from(&mut writer, move |out| cellule_rootfs::pack(&PathBuf::from(path), &pack, out));
    match packed.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(Failure::because("cannot read all that is to be copied", &error)),
        Err(error) => return Err(fs::guests(sandbox, error, "copy into the sandbox").await),
    }
    let finished = writer.finish().await;
    Ok(ours(sandbox, finished).await?.bytes)
}

async fn stream_in(
    sandbox: &mut Sandbox,
    copy: &Copy,
    arguments: &Arguments,
) -> Result<Option<u64>, Failure> {
    if stdin().is_terminal() {
        return Err(Failure::new("an archive is expected on standard input, which is a terminal")
            .hint("redirect it: < FILE"));
    }
    let (to, destination) = in_guest(sandbox, &copy.path).await?;
    let place = place_of_stream(&to, destination).map_err(|error| Failure::of(&error))?;
    let options = TarInOptions { owner: owner(arguments), keep_kinds: true };
    let opened = sandbox.files().tar_in(place.directory.as_bytes(), options).await;
    let mut writer = ours(sandbox, opened).await?;
    if let Err(error) = flow::from_stdin(&mut writer).await {
        return Err(fs::broken(sandbox, error, "pass on the archive").await);
    }
    let finished = writer.finish().await;
    Ok(Some(ours(sandbox, finished).await?.bytes))
}

/// Whom what is copied into a sandbox is given to; none: whom it belongs to here.
fn owner(arguments: &Arguments) -> Option<(u32, u32)> {
    (!arguments.archive).then_some((0, 0))
}

async fn path_out(
    sandbox: &mut Sandbox,
    copy: &Copy,
    to: &OsStr,
    arguments: &Arguments,
) -> Result<u64, Failure> {
    let (follow, source) = source_in_guest(sandbox, &copy.path, arguments.follow_link).await?;
    let (path, destination) = local::destination(to)
        .map_err(|error| Failure::because(format!("cannot look at {}", to.display()), &error))?;
    let place = place(&copy.path, source, &path, destination).map_err(|error| Failure::of(&error))?;
    let name = place.name.clone().unwrap_or_default();
    let opened = sandbox.files().tar_out(without_end(&copy.path).as_bytes(), name.as_bytes(), follow).await;
    let reader = ours(sandbox, opened).await?;
    let keep = if arguments.archive { Keep::All } else { Keep::Own };
    let unpacked = bridge::read_into(reader, move |stream| unpack(stream, &place, keep)).await;
    match unpacked {
        Ok(Ok(unpacked)) => Ok(unpacked.bytes),
        Ok(Err(error)) => Err(not_unpacked(sandbox, error).await),
        Err(error) => Err(Failure::because("cannot copy out of the sandbox", &error)),
    }
}

/// The failure of an archive that was not unpacked: the guest's words, where it broke off.
async fn not_unpacked(sandbox: &mut Sandbox, error: UnpackError) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        // An I/O error's own source is that of what it holds, which is looked for here.
        let held = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        if let Some(theirs) = held.and_then(|held| held.downcast_ref::<FileError>()) {
            return host::explained(sandbox, theirs.clone()).await;
        }
        cause = error.source();
    }
    Failure::of(&error)
}

async fn stream_out(
    sandbox: &mut Sandbox,
    copy: &Copy,
    arguments: &Arguments,
) -> Result<Option<u64>, Failure> {
    if stdout().is_terminal() {
        return Err(Failure::new("an archive is no text for a terminal").hint("redirect it: > FILE"));
    }
    let (follow, source) = source_in_guest(sandbox, &copy.path, arguments.follow_link).await?;
    // Called as if it were copied into a directory.
    let Place { name, .. } = place(&copy.path, source, OsStr::new("/"), Destination::Directory)
        .map_err(|error| Failure::of(&error))?;
    let name = name.unwrap_or_default();
    let opened = sandbox.files().tar_out(without_end(&copy.path).as_bytes(), name.as_bytes(), follow).await;
    let reader = ours(sandbox, opened).await?;
    match flow::to_stdout(reader).await {
        Ok(_) => Ok(None),
        Err(error) => Err(fs::broken(sandbox, error, "pass on the archive").await),
    }
}

/// What is at a source in the guest, and whether a link there is followed.
async fn source_in_guest(
    sandbox: &mut Sandbox,
    path: &OsStr,
    asked: bool,
) -> Result<(bool, Source), Failure> {
    let follow = follows(path, asked);
    let found = look(&sandbox.files(), without_end(path).as_bytes(), follow).await;
    let source = match ours(sandbox, found).await? {
        None => Source::Absent,
        Some(info) if info.kind == FileKind::Directory => Source::Directory,
        Some(_) => Source::File,
    };
    Ok((follow, source))
}

/// What is at a destination in the guest, and its path, at the end of links if it is a file.
async fn in_guest(sandbox: &mut Sandbox, path: &OsStr) -> Result<(OsString, Destination), Failure> {
    let files = sandbox.files();
    let looked = async {
        let bare = without_end(path).as_bytes();
        match look(&files, bare, true).await? {
            Some(info) if info.kind == FileKind::Directory => Ok((path.to_owned(), Destination::Directory)),
            Some(_) if bare == path.as_bytes() => Ok((end_of_links(&files, path).await?, Destination::File)),
            Some(_) => Ok((path.to_owned(), Destination::File)),
            None => {
                let parent = Path::new(OsStr::from_bytes(bare)).parent().unwrap_or(Path::new("/"));
                let there = look(&files, parent.as_os_str().as_bytes(), true).await?;
                let directory = there.is_some_and(|info| info.kind == FileKind::Directory);
                let destination = if directory { Destination::Absent } else { Destination::Nowhere };
                Ok((path.to_owned(), destination))
            }
        }
    };
    let looked = looked.await;
    ours(sandbox, looked).await
}

/// The file that a path means: what is copied onto a link goes into the file that it leads to.
async fn end_of_links(files: &Files, path: &OsStr) -> Result<OsString, FileError> {
    let mut path = PathBuf::from(path);
    for _ in 0..LINKS {
        let info = files.stat(path.as_os_str().as_bytes(), false).await?;
        let Some(target) = info.target.filter(|_| info.kind == FileKind::Symlink) else { break };
        path = path.parent().unwrap_or(Path::new("/")).join(OsStr::from_bytes(&target));
    }
    Ok(path.into_os_string())
}

/// What is at a path, if anything is.
async fn look(files: &Files, path: &[u8], follow: bool) -> Result<Option<FileInfo>, FileError> {
    match files.stat(path, follow).await {
        Ok(info) => Ok(Some(info)),
        Err(FileError::Failed { kind: io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, .. }) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn ours<T>(sandbox: &mut Sandbox, result: Result<T, FileError>) -> Result<T, Failure> {
    match result {
        Ok(done) => Ok(done),
        Err(error) => Err(host::explained(sandbox, error).await),
    }
}
