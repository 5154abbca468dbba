use proptest::prelude::*;

use super::*;

const USERS: &str = "root:x:0:0:root:/root:/bin/sh\n\
                     # comment\n\
                     broken:x:abc:1::/:\n\
                     short:x\n\
                     alice:x:1000:1000:Alice:/home/alice:/bin/sh\n\
                     nohome:x:7:7::\n";
const GROUPS: &str = "root:x:0:\nwheel:x:10:root,alice\nalice:x:1000:\naudio:x:29:alice\n1234:x:99:\n";

fn resolve_here(user: &str, additional: &[&str]) -> Result<Identity, Failure> {
    let additional: Vec<_> = additional.iter().map(|&group| group.to_owned()).collect();
    resolve_in(user, &additional, &Ok(USERS.into()), &Ok(GROUPS.into()))
}

fn refused(user: &str, additional: &[&str]) -> (Kind, String) {
    let failure = resolve_here(user, additional).unwrap_err();
    let (kind, field) = failure.parts();
    (kind, field.to_owned())
}

#[test]
fn nobody_named_is_root_with_its_groups() {
    let root = Identity { uid: 0, gid: 0, groups: vec![0, 10], home: "/root".into() };
    assert_eq!(resolve_here("", &[]).unwrap(), root);
}

#[test]
fn a_name_and_its_number_mean_the_same() {
    let alice = Identity { uid: 1000, gid: 1000, groups: vec![10, 29, 1000], home: "/home/alice".into() };
    assert_eq!(resolve_here("alice", &[]).unwrap(), alice);
    assert_eq!(resolve_here("1000", &[]).unwrap(), alice);
}

#[test]
fn a_number_without_an_entry_is_in_group_zero_and_at_home_in_the_root() {
    let stranger = Identity { uid: 4711, gid: 0, groups: vec![0], home: "/".into() };
    assert_eq!(resolve_here("4711", &[]).unwrap(), stranger);
}

#[test]
fn a_named_group_replaces_all_that_the_user_has() {
    let alice = resolve_here("alice:audio", &["wheel", "77"]).unwrap();
    assert_eq!((alice.gid, alice.groups), (29, vec![10, 29, 77]));
}

#[test]
fn a_groups_name_goes_before_its_number() {
    assert_eq!(resolve_here("0:1234", &[]).unwrap().gid, 99);
}

#[test]
fn an_empty_home_is_the_root() {
    assert_eq!(resolve_here("nohome", &[]).unwrap().home, "/");
}

#[test]
fn what_nobody_has_is_refused_by_name() {
    assert_eq!(refused("bob", &[]), (Kind::UnknownUser, "user".into()));
    assert_eq!(refused("broken", &[]), (Kind::UnknownUser, "user".into()));
    assert_eq!(refused("alice:nobody", &[]), (Kind::UnknownGroup, "user".into()));
    assert_eq!(refused("alice", &["audio", "nobody"]), (Kind::UnknownGroup, "groups[1]".into()));
}

#[test]
fn numbers_beyond_31_bits_or_with_a_sign_are_names() {
    assert_eq!(refused("2147483648", &[]), (Kind::UnknownUser, "user".into()));
    assert_eq!(refused("+1", &[]), (Kind::UnknownUser, "user".into()));
    assert_eq!(refused("-1", &[]), (Kind::UnknownUser, "user".into()));
}

#[test]
fn a_number_needs_no_file() {
    let missing = || Err(io::ErrorKind::NotFound.into());
    assert_eq!(resolve_in("5:6", &["7".to_owned()], &missing(), &missing()).unwrap().groups, [6, 7]);
}

#[test]
fn only_a_regular_file_of_bounded_size_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let fifo = path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .unwrap();
    read(&fifo).unwrap_err();
    std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
    read(&path("zero")).unwrap_err();
    std::fs::write(path("large"), vec![b'x'; usize::try_from(MAX_FILE).unwrap() + 1]).unwrap();
    read(&path("large")).unwrap_err();
    std::fs::write(path("fits"), vec![b'x'; usize::try_from(MAX_FILE).unwrap()]).unwrap();
    read(&path("fits")).unwrap();
}

proptest! {
    #[test]
    fn no_file_breaks_the_look_up(users in any::<String>(), groups in any::<String>(), user in any::<String>()) {
        let _any = resolve_in(&user, std::slice::from_ref(&user), &Ok(users), &Ok(groups));
    }
}
