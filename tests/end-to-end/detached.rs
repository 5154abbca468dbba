//! Execs that outlive whoever started them: found again, read again, waited for, killed, forgotten.

use std::time::Duration;

use cellule_tests::{HANG, Home, eventually, leftovers};
use serde_json::Value;

#[test]
fn a_detached_exec_is_listed_attached_to_killed_and_forgotten() {
    let home = Home::new();
    let sandbox = home.detached(["--name", "box", "base", "sleep", "1000"]);
    let start = |script: &str| {
        let id = sandbox.exec(&["-d"], &["sh", "-c", script]).output().exits(0).out();
        let id = id.trim_end().to_owned();
        assert_eq!(id.len(), 16, "{id:?}");
        id
    };
    let execs = |words: &[&str]| home.cellule(["execs"].iter().chain(words));
    let list = || -> Vec<Value> {
        serde_json::from_str(&execs(&["ls", "--format", "json", "box"]).output().exits(0).out()).unwrap()
    };
    let talks = start("echo one; echo err >&2; while [ ! -e /go ]; do sleep 0.1; done; echo two; exit 5");
    let sleeps = start("trap 'exit 3' USR1; while :; do sleep 0.1; done");

    let table = execs(&["ls", "box"]).output().exits(0).out();
    for word in [talks.as_str(), &sleeps, "sh"] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
    assert!(list().iter().any(|row| row["id"] == talks.as_str()), "{:?}", list());

    // Two read the same from the beginning, and one from where another has stopped.
    let readers =
        [&["attach", "--offset", "0", "box", &talks][..], &["attach", "--offset", "2", "box", &talks]]
            .map(|words| execs(words).start());
    _ = sandbox.sh("touch /go");
    let [all, rest] = readers.map(|reader| reader.wait().exits(5));
    assert_eq!((all.out().as_str(), all.err().as_str()), ("one\ntwo\n", "err\n"));
    assert_eq!(rest.out(), "e\ntwo\n");
    // It is kept after its end.
    assert_eq!(execs(&["attach", "--offset", "0", "box", &talks]).output().exits(5).out(), "one\ntwo\n");
    _ = execs(&["wait", "box", &talks]).output().exits(5);

    let waiting = execs(&["wait", "box", &sleeps]).start();
    _ = execs(&["rm", "box", &sleeps]).output().exits(125);
    _ = execs(&["kill", "-s", "USR1", "box", &sleeps]).output().exits(0);
    _ = waiting.wait().exits(3);
    for id in [&talks, &sleeps] {
        _ = execs(&["rm", "box", id]).output().exits(0);
    }
    _ = execs(&["wait", "box", &talks]).output().exits(125).says(&[&talks]);
    assert!(!list().iter().any(|row| row["id"] == talks.as_str()), "{:?}", list());

    // Killed without a word it goes with all it started.
    let tree = start("setsid sleep 7001 & sleep 7002");
    eventually("it runs", HANG, || sandbox.sh("ps").contains("sleep 7002"));
    _ = execs(&["kill", "box", &tree]).output().exits(0);
    _ = execs(&["wait", "box", &tree]).output().exits(137);
    eventually("all of it is gone", Duration::from_secs(10), || !sandbox.sh("ps").contains("sleep 700"));
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn what_a_detached_exec_writes_beyond_its_buffer_is_dropped_from_the_beginning_and_counted() {
    let home = Home::new();
    let sandbox = home.detached(["--name", "box", "base", "sleep", "1000"]);
    // Three MiB and a bit, each line of eight bytes with its number.
    let lines = 3 * 1024 * 1024 / 8 + 100;
    let script = format!("seq -w 1000000 {}", 1_000_000 + lines - 1);
    let id = sandbox.exec(&["-d"], &["sh", "-c", &script]).output().exits(0).out();
    let id = id.trim_end();
    _ = home.cellule(["execs", "wait", "box", id]).output().exits(0);
    let read = home.cellule(["execs", "attach", "--offset", "0", "box", id]).output().exits(0);
    let kept = read.out();
    assert_eq!(kept.len(), 1 << 20, "a MiB of it is kept");
    assert!(kept.ends_with(&format!("{}\n", 1_000_000 + lines - 1)), "{}", &kept[kept.len() - 20..]);
    let dropped = lines * 8 - (1 << 20);
    _ = read.says(&[&dropped.to_string()]);
    let rows: Vec<Value> = serde_json::from_str(
        &home.cellule(["execs", "ls", "--format", "json", "box"]).output().exits(0).out(),
    )
    .unwrap();
    let row = rows.iter().find(|row| row["id"] == id).unwrap();
    assert_eq!(row["stdout_dropped_bytes"].as_u64(), Some(dropped as u64), "{row}");
    // Nothing is dropped for whoever reads in time, whatever the amount.
    let whole = sandbox.exec(&[], &["sh", "-c", &script]).output().exits(0);
    assert_eq!(whole.stdout.len(), lines * 8);
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn a_sandbox_keeps_only_so_many_execs_that_ended() {
    let home = Home::new();
    let sandbox = home.detached(["--name", "box", "base", "sleep", "1000"]);
    let script = "i=0; while [ $i -lt 100 ]; do echo $i; i=$((i+1)); done";
    let first = sandbox.exec(&["-d"], &["sh", "-c", script]).output().exits(0).out();
    for _ in 0..70 {
        _ = sandbox.exec(&["-d"], &["true"]).output().exits(0);
    }
    let count = || home.cellule(["execs", "ls", "-q", "box"]).output().exits(0).out();
    eventually("the oldest are forgotten", HANG, || count().lines().count() <= 65);
    assert!(!count().contains(first.trim_end()), "the first is kept");
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}
