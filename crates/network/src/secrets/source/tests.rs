//! What sources give.

use super::*;

const NOW: u64 = 1_800_000_000;

fn parsed(output: &str) -> Result<(Vec<u8>, Option<u64>), ValueError> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let fetched = parse(output.as_bytes(), now)?;
    Ok((fetched.value.expose().to_vec(), fetched.life.map(|life| life.as_secs())))
}

#[test]
fn a_command_gives_a_text_or_json_with_a_value() {
    for (output, value, life) in [
        ("plain\n", "plain", None),
        ("two\nlines\r\n", "two\nlines", None),
        (r#"{"value": "v"}"#, "v", None),
        (r#"{"value": "v", "ttl": 90}"#, "v", Some(90)),
        (r#"{"value": "v", "expires_at": 1800000100, "token_type": "x"}"#, "v", Some(100)),
        (r#"{"value": "v", "expires_at": "2027-01-15T09:00:10+01:00"}"#, "v", Some(10)),
        (r#"{"value": "v", "ttl": 1e300}"#, "v", Some(365 * 24 * 3600)),
        (r#"{"type": "service_account"}"#, r#"{"type": "service_account"}"#, None),
        (r#"{"value": 1}"#, r#"{"value": 1}"#, None),
    ] {
        assert_eq!(parsed(output).unwrap(), (value.as_bytes().to_vec(), life), "{output}");
    }
}

#[test]
fn a_command_whose_value_has_no_life_left_is_refused() {
    for output in [
        r#"{"value": "v", "ttl": 0}"#,
        r#"{"value": "v", "ttl": -5}"#,
        r#"{"value": "v", "expires_at": 1700000000}"#,
        r#"{"value": "v", "expires_at": "2020-01-01T00:00:00Z"}"#,
    ] {
        assert!(matches!(parsed(output), Err(ValueError::Expired)), "{output}");
    }
    for output in [r#"{"value": "v", "ttl": "soon"}"#, r#"{"value": "v", "expires_at": "tomorrow"}"#] {
        assert!(matches!(parsed(output), Err(ValueError::Time)), "{output}");
    }
    assert!(matches!(parsed("\n"), Err(ValueError::Value(SecretError::Empty))));
}

#[tokio::test]
async fn a_command_of_the_shells_is_run_and_its_failure_told_without_its_words() {
    let fetched = run("printf %s \"a b\"; echo whatever >&2").await.unwrap();
    assert_eq!(fetched.value.expose(), b"a b");
    let error = run("echo hush; echo hush >&2; exit 3").await.unwrap_err();
    assert!(matches!(error, ValueError::Failed(_)));
    assert!(!format!("{error} {error:?}").contains("hush"));
    let error = run("head -c 70000 /dev/zero").await.unwrap_err();
    assert!(matches!(error, ValueError::Value(SecretError::TooLong)));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_does_not_end_is_killed_with_all_that_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let command = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", path.display());
    let running = tokio::spawn(async move { run(&command).await.map(drop) });
    // The clock stands still as long as somebody is at work.
    let pid = loop {
        match std::fs::read_to_string(&path) {
            Ok(pid) => break pid,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(matches!(running.await.unwrap(), Err(ValueError::Late)));
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    while state().split_whitespace().nth(2).is_some_and(|state| state != "Z") {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_files_last_newline_is_not_part_of_the_value() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let argument = format!("T=file:{}@a.com", path.display());
    let spec = argument.parse::<super::super::SecretArgument>().unwrap().spec;
    assert!(matches!(load(&spec).await, Err(ValueError::File(_))));
    std::fs::write(&path, "token\n").unwrap();
    assert_eq!(load(&spec).await.unwrap().value.expose(), b"token");
    std::fs::write(&path, vec![b'x'; LONGEST + 1]).unwrap();
    assert!(matches!(load(&spec).await, Err(ValueError::Value(SecretError::TooLong))));
    std::fs::write(&path, [vec![b'x'; LONGEST], b"\r\n".to_vec()].concat()).unwrap();
    assert_eq!(load(&spec).await.unwrap().value.expose().len(), LONGEST);
}

#[tokio::test]
async fn a_pipe_is_no_file_and_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
    assert!(matches!(read(&path), Err(ValueError::File(_))));
    assert!(matches!(read(directory.path()), Err(ValueError::File(_))));
}
