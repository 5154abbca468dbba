//! Contents of files on their way.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cellule_protocol::client::Exit;
use cellule_protocol::client::files::{FileError, FileWriter, Files, ReadRange, WriteOptions};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::files::{Place, assert_kind};
use crate::support::{LIMIT, run, shell, within};

async fn read(files: &Files, path: &[u8], range: ReadRange) -> Vec<u8> {
    let mut reader = files.read(path, range).await.unwrap();
    let mut bytes = Vec::new();
    within(reader.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

async fn write(files: &Files, path: &[u8], bytes: &[u8], options: WriteOptions) -> Result<u64, FileError> {
    let mut writer = files.write(path, options).await?;
    // A refusal may come while it is written; the end tells which.
    let _refused = within(writer.write_all(bytes)).await;
    within(writer.finish()).await
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 + at / 251).to_le_bytes()[0]).collect()
}

#[tokio::test]
async fn what_is_written_can_be_read_at_every_size_that_matters() {
    let place = Place::new();
    let files = place.files().await;
    let chunk = 2 * (128 * 1024 - 12);
    for size in [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 1_000_003] {
        let (path, bytes) = (place.path("file"), pattern(size));
        assert_eq!(write(&files, &path, &bytes, WriteOptions::default()).await.unwrap(), size as u64);
        assert_eq!(fs::read(place.dir().join("file")).unwrap(), bytes, "{size}");
        assert_eq!(read(&files, &path, ReadRange::default()).await, bytes, "{size}");
    }
    assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 1, "no temporary is left");
}

#[tokio::test]
async fn a_range_gives_what_there_is_of_it() {
    let place = Place::new();
    let files = place.files().await;
    let path = place.write("file", b"0123456789");
    for (offset, length, expected) in [
        (0, Some(3), &b"012"[..]),
        (7, None, b"789"),
        (7, Some(100), b"789"),
        (10, None, b""),
        (u64::MAX, Some(1), b""),
        (3, Some(0), b""),
    ] {
        assert_eq!(read(&files, &path, ReadRange { offset, length }).await, expected);
    }
}

#[tokio::test]
async fn only_regular_files_are_read_and_nothing_is_waited_for() {
    let place = Place::new();
    let files = place.files().await;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.dir().join("fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.dir().join("socket")).unwrap();
    for (path, why) in [
        (place.path(""), "is a directory"),
        (place.path("fifo"), "is a FIFO, not a regular file"),
        (place.path("socket"), "is a socket, not a regular file"),
        (b"/dev/zero".to_vec(), "is a device, not a regular file"),
    ] {
        for result in [
            within(files.read(&path, ReadRange::default())).await.map(drop),
            write(&files, &path, b"x", WriteOptions::default()).await.map(drop),
            write(&files, &path, b"x", WriteOptions { append: true, ..WriteOptions::default() })
                .await
                .map(drop),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, FileError::Failed { .. }) && error.to_string().ends_with(why), "{error}");
        }
    }
    assert_kind(files.read(place.path("none"), ReadRange::default()).await, io::ErrorKind::NotFound);
}

#[tokio::test]
async fn files_of_the_kernel_are_read_to_their_end() {
    let place = Place::new();
    let files = place.files().await;
    let text = read(&files, b"/proc/self/status", ReadRange::default()).await;
    assert!(text.starts_with(b"Name:") && text.len() > 500);
}

#[tokio::test]
async fn names_that_are_no_text_and_links_on_the_way_work() {
    let place = Place::new();
    let files = place.files().await;
    fs::create_dir(place.dir().join("real")).unwrap();
    symlink("real", place.dir().join("link")).unwrap();
    let mut path = place.path("link/");
    path.extend(b"\xFF\xFE name");
    write(&files, &path, b"x", WriteOptions::default()).await.unwrap();
    assert_eq!(read(&files, &path, ReadRange::default()).await, b"x");
    assert_eq!(fs::read_dir(place.dir().join("real")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_link_is_written_through_and_stays() {
    let place = Place::new();
    let files = place.files().await;
    fs::create_dir(place.dir().join("sub")).unwrap();
    place.write("sub/target", "old");
    symlink("sub/target", place.dir().join("link")).unwrap();
    symlink("link", place.dir().join("second")).unwrap();
    symlink(place.dir().join("sub/new"), place.dir().join("dangling")).unwrap();
    symlink("loop", place.dir().join("loop")).unwrap();
    write(&files, &place.path("second"), b"new", WriteOptions::default()).await.unwrap();
    write(&files, &place.path("dangling"), b"made", WriteOptions::default()).await.unwrap();
    assert!(place.dir().join("link").is_symlink() && place.dir().join("second").is_symlink());
    assert_eq!(fs::read(place.dir().join("sub/target")).unwrap(), b"new");
    assert_eq!(fs::read(place.dir().join("sub/new")).unwrap(), b"made");
    let looped = write(&files, &place.path("loop"), b"x", WriteOptions::default()).await.unwrap_err();
    assert!(matches!(looped, FileError::Failed { errno: Some(40), .. }), "{looped:?}");
}

#[tokio::test]
async fn mode_and_owner_stay_unless_others_are_asked_for() {
    let place = Place::new();
    let files = place.files().await;
    let mode = |name: &str| fs::metadata(place.dir().join(name)).unwrap().mode() & 0o7777;
    let path = place.path("file");
    write(&files, &path, b"1", WriteOptions::default()).await.unwrap();
    assert_eq!(mode("file"), 0o644);
    fs::set_permissions(place.dir().join("file"), fs::Permissions::from_mode(0o4711)).unwrap();
    write(&files, &path, b"2", WriteOptions::default()).await.unwrap();
    assert_eq!(mode("file"), 0o4711);
    let there = fs::metadata(place.dir().join("file")).unwrap();
    let options = WriteOptions {
        mode: Some(0o600),
        owner: Some((there.uid(), there.gid())),
        sync: true,
        ..WriteOptions::default()
    };
    write(&files, &path, b"3", options).await.unwrap();
    assert_eq!(mode("file"), 0o600);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(place.dir().join("file"), Some(12), Some(34)).unwrap();
        write(&files, &path, b"4", WriteOptions::default()).await.unwrap();
        let there = fs::metadata(place.dir().join("file")).unwrap();
        assert_eq!((there.uid(), there.gid()), (12, 34));
    }
    let bad = WriteOptions { mode: Some(0o10000), ..WriteOptions::default() };
    assert_kind(write(&files, &path, b"", bad).await, io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn what_must_be_new_replaces_nothing() {
    let place = Place::new();
    let files = place.files().await;
    let new = WriteOptions { create_new: true, ..WriteOptions::default() };
    write(&files, &place.path("file"), b"1", new).await.unwrap();
    assert_kind(write(&files, &place.path("file"), b"2", new).await, io::ErrorKind::AlreadyExists);
    symlink("nowhere", place.dir().join("dangling")).unwrap();
    assert_kind(write(&files, &place.path("dangling"), b"2", new).await, io::ErrorKind::AlreadyExists);
    // Somebody else may come first, too.
    let mut writer = files.write(place.path("late"), new).await.unwrap();
    writer.write_all(b"ours").await.unwrap();
    writer.flush().await.unwrap();
    wait_until(|| fs::read_dir(place.dir()).unwrap().count() == 3).await;
    place.write("late", "theirs");
    assert_kind(writer.finish().await, io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(place.dir().join("late")).unwrap(), b"theirs");
    assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 3);
}

#[tokio::test]
async fn appending_adds_to_the_end_whoever_else_does() {
    let place = Place::new();
    let files = place.files().await;
    let append = WriteOptions { append: true, ..WriteOptions::default() };
    let path = place.path("file");
    write(&files, &path, b"one ", append).await.unwrap();
    assert_eq!(fs::metadata(place.dir().join("file")).unwrap().mode() & 0o7777, 0o644);
    write(&files, &path, b"two", append).await.unwrap();
    assert_eq!(fs::read(place.dir().join("file")).unwrap(), b"one two");
}

#[tokio::test]
async fn a_reader_sees_the_old_or_the_new_and_never_less() {
    let place = Place::new();
    let files = place.files().await;
    let path = place.write("file", vec![b'a'; 400_000]);
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (file, stop) = (place.dir().join("file"), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                let bytes = fs::read(&file).unwrap();
                assert!(bytes.len() == 400_000 && bytes.iter().all(|byte| *byte == bytes[0]), "a mixture");
                seen += 1;
            }
            seen
        })
    };
    for round in 0..40_u8 {
        write(&files, &path, &vec![b'a' + round % 26; 400_000], WriteOptions::default()).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
}

#[tokio::test]
async fn a_write_that_is_cut_leaves_what_was_there_and_nothing_else() {
    let place = Place::new();
    let session = place.agent.session().await;
    let files = session.files();
    let path = place.write("file", "old");
    let begun = async |files: &Files| -> FileWriter {
        let mut writer = files.write(&path, WriteOptions::default()).await.unwrap();
        writer.write_all(&pattern(900_000)).await.unwrap();
        // The end of an `AsyncWrite` is no promise that this was all.
        writer.shutdown().await.unwrap();
        wait_until(|| fs::read_dir(place.dir()).unwrap().count() == 2).await;
        writer
    };
    let writer = begun(&files).await;
    drop(writer);
    wait_until(|| fs::read_dir(place.dir()).unwrap().count() == 1).await;
    assert_eq!(fs::read(place.dir().join("file")).unwrap(), b"old");
    // The same when the whole session goes.
    let writer = begun(&files).await;
    drop((writer, files, session));
    wait_until(|| fs::read_dir(place.dir()).unwrap().count() == 1).await;
    assert_eq!(fs::read(place.dir().join("file")).unwrap(), b"old");
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let session = place.agent.session().await;
    let files = session.files();
    // A mount of its own, which ends with the program that made it.
    let script = format!(
        "mount -t tmpfs -o size=1m none {0} && echo old > {0}/file && echo ready && exec sleep 1000",
        place.dir().display()
    );
    let mut command = shell("");
    command.argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", &script]
        .map(|word| word.as_bytes().to_vec())
        .to_vec();
    let mut exec = session.exec(command).await.unwrap();
    let mut ready = [0; 6];
    if exec.stdout.read_exact(&mut ready).await.is_err() {
        // No right to mount here.
        return;
    }
    let root = format!("/proc/{}/root{}", exec.process.pid(), place.dir().display());
    let path = format!("{root}/file").into_bytes();
    let error = write(&files, &path, &vec![1; 8 << 20], WriteOptions::default()).await.unwrap_err();
    let FileError::Failed { errno: Some(28), kind, .. } = error else { panic!("{error:?}") };
    assert_eq!(kind, io::ErrorKind::StorageFull);
    assert_eq!(fs::read(format!("{root}/file")).unwrap(), b"old\n");
    wait_until(|| fs::read_dir(&root).unwrap().count() == 1).await;
}

#[tokio::test]
async fn a_refusal_reaches_a_writer_that_waits() {
    let place = Place::new();
    let files = place.files().await;
    for path in [place.path("none/file"), b"relative".to_vec()] {
        let mut writer = files.write(&path, WriteOptions::default()).await.unwrap();
        let bytes = pattern(32 << 20);
        let error = within(writer.write_all(&bytes)).await.unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput), "{error}");
        // And the same again, whatever is asked.
        assert_eq!(within(writer.write_all(&bytes)).await.unwrap_err().kind(), error.kind());
        assert_eq!(io::Error::from(within(writer.finish()).await.unwrap_err()).kind(), error.kind());
    }
}

#[tokio::test]
async fn a_large_file_goes_both_ways_in_flat_memory() {
    const SIZE: u64 = 256 << 20;
    let place = Place::new();
    let session = place.agent.session().await;
    let files = session.files();
    // Once before, so that what any transfer takes is there.
    write(&files, &place.path("warm"), &pattern(8 << 20), WriteOptions::default()).await.unwrap();
    let before = session.status().await.unwrap().agent_rss_bytes;
    let mut most = before;
    let mut writer = files.write(place.path("large"), WriteOptions::default()).await.unwrap();
    let piece = pattern(1 << 20);
    let mut sent = Sha256::new();
    for at in 0..SIZE >> 20 {
        writer.write_all(&piece).await.unwrap();
        sent.update(&piece);
        if at % 32 == 0 {
            most = most.max(session.status().await.unwrap().agent_rss_bytes);
        }
    }
    assert_eq!(within(writer.finish()).await.unwrap(), SIZE);
    let mut reader = files.read(place.path("large"), ReadRange::default()).await.unwrap();
    assert_eq!(reader.info().size, SIZE);
    let mut received = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut total = 0;
    loop {
        let count = within(reader.read(&mut buffer)).await.unwrap();
        if count == 0 {
            break;
        }
        received.update(&buffer[..count]);
        total += count as u64;
        if total % (32 << 20) < count as u64 {
            most = most.max(session.status().await.unwrap().agent_rss_bytes);
        }
    }
    assert_eq!((total, received.finalize()), (SIZE, sent.finalize()));
    // The windows of streams, and a few buffers.
    assert!(most < before + (24 << 20), "{before} grew to {most}");
}

#[tokio::test]
async fn a_transfer_whose_reader_stalls_delays_nobody() {
    let place = Place::new();
    let session = place.agent.session().await;
    let files = session.files();
    let path = place.write("large", vec![1; 32 << 20]);
    let mut stalled = Vec::new();
    for _ in 0..40 {
        stalled.push(files.read(&path, ReadRange::default()).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let small = place.write("small", "x");
    assert_eq!(read(&files, &small, ReadRange::default()).await, b"x");
    assert_eq!(run(&session, shell("exit 3")).await.0.exit, Exit::Code(3));
    let mut last = stalled.pop().unwrap();
    drop(stalled);
    let mut bytes = Vec::new();
    within(last.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(bytes.len(), 32 << 20);
}

#[tokio::test]
async fn an_agent_that_vanishes_leaves_no_short_file() {
    let mut place = Place::new();
    let session = place.agent.session().await;
    let path = place.write("large", vec![1; 32 << 20]);
    let mut reader = session.files().read(&path, ReadRange::default()).await.unwrap();
    let mut writer = session.files().write(place.path("new"), WriteOptions::default()).await.unwrap();
    writer.write_all(b"x").await.unwrap();
    place.agent.kill();
    let mut bytes = Vec::new();
    let error = within(reader.read_to_end(&mut bytes)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let error = within(writer.finish()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
}

pub(crate) async fn wait_until(mut what: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !what() {
        assert!(begun.elapsed() < LIMIT, "it did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
