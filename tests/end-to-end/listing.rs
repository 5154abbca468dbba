//! What is told of sandboxes: `ps`, names and ids, `inspect`, `events`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use cellule_tests::{HANG, Home, eventually, leftovers, processes};
use rustix::process::Signal;
use serde_json::{Value, json};

fn names(rows: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn ps_lists_filters_and_formats() {
    let home = Home::new();
    let web = home.detached(["--name", "web", "--label", "tier=front", "base", "sleep", "1000"]);
    let done = home.detached(["--name", "done", "--label", "tier=back", "base", "sh", "-c", "exit 4"]);
    _ = done.call(["wait"]).output().exits(0);
    _ = home.cellule(["create", "--quiet", "--name", "idea", "base", "true"]).output().exits(0);

    let table = home.cellule(["ps"]).output().exits(0).out();
    let (head, rows) = table.split_once('\n').unwrap();
    for column in ["SANDBOX ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"] {
        assert!(head.contains(column), "{column} in\n{table}");
    }
    assert_eq!(rows.lines().count(), 1, "{table}");
    for word in [web.id(), "base", "sleep", "Up ", "web"] {
        assert!(rows.contains(word), "{word} in\n{table}");
    }
    let all = home.cellule(["ps", "-a"]).output().exits(0).out();
    for word in ["Exited (4)", "Created", "Up "] {
        assert!(all.contains(word), "{word} in\n{all}");
    }

    assert_eq!(home.cellule(["ps", "-q"]).output().exits(0).out(), format!("{}\n", web.id()));
    assert_eq!(home.cellule(["ps", "-aq"]).output().exits(0).out().lines().count(), 3);
    for (filter, expected) in [
        ("name=we", &["web"][..]),
        ("status=exited", &["done"]),
        ("status=running", &["web"]),
        ("label=tier", &["done", "web"]),
        ("label=tier=back", &["done"]),
        ("ancestor=base", &["done", "idea", "web"]),
        ("exited=4", &["done"]),
        ("exited=0", &[]),
        (&format!("id={}", web.id()), &["web"]),
    ] {
        assert_eq!(names(&home.ps(["-a", "--filter", filter])), expected, "{filter}");
    }
    _ = home.cellule(["ps", "--filter", "colour=red"]).output().exits(125).says(&["colour", "status"]);
    assert_eq!(names(&home.ps(["-l"])), ["idea"], "the one made last, whatever it does");
    assert_eq!(home.ps(["-n", "2"]).len(), 2);

    let rows = home.ps(["-a"]);
    let row = rows.iter().find(|row| row["name"] == "web").unwrap();
    assert_eq!(
        (&row["id"], &row["image"], &row["state"]),
        (&json!(web.id()), &json!("base"), &json!("running"))
    );
    let lines = home.cellule(["ps", "-a", "--format", "jsonl"]).output().exits(0).out();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, rows);

    // Something that is no sandbox hides none of the others.
    let broken = home.path().join("sandboxes/0123456789ab");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("spec.json"), "{").unwrap();
    fs::write(broken.join("state.json"), b"\xff\x00").unwrap();
    assert!(names(&home.ps(["-a"])).contains(&"web"));
    fs::remove_dir_all(&broken).unwrap();

    _ = home.cellule(["rm", "-f", "web", "done", "idea"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn a_unique_beginning_of_an_id_is_enough_and_an_ambiguous_one_is_refused() {
    let home = Home::new();
    // Of 17 ids, two begin with the same digit.
    let ids: Vec<String> = (0..17)
        .map(|_| {
            home.cellule(["create", "--quiet", "base", "true"]).output().exits(0).out().trim_end().to_owned()
        })
        .collect();
    let starts = |digit: &str| ids.iter().filter(|id| id.starts_with(digit)).count();
    let shared = ids.iter().map(|id| &id[..1]).find(|digit| starts(digit) > 1).unwrap();
    let outcome = home.cellule(["inspect", shared]).output().exits(125);
    let meant: Vec<&String> = ids.iter().filter(|id| id.starts_with(shared)).collect();
    _ = outcome.says(&[meant[0], meant[1]]);
    _ = home.cellule(["rm", shared]).output().exits(125);
    assert_eq!(home.ps(["-a"]).len(), ids.len(), "one that nobody named was removed");

    let id = &ids[3];
    let longer = (1..id.len()).map(|length| &id[..length]).find(|prefix| starts(prefix) == 1).unwrap();
    let text = home.cellule(["inspect", longer]).output().exits(0).out();
    assert!(text.contains(id.as_str()), "{text}");
    // A name wins over what an id begins with.
    let word = &ids[5][..4];
    _ = home.cellule(["rename", id, word]).output().exits(0);
    let text = home.cellule(["inspect", word]).output().exits(0).out();
    assert!(text.contains(id.as_str()), "{text}");
    _ = home.cellule(["prune", "--force"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn inspect_knows_what_a_sandbox_is_and_what_runs_it() {
    let home = Home::new();
    let sandbox = home.detached([
        "--name",
        "web",
        "--memory",
        "300m",
        "--hostname",
        "cell",
        "--label",
        "a=b",
        "--tmpfs",
        "/data:size=1m",
        "--read-only",
        "--ttl",
        "1h",
        "--idle-timeout",
        "30m",
        "-e",
        "A=1",
        "-w",
        "/tmp",
        "-u",
        "nobody",
        "--cold",
        "base",
        "sleep",
        "1000",
    ]);
    let known = sandbox.inspect();
    for (field, expected) in [
        ("/id", json!(sandbox.id())),
        ("/name", json!("web")),
        ("/state", json!("running")),
        ("/cause", json!(null)),
        ("/image/name", json!("base")),
        ("/engine", json!("qemu")),
        ("/main/argv", json!(["sleep", "1000"])),
        ("/main/terminal", json!(false)),
        ("/exec/working_dir", json!("/tmp")),
        ("/exec/user", json!("nobody")),
        ("/resources/cpus", json!(1)),
        ("/resources/memory_bytes", json!(300 << 20)),
        ("/resources/read_only", json!(true)),
        ("/network/mode", json!("public")),
        ("/network/hostname", json!("cell")),
        ("/mounts/0/path", json!("/data")),
        ("/mounts/0/options", json!("size=1m")),
        ("/labels/a", json!("b")),
        ("/idle/after_ms", json!(1_800_000)),
        ("/idle/action", json!("stop")),
        ("/start/kind", json!("cold")),
        ("/jail/seccomp", json!(true)),
        ("/remove_when_ended", json!(false)),
    ] {
        assert_eq!(known.pointer(field), Some(&expected), "{field} of\n{known:#}");
    }
    assert!(known["image"]["digest"].as_str().unwrap().starts_with("sha256:"), "{known:#}");
    let phases: Vec<&str> = known["start"]["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["name"].as_str().unwrap())
        .collect();
    for phase in ["launch", "boot", "handshake"] {
        assert!(phases.contains(&phase), "{phase} in {phases:?}");
    }
    let number = |field: &str| known[field].as_i64().unwrap();
    assert!(number("created_ns") <= number("started_ns"));
    assert_eq!(number("expires_ns") - number("created_ns"), 3_600_000_000_000);
    let (supervisor, engine) = sandbox.pids();
    for (pid, word) in [(supervisor, "supervise"), (engine, "qemu-system")] {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(line.contains(word), "{pid} is {line}");
    }
    // Every field that is there stands in the schema.
    let schema = home.cellule(["inspect", "--schema"]).output().exits(0).out();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let described = schema["properties"].as_object().unwrap();
    for field in known.as_object().unwrap().keys() {
        assert!(described.contains_key(field), "{field} is not in the schema");
    }
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn events_tell_a_life_in_its_order() {
    let home = Home::new();
    // Somebody who follows from the beginning.
    let mut following = home.cellule(["events", "--format", "jsonl"]).start_raw();
    std::thread::sleep(Duration::from_millis(500));
    let sandbox = home.detached(["--rm", "--name", "brief", "base", "sh", "-c", "exit 5"]);
    _ = sandbox.call(["wait"]).output();
    eventually("it is gone", HANG, || home.ps(["-a"]).is_empty());

    let words = ["events", "--since", "10m", "--until", "0s", "--format", "jsonl"];
    let text = home.cellule(words).output().exits(0).out();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |action: &str| events.iter().position(|event| event["action"] == action);
    let order = ["create", "start", "die", "destroy"]
        .map(|action| of(action).unwrap_or_else(|| panic!("{action} in\n{text}")));
    assert!(order.is_sorted(), "{text}");
    for event in &events {
        assert_eq!((&event["id"], &event["name"]), (&json!(sandbox.id()), &json!("brief")), "{event}");
    }
    assert!(events[order[2]].to_string().contains('5'), "the code of {}", events[order[2]]);
    let words = ["events", "--since", "10m", "--until", "0s", "--filter", "event=die", "--format", "jsonl"];
    assert_eq!(home.cellule(words).output().exits(0).out().lines().count(), 1);

    // Whoever follows sees the same.
    let mut followed = BufReader::new(following.stdout.take().unwrap());
    let mut lines = String::new();
    while lines.len() < text.len() {
        assert_ne!(followed.read_line(&mut lines).unwrap(), 0, "{lines}");
    }
    assert_eq!(lines, text);
    processes::signal(following.id(), Signal::TERM);
    drop(following);
    leftovers::assert_none(&home);
}
