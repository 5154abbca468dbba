//! The library, in this very process: what no command can show, and the examples that people copy.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cellule::{Error, Exit, Host, PortError, ReadRange, Rlimit, Sandbox, Signal, TerminalSize, WriteOptions};
use cellule_tests::{HANG, Home, binary, eventually, fixture, leftovers, processes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Runs this to its end on an executor of its own, and fails when that takes too long.
#[track_caller]
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(HANG, future).await.expect("it ends in time") })
}

fn host(home: &Home) -> Host {
    Host::at(home.path()).unwrap().with_program(binary())
}

async fn start(home: &Home) -> Sandbox {
    host(home).sandbox("base").start().await.unwrap()
}

#[test]
fn two_hundred_execs_at_once_are_all_right() {
    let home = Home::new();
    run(async {
        let sandbox = start(&home).await;
        let mut running = tokio::task::JoinSet::new();
        for n in 0..200_u32 {
            let mut command = sandbox.command("sh");
            command
                .args(["-c", "read x; echo out$0$x; echo err$0 >&2; exit $(($0 % 100))"])
                .arg(n.to_string());
            command.stdin(true);
            running.spawn(async move {
                let mut child = command.spawn().await.unwrap();
                let mut stdin = child.stdin.take().unwrap();
                stdin.write_all(format!("in{n}\n").as_bytes()).await.unwrap();
                stdin.shutdown().await.unwrap();
                (n, child.collect(1 << 16).await.unwrap())
            });
        }
        let mut count = 0;
        while let Some(ended) = running.join_next().await {
            let (n, output) = ended.unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("out{n}in{n}\n"));
            assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("err{n}\n"));
            assert_eq!(output.status.exit, Exit::Code(u8::try_from(n % 100).unwrap()));
            count += 1;
        }
        assert_eq!(count, 200);
        assert!(
            sandbox.execs().await.unwrap().iter().all(|exec| exec.exited.is_none()),
            "one that ended is kept"
        );
        sandbox.end().await.unwrap();
    });
    leftovers::assert_none(&home);
}

#[test]
fn a_port_is_reached_and_one_that_nobody_listens_on_is_refused() {
    let home = Home::new();
    run(async {
        let sandbox = start(&home).await;
        let refused = sandbox.connect_port(7000).await.unwrap_err();
        assert!(matches!(refused, Error::Port(PortError::Refused { port: 7000 })), "{refused}");
        let mut server = sandbox.command("nc");
        server.args(["-ll", "-p", "7000", "-e", "cat"]);
        let _server = server.spawn().await.unwrap();
        let connect = async || {
            loop {
                match sandbox.connect_port(7000).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let (mut first, mut second) = (connect().await, connect().await);
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
        for stream in [&mut first, &mut second] {
            let (mut from, mut to) = tokio::io::split(stream);
            let mut back = Vec::new();
            let write = async {
                to.write_all(&bytes).await.unwrap();
                to.shutdown().await.unwrap();
            };
            let ((), read) = tokio::join!(write, from.read_to_end(&mut back));
            read.unwrap();
            assert!(back == bytes, "{} of {} bytes came back", back.len(), bytes.len());
        }
        sandbox.end().await.unwrap();
    });
    leftovers::assert_none(&home);
}

#[test]
fn what_is_dropped_ends_and_what_is_detached_stays() {
    let home = Home::new();
    // A sandbox that was started here.
    let begun = run(async {
        let sandbox = start(&home).await;
        let id = sandbox.id().to_owned();
        drop(sandbox);
        id
    });
    assert!(!begun.is_empty());
    leftovers::assert_none(&home);

    // One that was let go of; and what a dropped child started in it.
    let id = run(async {
        let mut sandbox = start(&home).await;
        sandbox.detach().await.unwrap();
        let child =
            sandbox.command("sh").args(["-c", "setsid sleep 7001 & sleep 7002"]).spawn().await.unwrap();
        let kept = sandbox.command("sleep").arg("7003").spawn().await.unwrap().detach().await.unwrap();
        drop(child);
        let table = async || {
            let processes = sandbox.processes().await.unwrap();
            processes
                .iter()
                .map(|process| String::from_utf8_lossy(&process.command).into_owned())
                .collect::<Vec<_>>()
        };
        let dropped = Instant::now();
        while table().await.iter().any(|line| line.contains("700") && !line.contains("7003")) {
            assert!(
                dropped.elapsed() < Duration::from_secs(10),
                "a dropped child runs on: {:?}",
                table().await
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(table().await.iter().any(|line| line.contains("7003")), "a detached child was killed");
        assert!(sandbox.execs().await.unwrap().iter().any(|exec| exec.id == kept));
        sandbox.id().to_owned()
    });
    let sandbox = home.sandbox(&id);
    assert_eq!(sandbox.state(), "running");
    run(async {
        // A connection that is dropped is nothing to the sandbox.
        drop(host(&home).connect(&id).await.unwrap());
        let mut again = host(&home).connect(&id).await.unwrap();
        assert_eq!(again.command("echo").arg("here").output().await.unwrap().stdout, b"here\n");
        again.stop(Duration::from_secs(1)).await.unwrap();
    });
    leftovers::assert_none(&home);
}

#[test]
fn a_start_that_is_given_up_leaves_nothing() {
    let home = Home::new();
    run(async {
        for wait in [50, 400, 1500] {
            let starting = host(&home).sandbox("base").cold(true).start();
            let given_up = tokio::time::timeout(Duration::from_millis(wait), starting).await;
            assert!(given_up.is_err(), "a boot in {wait} ms");
        }
    });
    leftovers::assert_none(&home);
}

#[test]
fn an_output_is_kept_to_its_limit_and_what_it_took_is_told() {
    let home = Home::new();
    run(async {
        let sandbox = start(&home).await;
        let mut command = sandbox.command("sh");
        command.args(["-c", "head -c 5000000 /dev/zero; head -c 3000 /dev/zero >&2"]).output_limit(1000);
        let output = command.output().await.unwrap();
        assert_eq!((output.stdout.len(), output.stdout_dropped), (1000, 4_999_000));
        assert_eq!((output.stderr.len(), output.stderr_dropped), (1000, 2000));
        assert_eq!(output.status.exit, Exit::Code(0));

        // Some memory, and some time, of a grandchild as well.
        let script = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; (sleep 0.1)";
        let usage = sandbox.command("sh").args(["-c", script]).output().await.unwrap().status.usage;
        assert!((15 << 20..200 << 20).contains(&usage.memory_peak), "{usage:?}");
        assert!((20 << 20..400 << 20).contains(&usage.max_rss), "{usage:?}");
        let cpu = usage.cpu;
        assert!(cpu > Duration::from_millis(20) && cpu < Duration::from_secs(60), "{usage:?}");
        let little = sandbox.command("true").status().await.unwrap().usage;
        assert!(little.memory_peak < usage.memory_peak / 2 && little.cpu < cpu, "{little:?}");

        // What is refused names its field.
        let refused = |error: Error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        };
        let nul = refused(sandbox.command("echo").arg("a\0b").output().await.unwrap_err());
        assert!(nul.contains("argv") || nul.contains("argument"), "{nul}");
        let empty = refused(sandbox.command("").output().await.unwrap_err());
        assert!(empty.contains("argv") || empty.contains("program"), "{empty}");
        // One byte more than a kernel takes; the command line could not even pass it on.
        let huge = refused(sandbox.command("true").arg(vec![b'x'; 128 << 10]).output().await.unwrap_err());
        assert!(huge.to_lowercase().contains("too long") || huge.contains("argv"), "{huge}");
        let limit = Rlimit { name: "nonsense".to_owned(), soft: None, hard: None };
        let limit = refused(sandbox.command("true").rlimit(limit).output().await.unwrap_err());
        assert!(limit.contains("rlimits[0]") || limit.contains("nonsense"), "{limit}");
        sandbox.end().await.unwrap();
    });
    leftovers::assert_none(&home);
}

#[test]
fn a_stalled_input_delays_neither_resize_nor_kill() {
    let home = Home::new();
    run(async {
        let sandbox = start(&home).await;
        let script = "trap 'stty size' WINCH; stty -icanon; echo ready; while :; do sleep 0.1; done";
        let mut command = sandbox.command("sh");
        command.args(["-c", script]).stdin(true).terminal(TerminalSize { rows: 24, columns: 80 });
        let mut child = command.spawn().await.unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let stalled = tokio::spawn(async move {
            while stdin.write_all(&vec![b'x'; 65536]).await.is_ok() && stdin.flush().await.is_ok() {}
        });
        let mut stdout = child.stdout.take().unwrap();
        let mut said = Vec::new();
        let mut until = async |word: &str| {
            while !String::from_utf8_lossy(&said).contains(word) {
                assert_ne!(
                    stdout.read_buf(&mut said).await.unwrap(),
                    0,
                    "{word} in {}",
                    String::from_utf8_lossy(&said)
                );
            }
        };
        until("ready").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!stalled.is_finished(), "nothing stalls");
        let asked = Instant::now();
        assert!(child.resize(TerminalSize { rows: 33, columns: 99 }).await.unwrap());
        until("33 99").await;
        assert!(child.kill().await.unwrap());
        assert_eq!(child.exit().await.unwrap().exit, Exit::Signal(Signal::KILL.number()));
        assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
        stalled.abort();
        sandbox.end().await.unwrap();
    });
    leftovers::assert_none(&home);
}

#[test]
fn names_need_not_be_text() {
    let home = Home::new();
    run(async {
        let sandbox = start(&home).await;
        let files = sandbox.files();
        let odd: &[u8] = b"/tmp/\xff\xfe line\nbreak";
        let mut file = files.write(odd, WriteOptions::default()).await.unwrap();
        file.write_all(b"odd").await.unwrap();
        assert_eq!(file.finish().await.unwrap(), 3);
        let mut read = Vec::new();
        files.read(odd, ReadRange::default()).await.unwrap().read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"odd");
        let names: Vec<Vec<u8>> =
            files.list("/tmp").await.unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [&odd[5..]]);
        let shown = sandbox.command("cat").arg(odd).output().await.unwrap();
        assert_eq!(shown.stdout, b"odd");

        // Dropped before its end, a write has not been.
        let mut file = files.write(odd, WriteOptions::default()).await.unwrap();
        file.write_all(b"half").await.unwrap();
        file.flush().await.unwrap();
        drop(file);
        let left = Instant::now();
        while files.list("/tmp").await.unwrap().len() != 1 {
            assert!(left.elapsed() < Duration::from_secs(10), "a temporary file is left");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(files.stat(odd, true).await.unwrap().size, 3);
        sandbox.end().await.unwrap();
    });
    leftovers::assert_none(&home);
}

#[test]
fn a_sandbox_that_is_lost_is_an_error_and_never_an_exit() {
    let home = Home::new();
    run(async {
        let mut sandbox = start(&home).await;
        let mut child = sandbox.command("sleep").arg("1000").spawn().await.unwrap();
        let known = home.sandbox(sandbox.id());
        let (_, engine) = tokio::task::block_in_place(|| known.pids());
        processes::kill(engine);
        let asked = Instant::now();
        _ = child.wait().await.unwrap_err();
        assert!(sandbox.command("true").output().await.is_err());
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        let cause = sandbox.cause().await;
        assert!(format!("{cause:?}").contains("EngineDied"), "{cause:?}");
        drop(sandbox);
    });
    leftovers::assert_none(&home);
}

/// One of `crates/cellule/examples`, as it is.
fn example(home: &Home, name: &str) -> Command {
    let program: PathBuf = binary().parent().unwrap().join("examples").join(name);
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("CELLULE_HOME", home.path())
        .env("CELLULE_PROGRAM", binary())
        .stdin(Stdio::null());
    command
}

#[test]
fn the_examples_do_what_they_say() {
    let home = Home::new();
    let output = |mut command: Command| {
        let output = command.output().unwrap();
        let [out, err] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{command:?}\n{out}\n{err}");
        (out, err)
    };
    let (out, _) = output(example(&home, "build"));
    assert!(out.contains("A sandbox woke.\nIt built a book.\nThen it was gone.\n"), "{out}");
    leftovers::assert_none(&home);

    let program = home.path().join("program.py");
    fs::write(&program, "import os, sys\nprint('from', os.uname().sysname)\nsys.exit(3)\n").unwrap();
    let mut python = example(&home, "untrusted_python");
    python.arg(fixture("debian.tar")).arg(&program);
    let (out, err) = output(python);
    assert_eq!((out.as_str(), err.as_str()), ("from Linux\n", "it ended with code 3\n"));
    leftovers::assert_none(&home);

    let mut service = example(&home, "service");
    service.arg("3");
    let (out, _) = output(service);
    assert!(out.contains("clock was started") && out.matches("it is ").count() == 3, "{out}");
    let (out, _) = output(example(&home, "service"));
    assert!(out.contains("clock runs already"), "{out}");
    _ = home.cellule(["rm", "--force", "clock"]).output().exits(0);
    eventually("nothing runs", HANG, || leftovers::processes(&home).is_empty());
    leftovers::assert_none(&home);
}
