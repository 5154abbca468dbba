//! Owns the look-up of users and groups in the image's own files, by Docker's rules.
//!
//! The files are hostile: only a regular file of bounded size is read, and lines that are not of the known form are as
//! good as absent.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use cellule_protocol::v1::start_failure::Kind;
use rustix::fs::{Mode, OFlags};

use super::failure::{Failure, quote};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const MAX_FILE: u64 = 1024 * 1024;
/// What a number may be at most, for a user or a group.
const MAX_ID: u32 = i32::MAX.unsigned_abs();
/// The kernel's `NGROUPS_MAX`.
const MAX_GROUPS: usize = 65_536;

/// Whom a process runs as.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The primary group included.
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// Whom `user`, "name|uid[:group|gid]" or nothing for root, with `additional` groups means in this image.
pub(super) fn resolve(user: &str, additional: &[String]) -> Result<Identity, Failure> {
    resolve_in(user, additional, &read(PASSWD), &read(GROUP))
}

/// Whom "user", "user:group" or ":group" means in this image; what is not given is not to change.
pub(crate) fn owner(text: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if user.is_empty() && group.is_none_or(str::is_empty) {
        return Err("no user and no group is named".to_owned());
    }
    let identity = resolve(text, &[]).map_err(|failure| failure.into_message().message)?;
    Ok(((!user.is_empty()).then_some(identity.uid), group.map(|_| identity.gid)))
}

/// The number of a group of this image, by its name.
pub(super) fn group(name: &str) -> Option<u32> {
    let file = read(GROUP).ok()?;
    file.lines().filter_map(Group::parse).find(|group| group.name == name).map(|group| group.gid)
}

/// The names of this image's users, by their numbers.
pub(crate) fn names() -> HashMap<u32, String> {
    let file = read(PASSWD).unwrap_or_default();
    // The first line of a number is the one that counts.
    file.lines().rev().filter_map(User::parse).map(|user| (user.uid, user.name.to_owned())).collect()
}

type Contents = Result<String, io::Error>;

fn resolve_in(
    user: &str,
    additional: &[String],
    passwd: &Contents,
    group: &Contents,
) -> Result<Identity, Failure> {
    let (user_part, group_part) = user.split_once(':').unwrap_or((user, ""));
    let user_part = if user_part.is_empty() { "0" } else { user_part };
    let users = passwd.as_deref().unwrap_or_default();
    let entry = users.lines().filter_map(User::parse).find(|entry| entry.is(user_part));
    let (uid, mut gid, home, name) = match (&entry, number(user_part)) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home, Some(entry.name)),
        // A number needs no entry.
        (None, Some(uid)) => (uid, 0, "/", None),
        (None, None) => return Err(unknown(Kind::UnknownUser, "user", user_part, PASSWD, passwd)),
    };
    let groups_file = group.as_deref().unwrap_or_default();
    let mut groups = Vec::new();
    if group_part.is_empty() {
        let of_user = groups_file
            .lines()
            .filter_map(Group::parse)
            .filter(|group| name.is_some_and(|name| group.members.split(',').any(|member| member == name)));
        groups.extend(of_user.map(|group| group.gid));
    } else {
        gid = group_id(group_part, groups_file)
            .ok_or_else(|| unknown(Kind::UnknownGroup, "user", group_part, GROUP, group))?;
    }
    for (at, wanted) in additional.iter().enumerate() {
        let id = group_id(wanted, groups_file)
            .ok_or_else(|| unknown(Kind::UnknownGroup, &format!("groups[{at}]"), wanted, GROUP, group))?;
        groups.push(id);
    }
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > MAX_GROUPS {
        return Err(Failure::invalid("groups", format!("makes more than {MAX_GROUPS} groups")));
    }
    Ok(Identity { uid, gid, groups, home: if home.is_empty() { "/".to_owned() } else { home.to_owned() } })
}

fn group_id(wanted: &str, file: &str) -> Option<u32> {
    let found = file.lines().filter_map(Group::parse).find(|group| group.name == wanted);
    found.map(|group| group.gid).or_else(|| number(wanted))
}

fn unknown(kind: Kind, field: &str, wanted: &str, path: &str, file: &Contents) -> Failure {
    let wanted = quote(wanted.as_bytes());
    match file {
        Ok(_) => Failure::new(kind, field, format!("{path} has no {wanted}")),
        Err(error) => Failure::new(kind, field, format!("{wanted} can't be looked up: {path}: {error}"))
            .with_errno(error),
    }
}

fn number(text: &str) -> Option<u32> {
    // `parse` would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|id| *id <= MAX_ID)
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> User<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let (_password, uid, gid) = (fields.next()?, number(fields.next()?)?, number(fields.next()?)?);
        let home = fields.nth(1).unwrap_or_default();
        Some(Self { name, uid, gid, home })
    }

    fn is(&self, wanted: &str) -> bool {
        self.name == wanted || number(wanted) == Some(self.uid)
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let (_password, gid) = (fields.next()?, number(fields.next()?)?);
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }
}

fn read(path: &str) -> Contents {
    // What is no regular file must not be waited for either.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("is no regular file"));
    }
    let mut contents = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > MAX_FILE {
        return Err(io::Error::other("is larger than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&contents).into_owned())
}

#[cfg(test)]
mod tests;
