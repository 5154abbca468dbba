//! `cellule cp`: both ways, by Docker's rules, and with a guest that means harm.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use cellule_tests::{Home, Outcome, leftovers};

/// A directory of this host's beside the state directory, and `cellule cp` in it.
struct Here<'a> {
    home: &'a Home,
    dir: PathBuf,
}

impl<'a> Here<'a> {
    fn new(home: &'a Home) -> Self {
        let dir = home.path().join("here");
        fs::create_dir(&dir).unwrap();
        Self { home, dir }
    }

    #[track_caller]
    fn cp(&self, words: &[&str]) -> Outcome {
        self.home.cellule(["cp"]).with(|call| _ = call.args(words).current_dir(&self.dir)).output()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

fn start(home: &Home) -> cellule_tests::sandbox::Sandbox<'_> {
    home.detached(["--name", "box", "base", "sleep", "1000"])
}

#[test]
fn into_a_sandbox_files_and_directories_go_where_docker_puts_them() {
    let home = Home::new();
    let (sandbox, here) = (start(&home), Here::new(&home));
    fs::write(here.path("file"), "content").unwrap();
    fs::set_permissions(here.path("file"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::create_dir_all(here.path("dir/sub")).unwrap();
    fs::write(here.path("dir/sub/deep"), "deep").unwrap();
    symlink("sub/deep", here.path("dir/link")).unwrap();

    _ = here.cp(&["file", "box:/tmp"]).exits(0);
    _ = here.cp(&["file", "box:/tmp/other"]).exits(0);
    _ = here.cp(&["file", "box:/tmp/other"]).exits(0);
    assert_eq!(
        sandbox.sh("cat /tmp/file /tmp/other; stat -c '%a %u:%g' /tmp/file"),
        "contentcontent750 0:0\n"
    );
    _ = here.cp(&["file", "box:/tmp/none/"]).exits(125).says(&["/tmp/none/"]);
    _ = here.cp(&["file", "box:/no/such/file"]).exits(125).says(&["/no/such"]);
    _ = here.cp(&["file", "box:/etc/passwd/"]).exits(125).says(&["/etc/passwd/"]);
    _ = here.cp(&["none", "box:/tmp"]).exits(125).says(&["none"]);
    _ = here.cp(&["file", "other:/tmp"]).exits(125).says(&["other"]);

    _ = here.cp(&["dir", "box:/srv1"]).exits(0);
    _ = here.cp(&["dir", "box:/srv1"]).exits(0);
    _ = here.cp(&["dir/.", "box:/tmp"]).exits(0);
    _ = here.cp(&["dir/", "box:/srv2/"]).exits(0);
    let found = "find /srv1 /srv2 /tmp -name deep | sort; readlink /srv1/link; cat /srv1/dir/link";
    assert_eq!(
        sandbox.sh(found),
        "/srv1/dir/sub/deep\n/srv1/sub/deep\n/srv2/sub/deep\n/tmp/sub/deep\nsub/deep\ndeep"
    );
    _ = here.cp(&["dir", "box:/etc/passwd"]).exits(125).says(&["/etc/passwd"]);

    // A link is copied as one, or what it leads to if that is asked for.
    symlink("file", here.path("soft")).unwrap();
    _ = here.cp(&["soft", "box:/tmp/soft"]).exits(0);
    _ = here.cp(&["-L", "soft", "box:/tmp/hard"]).exits(0);
    assert_eq!(
        sandbox.sh("readlink /tmp/soft; stat -c %F /tmp/hard; cat /tmp/hard"),
        "file\nregular file\ncontent"
    );
    // With -a whose it is and when it was written is kept.
    let written = fs::metadata(here.path("file")).unwrap();
    _ = here.cp(&["-a", "file", "box:/tmp/archived"]).exits(0);
    let expected = format!("{}:{} {}\n", written.uid(), written.gid(), written.mtime());
    assert_eq!(sandbox.sh("stat -c '%u:%g %Y' /tmp/archived"), expected);
    // A name with a colon, and one with a blank.
    fs::write(here.path("a:b c"), "odd").unwrap();
    _ = here.cp(&["./a:b c", "box:/tmp/x:y z"]).exits(0);
    assert_eq!(sandbox.sh("cat '/tmp/x:y z'"), "odd");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn out_of_a_sandbox_files_and_directories_go_where_docker_puts_them() {
    let home = Home::new();
    let (sandbox, here) = (start(&home), Here::new(&home));
    _ = sandbox.sh(
        "mkdir -p /d/sub; printf deep > /d/sub/deep; printf content > /f; chmod 640 /f; chown 77:88 /f; ln -s /f /soft; \
         ln -s sub/deep /d/link; touch -d @1600000000 /f; printf s > /setuid; chmod 4755 /setuid; mkfifo /d/pipe",
    );
    fs::create_dir(here.path("into")).unwrap();
    _ = here.cp(&["box:/f", "g"]).exits(0);
    _ = here.cp(&["box:/f", "into"]).exits(0);
    _ = here.cp(&["box:f", "."]).exits(0);
    assert_eq!([here.read("g"), here.read("into/f"), here.read("f")], ["content", "content", "content"]);
    let copied = fs::metadata(here.path("f")).unwrap();
    let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    assert_eq!((copied.uid(), copied.gid(), copied.mode() & 0o7777), (ours.0, ours.1, 0o640));
    _ = here.cp(&["box:/f", "none/"]).exits(125).says(&["none/"]);
    _ = here.cp(&["box:/f", "none/such/file"]).exits(125).says(&["none/such"]);
    _ = here.cp(&["box:/missing", "."]).exits(125).says(&["/missing"]);
    _ = here.cp(&["box:/f/", "."]).exits(125).says(&["/f/"]);

    _ = here.cp(&["box:/d", "new"]).exits(0);
    _ = here.cp(&["box:/d", "into"]).exits(0);
    _ = here.cp(&["box:/d/.", "into"]).exits(0);
    for path in ["new/sub/deep", "into/d/sub/deep", "into/sub/deep", "new/link"] {
        assert_eq!(here.read(path), "deep", "{path}");
    }
    _ = here.cp(&["box:/d", "g"]).exits(125).says(&["g"]);
    assert_eq!(here.read("g"), "content", "a directory took a file's place");

    _ = here.cp(&["box:/soft", "soft"]).exits(0);
    assert_eq!(fs::read_link(here.path("soft")).unwrap(), Path::new("/f"));
    _ = here.cp(&["-L", "box:/soft", "followed"]).exits(0);
    assert_eq!(here.read("followed"), "content");
    _ = here.cp(&["box:/setuid", "setuid"]).exits(0);
    assert_eq!(
        fs::metadata(here.path("setuid")).unwrap().mode() & 0o7777,
        0o755,
        "a guest made a setuid program here"
    );
    _ = here.cp(&["-a", "box:/f", "archived"]).exits(0);
    let kept = fs::metadata(here.path("archived")).unwrap();
    assert_eq!(kept.mtime(), 1_600_000_000);
    if ours.0 == 0 {
        assert_eq!((kept.uid(), kept.gid()), (77, 88));
    }
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_tar_goes_through_standard_input_and_output() {
    let home = Home::new();
    let (sandbox, here) = (start(&home), Here::new(&home));
    _ = sandbox.sh("mkdir /d; printf one > /d/one; mkdir /e");
    let tar = here.cp(&["box:/d", "-"]).exits(0).stdout;
    let names: Vec<String> = tar::Archive::new(tar.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().any(|name| name == "d/one"), "{names:?}");
    let call = home.cellule(["cp", "-", "box:/e"]).stdin(tar.clone());
    _ = call.output().exits(0);
    assert_eq!(sandbox.sh("cat /e/d/one"), "one");
    _ = home.cellule(["cp", "-", "box:/no/such"]).stdin(tar).output().exits(125).says(&["/no/such"]);
    _ = home
        .cellule(["cp", "-", "box:/e"])
        .stdin("this is no archive, and long enough".repeat(40))
        .output()
        .exits(125);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

/// A guest decides what it calls its files, and where its links lead. Nothing of it may land outside.
#[test]
fn a_hostile_guest_writes_nothing_outside_of_the_destination() {
    let home = Home::new();
    let (sandbox, here) = (start(&home), Here::new(&home));
    let outside = home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    fs::create_dir(here.path("dst")).unwrap();
    let target = outside.to_str().unwrap();
    _ = sandbox.sh(&format!(
        "mkdir /evil; ln -s {target} /evil/way; ln -s {target}/new /evil/file; ln -s ../../outside /evil/up; mknod /evil/null c 1 3; \
         printf bad > /evil/bad; true"
    ));
    // Links come as links, and a device does not come.
    let first = here.cp(&["box:/evil", "dst"]);
    assert!([0, 125].contains(&first.code()), "{}", first.err());
    // Now the same names are directories and files, whose contents must not go through the links that are there.
    _ = sandbox.sh("rm -r /evil; mkdir -p /evil/way /evil/up; printf evil > /evil/way/kept; printf evil > /evil/up/kept; printf evil > /evil/file");
    let second = here.cp(&["box:/evil", "dst"]);
    assert!([0, 125].contains(&second.code()), "{}", second.err());
    assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "something new is outside");
    assert!(!fs::metadata(here.path("dst/evil/null")).is_ok_and(|null| null.rdev() != 0), "a device came");
    // A destination that is a link of the user's own is his to follow.
    symlink(&outside, here.path("mine")).unwrap();
    _ = here.cp(&["box:/etc/passwd", "mine"]).exits(0);
    assert!(outside.join("passwd").exists());
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}
