use super::*;

fn id() -> SandboxId {
    "0123456789ab".parse().unwrap()
}

fn journal(dir: &tempfile::TempDir) -> Journal {
    Journal::at(dir.path())
}

fn append(journal: &Journal, action: Action) {
    journal.append(&id(), Some(&"web".parse().unwrap()), "base", action, [("exitCode", "3".to_owned())]);
}

fn actions(events: &[Event]) -> Vec<Action> {
    events.iter().map(|event| event.action).collect()
}

#[test]
fn what_was_written_is_read_in_order_and_since() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir);
    append(&journal, Action::Create);
    append(&journal, Action::Die);
    let events = journal.read_since(0).unwrap();
    assert_eq!(actions(&events), [Action::Create, Action::Die]);
    assert_eq!(events[0].name.as_ref().map(SandboxName::as_str), Some("web"));
    assert_eq!(events[1].attributes["exitCode"], "3");
    assert_eq!(actions(&journal.read_since(events[1].time_ns).unwrap()), [Action::Die]);
}

#[test]
fn a_missing_journal_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(journal(&dir).read_since(0).unwrap(), []);
}

#[test]
fn a_full_journal_is_put_aside_and_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal { full: 400, ..journal(&dir) };
    for _ in 0..10 {
        append(&journal, Action::Start);
    }
    let kept = journal.read_since(0).unwrap().len();
    assert!((2..10).contains(&kept), "{kept}");
    assert!(fs::metadata(dir.path().join(FILE)).unwrap().len() <= 600);
    assert!(dir.path().join(FORMER).exists());
}

#[test]
fn lines_that_are_no_events_hide_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir);
    append(&journal, Action::Create);
    let mut file = File::options().append(true).open(dir.path().join(FILE)).unwrap();
    file.write_all(b"{}\nnot json\n").unwrap();
    file.write_all(&[vec![b'x'; 3 * LINE], b"\n".to_vec()].concat()).unwrap();
    append(&journal, Action::Die);
    file.write_all(b"{\"time_ns\"").unwrap();
    assert_eq!(actions(&journal.read_since(0).unwrap()), [Action::Create, Action::Die]);
}

#[test]
fn a_line_is_never_longer_than_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir);
    let words = "\u{1}".repeat(10_000);
    journal.append(&id(), None, &words, Action::Die, [("cause", words.clone())]);
    assert_eq!(actions(&journal.read_since(0).unwrap()), [Action::Die]);
    assert!(fs::metadata(dir.path().join(FILE)).unwrap().len() <= LINE as u64);
}

#[test]
fn many_writers_lose_and_mix_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    append(&journal(&dir), Action::Start);
                }
            });
        }
    });
    assert_eq!(journal(&dir).read_since(0).unwrap().len(), 200);
}

#[tokio::test]
async fn a_follower_sees_what_comes_across_a_rotation_and_nothing_before() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal { full: 300, ..journal(&dir) };
    append(&journal, Action::Create);
    let mut follower = journal.follow().unwrap();
    let seen = async {
        for action in
            [Action::Start, Action::Pause, Action::Unpause, Action::Kill, Action::Die, Action::Destroy]
        {
            append(&journal, action);
            assert_eq!(follower.next().await.unwrap().action, action);
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), seen).await.unwrap();
    assert!(dir.path().join(FORMER).exists(), "it was rotated meanwhile");
}

#[test]
fn the_words_of_actions_are_those_of_the_file() {
    for action in Action::ALL {
        assert_eq!(serde_json::to_value(action).unwrap(), action.as_str());
    }
}
