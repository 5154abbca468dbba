use std::process::{Command, Stdio};

use super::*;
use crate::directory::tests::{entries, home, spec};

/// A sandbox of this record, as a supervisor left it that was killed.
fn left(sandboxes: &Sandboxes, spec: &SandboxSpec, change: impl FnOnce(&mut Record)) {
    let mut dir = sandboxes.create(spec, None).unwrap();
    let mut record = dir.record().unwrap().starting();
    record.kept = true;
    record.state = State::Running;
    // No process has it. A program that another test is just starting may still hold our lock for an instant, and only
    // the lock of a supervisor that is gone is waited for.
    record.supervisor_pid = Some(u32::MAX >> 1);
    change(&mut record);
    dir.write_record(&record).unwrap();
    dir.hand_over();
}

fn state(sandboxes: &Sandboxes, spec: &SandboxSpec) -> Option<Record> {
    look(sandboxes, &spec.id).unwrap().map(|(_, record)| record)
}

#[test]
fn a_live_state_with_a_held_lock_is_the_truth() {
    let (_home, sandboxes) = home();
    let spec = spec();
    let dir = sandboxes.create(&spec, None).unwrap();
    let record = Record { state: State::Paused, ..dir.record().unwrap().starting() };
    dir.write_record(&record).unwrap();
    assert_eq!(state(&sandboxes, &spec), Some(record));
    assert_eq!(sandboxes.sweep().unwrap(), 0);
}

#[test]
fn a_live_state_with_a_free_lock_was_a_killed_supervisor() {
    let (_home, sandboxes) = home();
    for live in [State::Starting, State::Running, State::Paused, State::Stopping] {
        let spec = spec();
        left(&sandboxes, &spec, |record| record.state = live);
        let record = state(&sandboxes, &spec).unwrap();
        assert_eq!(record.state, State::Stopped);
        assert_eq!(record.cause.as_deref(), Some("its supervisor was killed"));
        assert!(record.ended_ns.is_some());
        assert_eq!(state(&sandboxes, &spec), Some(record), "it stays so");
    }
}

#[test]
fn another_boot_of_the_host_is_told_from_a_kill() {
    let (_home, sandboxes) = home();
    let spec = spec();
    left(&sandboxes, &spec, |record| record.boot_id = "another".to_owned());
    assert_eq!(state(&sandboxes, &spec).unwrap().cause.as_deref(), Some("the host was restarted"));
}

#[test]
fn what_nobody_keeps_goes_with_its_supervisor() {
    let (home, sandboxes) = home();
    let removed = SandboxSpec { auto_remove: true, ..spec() };
    left(&sandboxes, &removed, |_| ());
    let half_made = spec();
    left(&sandboxes, &half_made, |record| record.kept = false);
    let expired = SandboxSpec { expires_ns: Some(1), ..spec() };
    left(&sandboxes, &expired, |_| ());
    for spec in [removed, half_made, expired] {
        assert_eq!(state(&sandboxes, &spec), None);
    }
    assert_eq!(entries(&home.path().join("sandboxes")), 0);
}

#[test]
fn one_made_by_a_command_that_died_on_the_spot_is_removed_and_its_name_free() {
    let (_home, sandboxes) = home();
    let name = "web".parse().unwrap();
    sandboxes.create(&spec(), Some(&name)).unwrap().hand_over();
    // Nobody has swept.
    drop(sandboxes.create(&spec(), Some(&name)).unwrap());
    assert_eq!(sandboxes.list().unwrap().len(), 1);
}

#[test]
fn one_that_has_ended_is_removed_when_its_time_is_over() {
    let (_home, sandboxes) = home();
    let spec = SandboxSpec { expires_ns: Some(1), ..spec() };
    left(&sandboxes, &spec, |record| record.state = State::Stopped);
    assert_eq!(sandboxes.sweep().unwrap(), 1);
}

#[test]
fn a_sandbox_that_is_made_to_be_removed_waits_for_its_first_start() {
    let (_home, sandboxes) = home();
    let spec = SandboxSpec { auto_remove: true, ..spec() };
    drop(sandboxes.create(&spec, None).unwrap());
    assert_eq!(state(&sandboxes, &spec).unwrap().state, State::Created);
}

#[test]
fn a_state_that_is_lost_is_a_sandbox_that_does_not_run() {
    let (_home, sandboxes) = home();
    let spec = spec();
    left(&sandboxes, &spec, |_| ());
    fs::write(sandboxes.path_of(&spec.id).join("state.json"), b"").unwrap();
    let record = state(&sandboxes, &spec).unwrap();
    assert_eq!((record.state, record.cause.as_deref()), (State::Stopped, Some("its state was lost")));
    assert_eq!(state(&sandboxes, &spec), Some(record));
}

#[test]
fn sockets_that_were_left_behind_are_removed() {
    let (_home, sandboxes) = home();
    let spec = spec();
    left(&sandboxes, &spec, |_| ());
    let path = sandboxes.path_of(&spec.id);
    for socket in ["socket", "agent.sock"] {
        drop(std::os::unix::net::UnixListener::bind(path.join(socket)).unwrap());
    }
    state(&sandboxes, &spec).unwrap();
    assert!(!path.join("socket").exists() && !path.join("agent.sock").exists());
}

#[test]
fn an_engine_that_outlived_its_supervisor_is_killed_and_nobody_else() {
    let (_home, sandboxes) = home();
    let sleep = || Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let (mut engine, mut stranger) = (sleep(), sleep());
    let process = |pid, start_time| ProcessRecord { role: "engine".to_owned(), pid, start_time };
    let begun = start_time(engine.id()).unwrap();
    let spec = spec();
    left(&sandboxes, &spec, |record| {
        // The second has the number of an engine that is gone.
        record.engine_pids = vec![process(engine.id(), begun), process(stranger.id(), 1)];
    });
    assert_eq!(state(&sandboxes, &spec).unwrap().engine_pids, []);
    let how = engine.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&how), Some(9));
    assert_eq!(stranger.try_wait().unwrap(), None, "another process was killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn directories_half_made_and_half_removed_are_cleared_once_nobody_is_at_them() {
    let (home, sandboxes) = home();
    let dir = home.path().join("sandboxes");
    let dead = dir.join(".gone-0123456789ab");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("lock"), b"").unwrap();
    let busy = SandboxDir::make(&sandboxes, &spec()).unwrap();
    let young = dir.join(".new-0123456789ab");
    fs::create_dir(&young).unwrap();
    assert_eq!(sandboxes.sweep().unwrap(), 1);
    assert!(!dead.exists() && busy.path().exists() && young.exists());
    let old = std::time::SystemTime::now() - Duration::from_secs(60);
    File::open(&young).unwrap().set_modified(old).unwrap();
    assert_eq!(sandboxes.sweep().unwrap(), 1);
    busy.abandon();
    assert_eq!(entries(&dir), 0);
}

#[test]
fn looking_while_it_is_removed_is_no_error_for_either() {
    let (_home, sandboxes) = home();
    thread::scope(|scope| {
        let making = scope.spawn(|| {
            for _ in 0..200 {
                sandboxes.create(&spec(), Some(&"web".parse().unwrap())).unwrap().remove().unwrap();
            }
        });
        while !making.is_finished() {
            let survey = sandboxes.survey().unwrap();
            assert!(survey.damaged.is_empty(), "{:?}", survey.damaged);
            assert_eq!(survey.removed, 0, "somebody was at it");
            match sandboxes.find("web") {
                Ok(_) | Err(crate::FindError::NotFound { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn many_who_recover_at_once_agree() {
    let (_home, sandboxes) = home();
    let spec = spec();
    left(&sandboxes, &spec, |_| ());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // One that lost the race for the lock may still read the former state, and never a damaged one.
                let record = state(&sandboxes, &spec).unwrap();
                assert!(matches!(record.state, State::Running | State::Stopped));
            });
        }
    });
    assert_eq!(state(&sandboxes, &spec).unwrap().state, State::Stopped);
}

#[test]
fn one_whose_supervisor_was_killed_this_instant_is_not_said_to_run() {
    let (_home, sandboxes) = home();
    for _ in 0..50 {
        let spec = spec();
        let mut dir = sandboxes.create(&spec, None).unwrap();
        let lock = dir.share_lock().unwrap();
        // All that matters of a supervisor: it has the lock, and takes a moment to die.
        let mut supervisor =
            Command::new("sleep").arg("1000").stdin(Stdio::null()).stdout(lock).spawn().unwrap();
        let supervisor_pid = Some(supervisor.id());
        let record =
            Record { state: State::Running, kept: true, supervisor_pid, ..dir.record().unwrap().starting() };
        dir.write_record(&record).unwrap();
        dir.hand_over();
        assert_eq!(state(&sandboxes, &spec), Some(record));
        supervisor.kill().unwrap();
        assert_eq!(state(&sandboxes, &spec).unwrap().state, State::Stopped);
        supervisor.wait().unwrap();
    }
}

#[test]
fn only_a_process_on_its_way_out_is_dying() {
    assert!(!is_dying(std::process::id()));
    let mut child = Command::new("true").spawn().unwrap();
    let begun = Instant::now();
    while !is_dying(child.id()) && begun.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(is_dying(child.id()), "a zombie");
    child.wait().unwrap();
    let mut stopped = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_child(&stopped);
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    assert!(!is_dying(stopped.id()), "one that stands still lives");
    stopped.kill().unwrap();
    stopped.wait().unwrap();
}
