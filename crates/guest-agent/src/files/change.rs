//! Owns the small operations: one or a few system calls each.

use cellule_protocol::v1::{
    MakeDirectoryRequest, ReadLinkResponse, RenameRequest, SetModeRequest, SetOwnerRequest, StatRequest,
    StatResponse,
};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, RenameFlags, Uid, chmodat, chownat, mkdirat, readlinkat,
    renameat_with, symlinkat,
};
use rustix::io::Errno;

use super::failure::{At, Failure};
use super::meta::Meta;
use super::path::GuestPath;
use crate::exec::users;

const MAKE: &str = "make directory";
const RENAME: &str = "rename";
const SET_OWNER: &str = "set the owner of";

pub(super) fn stat(request: StatRequest) -> Result<StatResponse, Failure> {
    let path = GuestPath::new("look at", request.path)?;
    let meta = Meta::of_path(path.as_c_str(), request.follow).at("look at", path.as_bytes())?;
    let target = if meta.kind() == FileType::Symlink {
        readlinkat(CWD, path.as_c_str(), Vec::new()).at("look at", path.as_bytes())?.into_bytes()
    } else {
        Vec::new()
    };
    Ok(StatResponse { info: Some(meta.info(target)) })
}

pub(super) fn make_directory(request: MakeDirectoryRequest) -> Result<(), Failure> {
    let path = GuestPath::new(MAKE, request.path)?;
    let mode = mode(MAKE, &path, request.mode)?;
    let bytes = path.as_bytes();
    if request.parents {
        let slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for parent in slashes.map(|(at, _)| &bytes[..at]).filter(|parent| !parent.is_empty()) {
            match mkdirat(CWD, parent, Mode::from_raw_mode(0o755)) {
                // A parent that may not be made but is there is as good; if it is not, the next says so.
                Ok(()) | Err(Errno::EXIST | Errno::ROFS | Errno::ACCESS) => {}
                Err(errno) => return Err(errno).at(MAKE, parent),
            }
        }
    }
    match mkdirat(CWD, path.as_c_str(), Mode::from_raw_mode(0o755)) {
        Ok(()) => {}
        Err(Errno::EXIST) if request.parents => {
            let meta = Meta::of_path(path.as_c_str(), true).at(MAKE, bytes)?;
            return if meta.is_directory() { Ok(()) } else { Err(Errno::EXIST).at(MAKE, bytes) };
        }
        Err(errno) => return Err(errno).at(MAKE, bytes),
    }
    match mode {
        // Past the agent's own umask, and with the bits that mkdir(2) takes no notice of.
        Some(mode) => chmodat(CWD, path.as_c_str(), mode, AtFlags::empty()).at(MAKE, bytes),
        None => Ok(()),
    }
}

pub(super) fn rename(request: RenameRequest) -> Result<(), Failure> {
    let from = GuestPath::new(RENAME, request.from)?;
    let to = GuestPath::new(RENAME, request.to)?;
    let flags = if request.no_replace { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
    let renamed = renameat_with(CWD, from.as_c_str(), CWD, to.as_c_str(), flags);
    // The name to blame is the new one where that is what the kernel refuses.
    let blamed =
        if matches!(renamed, Err(Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR)) { &to } else { &from };
    renamed.at(RENAME, blamed.as_bytes())
}

pub(super) fn set_mode(request: SetModeRequest) -> Result<(), Failure> {
    let path = GuestPath::new("set the mode of", request.path)?;
    let mode = mode("set the mode of", &path, Some(request.mode))?.unwrap_or(Mode::empty());
    chmodat(CWD, path.as_c_str(), mode, AtFlags::empty()).at("set the mode of", path.as_bytes())
}

pub(super) fn set_owner(request: SetOwnerRequest) -> Result<(), Failure> {
    let path = GuestPath::new(SET_OWNER, request.path)?;
    let (uid, gid) =
        users::owner(&request.owner).map_err(|why| Failure::invalid(SET_OWNER, path.as_bytes(), &why))?;
    let flags = if request.no_follow { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::empty() };
    chownat(CWD, path.as_c_str(), uid.map(Uid::from_raw), gid.map(Gid::from_raw), flags)
        .at(SET_OWNER, path.as_bytes())
}

pub(super) fn symlink(target: &[u8], path: Vec<u8>) -> Result<(), Failure> {
    let path = GuestPath::new("make link", path)?;
    symlinkat(target, CWD, path.as_c_str()).at("make link", path.as_bytes())
}

pub(super) fn read_link(path: Vec<u8>) -> Result<ReadLinkResponse, Failure> {
    let path = GuestPath::new("read link", path)?;
    match readlinkat(CWD, path.as_c_str(), Vec::new()) {
        Ok(target) => Ok(ReadLinkResponse { target: target.into_bytes() }),
        Err(Errno::INVAL) => {
            Err(Failure::because("read link", path.as_bytes(), Errno::INVAL, "is no symbolic link"))
        }
        Err(errno) => Err(errno).at("read link", path.as_bytes()),
    }
}

fn mode(doing: &str, path: &GuestPath, mode: Option<u32>) -> Result<Option<Mode>, Failure> {
    match mode {
        Some(bits) if bits > 0o7777 => {
            Err(Failure::invalid(doing, path.as_bytes(), "there are no permissions such as these"))
        }
        bits => Ok(bits.map(Mode::from_raw_mode)),
    }
}
