use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::format::{LINE, PIECE};
use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn log() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(MAIN_LOG);
    (dir, path)
}

fn rest(reader: &mut LogReader) -> Vec<LogRecord> {
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

fn read(path: &std::path::Path, start: LogStart) -> Vec<LogRecord> {
    rest(&mut LogReader::open(path, start, None).unwrap())
}

fn texts(records: &[LogRecord]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(&record.bytes).into_owned()).collect()
}

/// The bytes of one stream, put together again.
fn together(records: &[LogRecord], stderr: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records.iter().filter(|record| record.stderr == stderr) {
        bytes.extend_from_slice(&record.bytes);
        if !record.partial {
            bytes.push(b'\n');
        }
    }
    bytes
}

#[test]
fn lines_are_as_kubernetes_reads_them() {
    let (_dir, path) = log();
    let mut writer = LogWriter::new(&path);
    writer.append(false, b"one\ntwo\n", at(1));
    writer.append(true, b"err\nunfinished", at(2));
    writer.finish(at(3));
    let expected = "1970-01-01T00:00:01.000000000Z stdout F one\n\
                    1970-01-01T00:00:01.000000000Z stdout F two\n\
                    1970-01-01T00:00:02.000000000Z stderr F err\n\
                    1970-01-01T00:00:03.000000000Z stderr P unfinished\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

proptest! {
    #[test]
    fn what_is_written_in_any_pieces_is_read_again(
        parts in prop::collection::vec((any::<bool>(), prop::collection::vec(prop_oneof![4 => Just(b'x'), 1 => Just(b'\n'), 1 => any::<u8>()], 0..40)), 0..40),
        blown_up in any::<bool>(),
    ) {
        let (_dir, path) = log();
        let mut writer = LogWriter::new(&path);
        let mut expected = [Vec::new(), Vec::new()];
        for (stderr, bytes) in &parts {
            let bytes = if blown_up { bytes.repeat(700) } else { bytes.clone() };
            writer.append(*stderr, &bytes, at(1));
            expected[usize::from(*stderr)].extend_from_slice(&bytes);
        }
        writer.finish(at(2));
        let records = read(&path, LogStart::Oldest);
        prop_assert!(records.iter().all(|record| record.bytes.len() <= PIECE));
        prop_assert_eq!(together(&records, false), &*expected[0]);
        prop_assert_eq!(together(&records, true), &*expected[1]);
    }

    #[test]
    fn the_last_lines_are_the_end_of_all_lines(
        lengths in prop::collection::vec(0_usize..9000, 1..60),
        last in 0_u64..70,
        limit in prop_oneof![Just(100_000_u64), Just(1 << 30)],
    ) {
        let (_dir, path) = log();
        let mut writer = LogWriter::with_limit(&path, limit);
        for length in &lengths {
            writer.append(false, &[vec![b'x'; *length * 4], vec![b'\n']].concat(), at(1));
        }
        let ends = |records: &[LogRecord]| records.iter().filter(|record| !record.partial).count() as u64;
        let all = read(&path, LogStart::Oldest);
        let found = read(&path, LogStart::Last(last));
        prop_assert_eq!(ends(&found), last.min(ends(&all)));
        prop_assert!(all.ends_with(&found));
        let before = &all[..all.len() - found.len()];
        prop_assert!(before.last().is_none_or(|record| !record.partial), "a line is not cut");
    }

    #[test]
    fn no_bytes_make_the_reader_fail(bytes in prop::collection::vec(any::<u8>(), 0..2000), last in 0_u64..5) {
        let (_dir, path) = log();
        fs::write(&path, &bytes).unwrap();
        read(&path, LogStart::Oldest);
        read(&path, LogStart::Last(last));
    }
}

#[test]
fn a_full_log_is_put_aside_and_what_is_gone_is_counted() {
    let (dir, path) = log();
    let mut writer = LogWriter::with_limit(&path, 1000);
    for number in 0..100 {
        writer.append(false, format!("line {number}\n").as_bytes(), at(number));
    }
    let kept = texts(&read(&path, LogStart::Oldest));
    assert_eq!(kept.last().unwrap(), "line 99");
    assert!(kept.len() < 45, "{}", kept.len());
    let first: u64 = kept[0].strip_prefix("line ").unwrap().parse().unwrap();
    assert_eq!(kept.len() as u64, 100 - first, "nothing is missing in between");
    let lines: u64 = (0..first).map(|number| 40 + format!("line {number}\n").len() as u64).sum();
    assert_eq!(writer.rotated_away(), lines);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_reader_follows_across_rotations() {
    let (_dir, path) = log();
    let mut writer = LogWriter::with_limit(&path, 300);
    let mut reader = LogReader::open(&path, LogStart::Oldest, None).unwrap();
    assert_eq!(rest(&mut reader), [], "there is no log yet");
    let mut seen = Vec::new();
    for number in 0..50 {
        writer.append(number % 2 == 0, format!("{number}\n").as_bytes(), at(number));
        seen.extend(texts(&rest(&mut reader)));
    }
    let expected: Vec<String> = (0..50).map(|number: u64| number.to_string()).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_line_that_is_being_written_is_read_once_it_is_whole() {
    let (_dir, path) = log();
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"1970-01-01T00:00:01.000000000Z stdo").unwrap();
    let mut reader = LogReader::open(&path, LogStart::Oldest, None).unwrap();
    assert_eq!(rest(&mut reader), []);
    file.write_all(b"ut F whole\n").unwrap();
    assert_eq!(texts(&rest(&mut reader)), ["whole"]);
}

#[test]
fn earlier_lines_are_left_out() {
    let (_dir, path) = log();
    let mut writer = LogWriter::new(&path);
    for number in 1..=5 {
        writer.append(false, format!("{number}\n").as_bytes(), at(number));
    }
    let since = i64::try_from(Duration::from_secs(4).as_nanos()).unwrap();
    let mut reader = LogReader::open(&path, LogStart::Oldest, Some(since)).unwrap();
    assert_eq!(texts(&rest(&mut reader)), ["4", "5"]);
    assert_eq!(read(&path, LogStart::End), []);
}

#[test]
fn what_is_no_line_hides_no_others() {
    let (_dir, path) = log();
    let mut writer = LogWriter::new(&path);
    writer.append(false, b"one\n", at(1));
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.write_all(b"garbage\n\n").unwrap();
    file.write_all(&[vec![b'x'; 5 * LINE], vec![b'\n']].concat()).unwrap();
    file.write_all(b"9999-99-99T00:00:01.000000000Z stdout F no time\n").unwrap();
    drop(writer);
    LogWriter::new(&path).append(false, b"two\n", at(2));
    assert_eq!(texts(&read(&path, LogStart::Oldest)), ["one", "two"]);
}

#[test]
fn a_disk_that_takes_nothing_is_noted_once_it_does_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing").join(MAIN_LOG);
    let mut writer = LogWriter::new(&path);
    writer.append(false, b"lost\n", at(1));
    writer.append(false, b"lost too\n", at(1));
    fs::create_dir(path.parent().unwrap()).unwrap();
    writer.append(false, b"kept\n", at(1));
    writer.append(false, b"kept too\n", at(1));
    let lost = 2 * 40 + "lost\nlost too\n".len();
    let note = format!("[cellule: the disk did not take {lost} bytes of this log]");
    assert_eq!(texts(&read(&path, LogStart::Oldest)), [note.as_str(), "kept", "kept too"]);
}
