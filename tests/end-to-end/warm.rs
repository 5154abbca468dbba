//! Templates: that starts are warm, that a copy is a machine of its own, and that nothing wrong with a template fails a run.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cellule_tests::{HANG, Home, Outcome, eventually, fixture, leftovers, processes};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A home whose templates are its own.
fn alone() -> Home {
    let home = Home::new();
    fs::remove_file(home.path().join("templates")).unwrap();
    home
}

fn templates(home: &Home) -> Vec<Value> {
    let text = home.cellule(["template", "ls", "--format", "json"]).output().exits(0).out();
    serde_json::from_str(&text).unwrap()
}

/// The directory of the only template.
fn only(home: &Home) -> PathBuf {
    let all = templates(home);
    assert!(all.len() == 1 && all[0]["state"] == "ready", "{all:#?}");
    home.path().join("templates").join(all[0]["id"].as_str().unwrap())
}

/// Runs something that tells how it was started.
fn run(home: &Home, options: &[&str]) -> Outcome {
    let words = ["--verbose"].iter().chain(options).chain(&["base", "echo", "hello"]);
    let outcome = home.run(words).output().exits(0);
    assert_eq!(outcome.out(), "hello\n");
    outcome
}

/// What a maker that died left, and locks, which stay.
fn half_made(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.path().join("templates")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

#[test]
fn the_first_run_makes_a_template_and_later_ones_go_on_from_it() {
    let home = alone();
    _ = run(&home, &[]).says(&["warm start", "its template was made first"]);
    let template = only(&home);
    let later = run(&home, &[]).says(&["warm start"]);
    assert!(!later.err().contains("made first"), "{}", later.err());
    let sandbox = home.idle();
    let start = &sandbox.inspect()["start"];
    assert_eq!(start["kind"], "warm");
    assert_eq!(start["template"], template.file_name().unwrap().to_str().unwrap());
    // A stopped one starts from it too.
    _ = sandbox.call(["restart", "-t", "0"]).output().exits(0);
    assert_eq!(sandbox.inspect()["start"]["kind"], "warm");
    // Another size is another template; --cold needs none.
    _ = run(&home, &["--memory", "300m", "--cold"]).says(&["cold start"]);
    assert_eq!(templates(&home).len(), 1);
    _ = run(&home, &["--memory", "300m"]).says(&["made first"]);
    assert_eq!(templates(&home).len(), 2);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
    assert_eq!(half_made(&home), [""; 0]);
}

#[test]
fn two_first_runs_at_once_make_one_template() {
    let home = alone();
    let said: Vec<String> = thread::scope(|scope| {
        let runs: Vec<_> = (0..2).map(|_| scope.spawn(|| run(&home, &[]).err())).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(said.iter().all(|said| said.contains("warm start")), "{said:#?}");
    assert_eq!(said.iter().filter(|said| said.contains("made first")).count(), 1, "{said:#?}");
    _ = only(&home);
    leftovers::assert_none(&home);
}

#[test]
fn a_copy_is_a_machine_of_its_own() {
    let home = Home::new();
    let script = "od -An -tx1 -N16 /dev/urandom; cat /proc/sys/kernel/random/uuid; mktemp -u; cat /etc/machine-id; \
                  cat /proc/sys/kernel/random/boot_id; cat /etc/hostname; hostname; \
                  sed -n '/\\[stack\\]/s/-.*//p' /proc/self/maps";
    let said: Vec<Vec<String>> = (0..2)
        .map(|_| {
            let lines = home.run(["--quiet", "base", "sh", "-c", script]).output().exits(0).out();
            lines.lines().map(str::to_owned).collect()
        })
        .collect();
    let names = ["urandom", "uuid", "mktemp", "machine-id", "boot id", "hostname file", "hostname", "stack"];
    assert!(said.iter().all(|lines| lines.len() == names.len()), "{said:#?}");
    for (at, name) in names.iter().enumerate() {
        assert_ne!(said[0][at], said[1][at], "two copies have the same {name}");
        assert!(!said[0][at].is_empty(), "{name}");
    }
    assert!(said[0][3].len() == 32 && said[0][3].bytes().all(|byte| byte.is_ascii_hexdigit()), "{said:#?}");
    assert_eq!(said[0][5], said[0][6]);
    leftovers::assert_none(&home);
}

#[test]
fn the_clock_of_a_copy_is_the_hosts() {
    let now = || i128::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let home = Home::new();
    let sandbox = home.idle();
    assert_eq!(sandbox.inspect()["start"]["kind"], "warm");
    // The guest's clock is in the times of its files. A busy host may hold any call up, so that only the best counts.
    let mut best = i128::MAX;
    for n in 0..20 {
        let before = now();
        let id = sandbox.id();
        _ = home.cellule(["fs", "write", id, &format!("/{n}")]).stdin("x").output().exits(0);
        let after = now();
        let stat = home.cellule(["fs", "stat", "--format", "json", id, &format!("/{n}")]).output().exits(0);
        let stat: Value = serde_json::from_str(&stat.out()).unwrap();
        let stat = stat.as_array().map_or(&stat, |all| &all[0]);
        let written = i128::from(stat["modified_ns"].as_i64().unwrap_or_else(|| panic!("{stat:#}")));
        best = best.min((before - written).max(written - after).max(0));
    }
    assert!(best < 20_000_000, "the guest's clock is off by {} ms", best / 1_000_000);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn nothing_of_a_run_is_in_its_template() {
    const SECRET: &str = "a-secret-of-one-run-0123456789";
    let home = alone();
    let secret = format!("SECRET={SECRET}");
    let options = ["--quiet", "-e", &secret, "--hostname", SECRET, "--tmpfs", "/tmpfs-of-one-run"];
    let words = options.iter().chain(&["base", "sh", "-c", "echo $SECRET; hostname; df /tmpfs-of-one-run"]);
    let outcome = home.run(words).output().exits(0);
    assert!(outcome.out().starts_with(&format!("{SECRET}\n{SECRET}\n")));
    for file in ["memory", "devices", "manifest.json"] {
        let bytes = fs::read(only(&home).join(file)).unwrap();
        for word in [SECRET, "tmpfs-of-one-run"] {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "{word} is in the template's {file}");
        }
    }
    let ls = home.run(["--quiet", "base", "sh", "-c", "ls -d /tmpfs-of-one-run; env"]).output().exits(0);
    assert!(!ls.out().contains("one-run"), "{}", ls.out());
    leftovers::assert_none(&home);
}

#[test]
fn a_template_that_does_not_work_is_set_aside_and_made_anew() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("instead of", |dir| {
            fs::File::options().write(true).open(dir.join("memory")).unwrap().set_len(8192).unwrap();
        }),
        ("changed since it was saved", |dir| {
            let memory = fs::File::options().write(true).open(dir.join("memory")).unwrap();
            memory.write_all_at(&[0xff; 4096], 64 << 20).unwrap();
        }),
        ("not what was saved", |dir| fs::write(dir.join("devices"), b"nothing").unwrap()),
        ("cannot be understood", |dir| fs::write(dir.join("manifest.json"), b"[").unwrap()),
        ("it was saved by qemu", |dir| {
            let path = dir.join("manifest.json");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replacen("\"version\": \"", "\"version\": \"0.", 1)).unwrap();
        }),
    ];
    let home = alone();
    _ = run(&home, &[]);
    for (words, harm) in harms {
        harm(&only(&home));
        let sandbox = home.idle();
        let known = sandbox.inspect();
        assert_eq!(known["start"]["kind"], "warm", "{known:#}");
        let log = fs::read_to_string(sandbox.dir().join("log/supervisor.log")).unwrap();
        assert!(log.contains(words), "{words}: {log:?}");
        assert_eq!(sandbox.sh("echo well"), "well\n");
        _ = sandbox.remove();
        _ = only(&home);
        assert!(!run(&home, &[]).err().contains("made first"), "{words}: it was not made anew");
    }
    leftovers::assert_none(&home);
}

#[test]
fn without_room_for_a_template_a_run_is_cold_and_works() {
    let home = alone();
    // A file in the place of the directory: nothing can be made in it.
    fs::write(home.path().join("templates"), b"").unwrap();
    _ = run(&home, &[]).says(&["cold start", "no template"]);
    // What a warm-up leaves is there all the same.
    let words = ["--warmup", "echo warm > /left", "base", "cat", "/left"];
    assert_eq!(home.run(words).output().exits(0).says(&["cold start"]).out(), "warm\n");
    fs::remove_file(home.path().join("templates")).unwrap();
    _ = run(&home, &[]).says(&["warm start"]);
    leftovers::assert_none(&home);
}

#[test]
fn a_template_that_is_removed_takes_nothing_from_those_that_run() {
    let home = alone();
    let sandbox = home.idle();
    let id = only(&home).file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(home.cellule(["template", "rm", &id[..8]]).output().exits(0).out(), format!("{id}\n"));
    assert_eq!(templates(&home).len(), 0);
    // What was never read until now comes from the file that has no name any more.
    let digest = "dd if=/dev/zero bs=1M count=8 2>/dev/null | sha256sum | cut -c1-8; find / -xdev | wc -l";
    assert!(sandbox.sh(digest).starts_with("2daeb1f3"), "{}", sandbox.sh(digest));
    _ = home.cellule(["template", "rm", &id[..8]]).output().exits(125).says(&["no template", "template ls"]);
    _ = sandbox.call(["restart", "-t", "0"]).output().exits(0);
    assert!(sandbox.inspect()["start"]["note"].as_str().unwrap().contains("made first"));
    let pruned = home.cellule(["template", "prune"]).output().exits(0).out();
    assert!(pruned.contains("freed 0 B"), "{pruned}");
    let pruned = home.cellule(["template", "prune", "--all"]).output().exits(0).out();
    assert!(pruned.contains(&id), "{pruned}");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn the_one_not_used_for_longest_makes_room_for_another() {
    let home = alone();
    _ = run(&home, &[]);
    let first = only(&home);
    thread::sleep(Duration::from_millis(50));
    _ = run(&home, &["--memory", "300m", "--template-cache", "80m"]);
    let left = only(&home);
    assert_ne!(left, first);
    _ = run(&home, &["--memory", "300m"]);
    // What the configuration says counts where no option does.
    let config = home.file("config.toml");
    fs::write(&config, "[templates]\ncache = \"80m\"\n").unwrap();
    thread::sleep(Duration::from_millis(50));
    _ = home.run(["base", "true"]).env("CELLULE_CONFIG", &config).output().exits(0);
    assert_ne!(only(&home), left);
    fs::write(&config, "[templates]\ncahce = \"80m\"\n").unwrap();
    let refused = home.run(["base", "true"]).env("CELLULE_CONFIG", &config).output().exits(125);
    _ = refused.says(&["config.toml is not a configuration", "cahce", "expected `cache`"]);
    _ = home
        .run(["base", "true"])
        .env("CELLULE_CONFIG", "/no/such/file")
        .output()
        .exits(125)
        .says(&["/no/such/file"]);
    leftovers::assert_none(&home);
}

#[test]
fn a_maker_that_is_killed_leaves_nothing_for_long_and_the_next_one_makes_it() {
    let home = alone();
    for after in [300, 1500, 2500, 3000] {
        let call = home.run(["--quiet", "base", "true"]).start();
        thread::sleep(Duration::from_millis(after));
        for pid in leftovers::supervisors(&home) {
            _ = kill_process(pid, Signal::KILL);
        }
        _ = call.wait();
        leftovers::assert_none(&home);
        // Whoever looks next cleans up.
        _ = home.ps(["-a"]);
        assert_eq!(half_made(&home), [""; 0], "killed after {after} ms");
    }
    _ = run(&home, &[]);
    _ = only(&home);
    leftovers::assert_none(&home);
}

#[test]
fn several_processors_and_another_image_start_warm_too() {
    let home = Home::new();
    let debian = fixture("debian.tar");
    for _ in 0..2 {
        let words = [
            "--verbose",
            "--cpus",
            "2",
            debian.to_str().unwrap(),
            "sh",
            "-c",
            "nproc; cat /etc/debian_version",
        ];
        let outcome = home.run(words).output().exits(0).says(&["warm start"]);
        assert!(outcome.out().starts_with("2\n12"), "{}", outcome.out());
    }
    leftovers::assert_none(&home);
}

#[test]
fn what_a_warm_up_leaves_is_in_each_sandbox_that_has_it() {
    let home = alone();
    let warm_up = [
        "--warmup",
        "echo one > /left; echo $PATH > /path",
        "--warmup",
        "cat /left > /second",
        "--warmup-detach",
        "i=0; while :; do i=$((i+1)); echo $i > /counter; sleep 0.05; done",
        "--ready-cmd",
        "[ $(cat /counter) -gt 3 ]",
    ];
    let script = "cat /left /second /path; env | grep -c ^SECRET; a=$(cat /counter); sleep 0.5; echo $a $(cat /counter)";
    for round in 0..2 {
        let words = [&["--verbose", "-e", "SECRET=1"][..], &warm_up, &["base", "sh", "-c", script]].concat();
        let outcome = home.run(words).output().exits(0).says(&["warm start"]);
        assert_eq!(outcome.err().contains("made first"), round == 0, "{}", outcome.err());
        let out = outcome.out();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!((lines[0], lines[1], lines[3]), ("one", "one", "1"), "{out}");
        // The program that was running when it was saved goes on in each copy, from where it was.
        let (before, after) = lines[4].split_once(' ').unwrap();
        let (before, after): (u32, u32) = (before.parse().unwrap(), after.parse().unwrap());
        assert!(before > 3 && after > before, "{out}");
    }
    // Without it, nothing of it is there.
    _ = home.run(["--quiet", "base", "ls", "/left"]).output().exits(1);
    assert_eq!(templates(&home).len(), 2);
    leftovers::assert_none(&home);
}

#[test]
fn a_server_that_was_started_before_the_save_answers_in_each_copy() {
    let home = alone();
    let words = [
        "--verbose",
        "--warmup",
        "mkdir /www && echo hello > /www/index.html",
        "--warmup-detach",
        "httpd -f -p 8080 -h /www",
        "--ready-port",
        "8080",
        "base",
        "wget",
        "-qO-",
        "http://127.0.0.1:8080/",
    ];
    for _ in 0..2 {
        let outcome = home.run(words).output().exits(0).says(&["warm start"]);
        assert_eq!(outcome.out(), "hello\n");
    }
    leftovers::assert_none(&home);
}

#[test]
fn a_warm_up_that_fails_makes_a_cold_start_that_says_so() {
    let home = alone();
    let outcome = home.run(["--warmup", "touch /half; exit 3", "base", "ls", "/"]).output().exits(0);
    let outcome = outcome.says(&["cold start", "exit 3", "ended with code 3"]);
    assert!(!outcome.out().contains("half"), "a sandbox has what a warm-up half did: {}", outcome.out());
    assert_eq!(templates(&home).len(), 0);
    leftovers::assert_none(&home);
}

#[test]
fn a_watcher_learns_from_the_machine_id_that_it_was_copied() {
    // Within one machine it stays as it is; that it is one file, which can be watched, is what a copy needs.
    let home = Home::new();
    let sandbox = home.idle();
    let first = sandbox.sh("cat /etc/machine-id; stat -c %i /etc/machine-id");
    let again = sandbox.sh("cat /etc/machine-id; stat -c %i /etc/machine-id");
    assert_eq!(first, again);
    _ = sandbox.call(["restart", "-t", "0"]).output().exits(0);
    assert_ne!(sandbox.sh("cat /etc/machine-id"), first.lines().next().unwrap().to_owned() + "\n");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn an_engine_that_dies_as_it_restores_fails_no_run() {
    let home = Home::new();
    _ = run(&home, &[]);
    let mut hit = 0;
    for delay in [5, 15, 25, 35, 45, 60] {
        let call = home.run(["--quiet", "base", "sh", "-c", "sleep 0.3; echo hello"]).start();
        let pid = engine(&home);
        thread::sleep(Duration::from_millis(delay));
        hit += usize::from(
            kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).is_ok(),
        );
        let outcome = call.wait();
        // Killed before its agent was heard it is started again; later its death is the run's end, and never an exit code.
        assert!([0, 125].contains(&outcome.code()), "{delay}: {}", outcome.err());
        assert!(outcome.code() == 125 || outcome.out() == "hello\n");
        leftovers::assert_none(&home);
    }
    assert!(hit > 0);
}

/// The engine's process, as soon as there is one.
fn engine(home: &Home) -> u32 {
    let mut pid = 0;
    eventually("an engine runs", HANG, || {
        pid = leftovers::processes(home)
            .iter()
            .find(|line| line.contains("qemu-system"))
            .and_then(|line| line.split(':').next()?.parse().ok())
            .unwrap_or(0);
        pid != 0
    });
    assert!(processes::alive(pid));
    pid
}
