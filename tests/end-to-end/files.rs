//! `cellule fs …`: the files of a guest.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::Duration;

use cellule_tests::sandbox::Sandbox;
use cellule_tests::{Call, HANG, Home, eventually, leftovers, processes};
use serde_json::Value;

/// `cellule fs COMMAND… box WORDS…`
fn files(home: &Home, command: &[&str], words: &[&str]) -> Call {
    home.cellule(["fs"]).with(|call| _ = call.args(command).arg("box").args(words))
}

fn start(home: &Home) -> Sandbox<'_> {
    home.detached(["--name", "box", "base", "sleep", "1000"])
}

#[test]
fn what_is_written_is_read_byte_for_byte_and_keeps_what_it_had() {
    let home = Home::new();
    let sandbox = start(&home);
    let bytes: Vec<u8> =
        (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    let write = |options: &[&str], path: &str, bytes: &[u8]| {
        let mut command = vec!["write"];
        command.extend(options);
        files(&home, &command, &[path]).stdin(bytes).output()
    };
    let read = |options: &[&str], path: &str| {
        let mut command = vec!["read"];
        command.extend(options);
        files(&home, &command, &[path]).output()
    };
    let meta = |path: &str| sandbox.sh(&format!("stat -c '%a %u:%g %s' {path}"));

    _ = write(&[], "/tmp/data", &bytes).exits(0);
    assert_eq!(read(&[], "/tmp/data").exits(0).stdout, bytes);
    assert_eq!(meta("/tmp/data"), "644 0:0 300000\n");
    assert_eq!(read(&["--offset", "1000", "--length", "10"], "/tmp/data").exits(0).stdout, bytes[1000..1010]);
    assert_eq!(read(&["--offset", "299990"], "/tmp/data").exits(0).stdout, bytes[299_990..]);
    assert_eq!(read(&["--offset", "300001"], "/tmp/data").exits(0).stdout, b"");

    _ = write(&["--mode", "600", "--owner", "12:34"], "/tmp/data", b"small").exits(0);
    assert_eq!(meta("/tmp/data"), "600 12:34 5\n");
    // What is replaced keeps its owner and mode; what is appended to is the same file.
    _ = write(&[], "/tmp/data", b"other").exits(0);
    _ = write(&["--append"], "/tmp/data", b" and more").exits(0);
    assert_eq!(meta("/tmp/data"), "600 12:34 14\n");
    assert_eq!(read(&[], "/tmp/data").out(), "other and more");
    _ = write(&["--create-new"], "/tmp/data", b"x").exits(125).says(&["/tmp/data", "exists"]);
    _ = write(&["--sync"], "/tmp/empty", b"").exits(0);
    assert_eq!(meta("/tmp/empty"), "644 0:0 0\n");

    // Through a link to what it leads to, and the link stays.
    _ = sandbox.sh("ln -s /tmp/data /tmp/link");
    _ = write(&[], "/tmp/link", b"through").exits(0);
    assert_eq!(sandbox.sh("readlink /tmp/link; cat /tmp/data"), "/tmp/data\nthrough");
    assert_eq!(read(&[], "/tmp/link").out(), "through");
    // What the kernel makes up has no size and is read all the same.
    assert!(read(&[], "/proc/version").exits(0).out().starts_with("Linux version"));

    // What is no file is refused at once, in words.
    _ = sandbox.sh("mkfifo /tmp/fifo");
    for (path, word) in [
        ("/dev/zero", "device"),
        ("/tmp/fifo", "FIFO"),
        ("/tmp", "directory"),
        ("/no/such", "/no/such"),
        ("relative", "relative"),
    ] {
        let refused = read(&[], path).exits(125);
        assert!(refused.took < Duration::from_secs(5), "{path} took {:?}", refused.took);
        _ = refused.says(&[path, word]);
        if path != "relative" {
            _ = write(&[], if path == "/no/such" { "/no/such/file" } else { path }, b"x")
                .exits(125)
                .says(&[path]);
        }
    }
    assert_eq!(sandbox.sh("ls -A /tmp"), "data\nempty\nfifo\nlink\n", "a temporary file is left");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_write_is_seen_whole_or_not_at_all() {
    let home = Home::new();
    let sandbox = start(&home);
    _ = files(&home, &["write"], &["/data"]).stdin("old").output().exits(0);
    // Half of it came, and then its writer died.
    let call = files(&home, &["write"], &["/data"]).with(|call| _ = call.stdin(Stdio::piped()));
    let mut writer = call.start_raw();
    std::io::Write::write_all(writer.stdin.as_mut().unwrap(), &vec![b'n'; 3 << 20]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(sandbox.sh("cat /data"), "old");
    writer.kill().unwrap();
    writer.wait().unwrap();
    eventually("the temporary file is gone", Duration::from_secs(10), || {
        !sandbox.sh("ls -A /").contains(".cellule")
    });
    assert_eq!(sandbox.sh("cat /data"), "old");
    // A full disk leaves the old one too.
    let full = files(&home, &["write"], &["/data"]).stdin(vec![b'x'; 400 << 20]).output().exits(125);
    _ = full.says(&["/data", "space"]);
    assert_eq!(sandbox.sh("cat /data; df -k / | tail -1 | awk '{ print ($3 < 10240) }'"), "old1\n");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn directories_links_and_modes_are_changed_as_by_the_usual_commands() {
    let home = Home::new();
    let sandbox = start(&home);
    let done = |command: &[&str], words: &[&str]| files(&home, command, words).output().exits(0).out();
    let refused = |command: &[&str], words: &[&str]| files(&home, command, words).output().exits(125);

    _ = refused(&["mkdir"], &["/a/b/c"]).says(&["/a/b/c"]);
    _ = done(&["mkdir", "-p"], &["/a/b/c"]);
    _ = done(&["mkdir", "-p"], &["/a/b/c"]);
    _ = done(&["mkdir", "-m", "1770"], &["/a/sticky"]);
    _ = refused(&["mkdir"], &["/a"]).says(&["exists"]);
    assert_eq!(sandbox.sh("stat -c %a /a/sticky"), "1770\n");
    _ = sandbox.sh("echo one > /a/one; echo two > /a/two; chown 5:6 /a/two; chmod 4711 /a/two");

    let mut names: Vec<String> = done(&["ls"], &["/a"]).lines().map(str::to_owned).collect();
    names.sort_unstable();
    assert_eq!(names, ["b", "one", "sticky", "two"]);
    let long = done(&["ls", "-l"], &["/a"]);
    assert!(long.contains("two") && long.contains('5') && long.contains('6'), "{long}");
    let rows: Vec<Value> = serde_json::from_str(&done(&["ls", "--format", "json"], &["/a"])).unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(done(&["ls"], &["/a/one"]), "/a/one\n");
    _ = refused(&["ls"], &["/a/none"]).says(&["/a/none"]);

    _ = done(&["ln"], &["two", "/a/link"]);
    assert_eq!(done(&["readlink"], &["/a/link"]), "two\n");
    let stat = |options: &[&str], path: &str| -> Value {
        let mut command = vec!["stat", "--format", "json"];
        command.extend(options);
        serde_json::from_str(&done(&command, &[path])).unwrap()
    };
    let first = |value: Value| if value.is_array() { value[0].clone() } else { value };
    let (followed, link) = (first(stat(&[], "/a/link")), first(stat(&["--no-follow"], "/a/link")));
    assert_eq!((followed["size"].as_u64(), followed["uid"].as_u64()), (Some(4), Some(5)), "{followed}");
    assert_eq!(link["target"], "two", "{link}");
    assert_ne!(followed["kind"], link["kind"]);

    _ = done(&["chmod"], &["640", "/a/one"]);
    _ = done(&["chown"], &["nobody", "/a/one"]);
    assert_eq!(sandbox.sh("stat -c '%a %U' /a/one"), "640 nobody\n");
    _ = done(&["chown"], &["7:8", "/a/one"]);
    assert_eq!(sandbox.sh("stat -c %u:%g /a/one"), "7:8\n");
    _ = refused(&["chown"], &["no-such-user", "/a/one"]).says(&["no-such-user"]);

    _ = done(&["mv"], &["/a/one", "/a/uno"]);
    _ = refused(&["mv", "-n"], &["/a/uno", "/a/two"]).says(&["exists"]);
    assert_eq!(sandbox.sh("cat /a/uno /a/two"), "one\ntwo\n");
    _ = refused(&["cp"], &["/a", "/copy"]).says(&["directory"]);
    _ = done(&["cp", "-r"], &["/a", "/copy"]);
    assert_eq!(
        sandbox.sh("stat -c '%a %u:%g' /copy/two; readlink /copy/link; ls -d /copy/b/c"),
        "4711 5:6\ntwo\n/copy/b/c\n"
    );

    _ = files(&home, &["exists"], &["/copy/link"]).output().exits(0);
    _ = files(&home, &["exists"], &["/copy/none"]).output().exits(1);
    _ = refused(&["rm"], &["/copy"]).says(&["/copy"]);
    // A link is removed, and not what it leads to.
    _ = sandbox.sh("mkdir /outside; touch /outside/kept; ln -s /outside /copy/way-out");
    _ = done(&["rm", "-r"], &["/copy"]);
    assert_eq!(sandbox.sh("ls -d /copy 2>/dev/null; ls /outside"), "kept\n");
    _ = refused(&["rm", "-r"], &["/"]);
    _ = refused(&["rm"], &["/copy"]).says(&["/copy"]);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_watch_tells_what_a_program_does() {
    let home = Home::new();
    let sandbox = start(&home);
    _ = sandbox.sh("mkdir /work");
    let mut watch = files(&home, &["watch", "-r", "--format", "jsonl"], &["/work"]).start_raw();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    // Nobody says when it watches; what is done again until it is told was not done in vain.
    let ready = std::thread::spawn({
        let home = home.path().to_path_buf();
        move || {
            for n in 0..100 {
                let call = std::process::Command::new(cellule_tests::binary())
                    .args(["exec", "box", "touch", &format!("/work/ready-{n}")])
                    .env("CELLULE_HOME", &home)
                    .status();
                assert!(call.unwrap().success());
                std::thread::sleep(Duration::from_millis(200));
                if home.join("seen").exists() {
                    return;
                }
            }
        }
    });
    let first = lines.next().unwrap();
    assert!(first.contains("/work/ready-"), "{first}");
    fs::write(home.path().join("seen"), "").unwrap();
    ready.join().unwrap();

    _ = sandbox.sh(
        "cd /work; mkdir -p a/b/c; echo x > a/b/c/new; sleep 0.2; mv a/b/c/new a/b/moved; echo y >> a/b/moved; rm a/b/moved; \
         sleep 0.2; touch end",
    );
    let mut events: Vec<Value> = Vec::new();
    loop {
        let event: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        let last = event.to_string().contains("/work/end");
        events.push(event);
        if last {
            break;
        }
    }
    let told =
        |kind: &str, path: &str| events.iter().any(|event| event["event"] == kind && event["path"] == path);
    for (kind, path) in [
        ("created", "/work/a"),
        ("created", "/work/a/b/c"),
        ("created", "/work/a/b/c/new"),
        ("renamed", "/work/a/b/c/new"),
        ("modified", "/work/a/b/moved"),
        ("deleted", "/work/a/b/moved"),
    ] {
        assert!(told(kind, path), "{path} {kind} is not in {events:#?}");
    }
    let renamed = events.iter().find(|event| event["path"] == "/work/a/b/c/new" && !event["to"].is_null());
    assert_eq!(renamed.unwrap()["to"], "/work/a/b/moved");
    watch.kill().unwrap();
    watch.wait().unwrap();
    // What is watched goes away, and so does the watch.
    let watch = files(&home, &["watch"], &["/work"]).start();
    std::thread::sleep(Duration::from_secs(1));
    _ = sandbox.sh("rm -r /work");
    _ = watch.wait().exits(0);
    _ = files(&home, &["watch"], &["/no/such"]).output().exits(125).says(&["/no/such"]);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn trees_go_in_and_out_as_tars() {
    let home = Home::new();
    let sandbox = start(&home);
    _ = sandbox.sh(
        "mkdir -p /tree/sub; cd /tree; echo hello > sub/file; chmod 640 sub/file; chown 5:6 sub/file; ln -s sub/file link; \
         ln sub/file hard; mkfifo pipe; chmod 2755 sub; head -c 100000 /dev/urandom > noise",
    );
    let tar = files(&home, &["tar-out"], &["/tree"]).output().exits(0).stdout;
    _ = sandbox.sh("mkdir /again");
    _ = files(&home, &["tar-in"], &["/again"]).stdin(tar.clone()).output().exits(0);
    let list = |dir: &str| {
        sandbox.sh(&format!(
            "cd {dir}; [ -d tree ] && cd tree; find . | sort | while read f; do stat -c '%n %f %u:%g %h %Y' $f; done; \
             md5sum noise sub/file; readlink link"
        ))
    };
    assert_eq!(list("/again"), list("/tree"));
    // One that leads out stays in.
    let mut hostile = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    hostile.append_link(&mut link, "way", "/etc").unwrap();
    let mut file = tar::Header::new_gnu();
    file.set_size(4);
    file.set_mode(0o644);
    hostile.append_data(&mut file, "way/hostile", &b"evil"[..]).unwrap();
    _ = files(&home, &["tar-in"], &["/again"]).stdin(hostile.into_inner().unwrap()).output();
    assert_eq!(sandbox.sh("ls /etc/hostile 2>/dev/null || echo none"), "none\n");
    // Cut short, it is an error.
    _ = files(&home, &["tar-in"], &["/again"]).stdin(&tar[..tar.len() / 2]).output().exits(125);
    _ = files(&home, &["tar-in"], &["/no/such"]).stdin(tar).output().exits(125).says(&["/no/such"]);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

/// A gigabyte costs no more memory than a sixteenth of it, neither here nor in the guest.
#[test]
fn a_file_of_a_gigabyte_passes_through_little_memory() {
    const MORE_THAN_A_PIPE: u64 = 1 << 20;

    let home = Home::new();
    let sandbox = home.detached(["--name", "box", "--memory", "3g", "base", "sleep", "1000"]);
    let (supervisor, _) = sandbox.pids();
    let big = home.file("big");
    let pass = |size: u64| {
        fs::File::create(&big).unwrap().set_len(size).unwrap();
        let file = fs::File::open(&big).unwrap();
        let write = files(&home, &["write"], &["/big"]).limit(2 * HANG).with(|call| _ = call.stdin(file));
        _ = write.output().exits(0);
        assert_eq!(sandbox.sh("stat -c %s /big"), format!("{size}\n"));

        let mut child = files(&home, &["read"], &["/big"]).limit(2 * HANG).start_raw();
        let mut stdout = child.stdout.take().unwrap();
        let read =
            std::io::copy(&mut (&mut stdout).take(size - MORE_THAN_A_PIPE), &mut std::io::sink()).unwrap();
        // It cannot have ended: what is left has no room in the pipe.
        let client = processes::kib(child.id(), "VmHWM");
        assert_eq!(read + std::io::copy(&mut stdout, &mut std::io::sink()).unwrap(), size);
        assert!(child.wait().unwrap().success());
        let agent = sandbox.sh("awk '/VmHWM/ { print $2 }' /proc/1/status").trim().parse::<u64>().unwrap();
        [("client", client), ("supervisor", processes::kib(supervisor, "VmHWM")), ("agent", agent)]
    };
    for ((who, before), (_, after)) in pass(64 << 20).into_iter().zip(pass(1 << 30)) {
        // Windows may grow by 8 MiB, and what the allocator makes of it is not the same every time.
        assert!(after < before + (12 << 10), "the {who} grew from {before} to {after} KiB");
        assert!(after < 32 << 10, "the {who} takes {after} KiB");
    }
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}
