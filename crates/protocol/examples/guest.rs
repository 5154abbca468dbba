//! Talks to the agent of a guest: times its answers, or runs a command.
//!
//! `guest SOCKET` prints round trips and throughput; `guest SOCKET PROGRAM ARGUMENT…` runs a program there. SOCKET is the
//! Unix socket of the virtio-serial port `cellule.agent`, on which the engine listens, or else this program. With `KEEP` set
//! the guest stays on.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a bench, not a product"
)]

use std::time::{Duration, Instant};

use cellule_protocol::client::{
    AttachSpec, Exec, ExecId, ExecSpec, Exit, Limits, Rlimit, Session, StagedFile, TerminalSize,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

const MEGABYTES: usize = 128;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().unwrap();
    let command: Vec<_> = arguments.map(String::into_bytes).collect();
    let stream = match UnixStream::connect(&socket).await {
        Ok(stream) => stream,
        Err(_) => UnixListener::bind(&socket).unwrap().accept().await.unwrap().0,
    };
    let begun = Instant::now();
    let session = Session::connect(stream, Limits::default()).await.unwrap();
    println!("connected after {:.1} ms", ms(begun));
    for _ in 0..2 {
        let begun = Instant::now();
        session.status().await.unwrap();
        println!("status, cold {:.2} ms", ms(begun));
    }
    let begun = Instant::now();
    let configuration = cellule_protocol::v1::Configuration {
        hostname: "cell".into(),
        hosts: b"127.0.0.1 localhost\n".to_vec(),
        resolv_conf: b"nameserver 10.0.0.1\n".to_vec(),
        ..Default::default()
    };
    let guest = session.handshake(Some(configuration)).await.unwrap();
    println!("first handshake {:.2} ms", ms(begun));
    println!("kernel {} memory {} cpus {}", guest.kernel_release, guest.memory_bytes, guest.cpus);
    for step in &guest.boot_steps {
        println!(
            "  {:>9.1} ms {:>8.2} ms {}",
            step.started_us as f64 / 1e3,
            step.took_us as f64 / 1e3,
            step.name
        );
    }
    for problem in &guest.problems {
        println!("problem: {problem:?}");
    }
    if command.is_empty() {
        measure(&session).await;
    } else if command[0] == b"check" {
        check(&session).await;
    } else {
        let begun = Instant::now();
        let exec = session.exec(ExecSpec { argv: command, ..ExecSpec::default() }).await.unwrap();
        let Exec { mut stdout, stderr, mut process, .. } = exec;
        let mut stderr = stderr.unwrap();
        let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
        let (a, b, status) = tokio::join!(
            tokio::io::copy(&mut stdout, &mut out),
            tokio::io::copy(&mut stderr, &mut err),
            process.wait()
        );
        println!("{a:?} {b:?} {status:?} {:.1} ms", ms(begun));
    }
    println!("{:?}", session.status().await.unwrap());
    if std::env::var_os("KEEP").is_some() {
        return;
    }
    session.power_off(Duration::from_millis(500)).await.unwrap();
    println!("{:?}", tokio::time::timeout(Duration::from_secs(10), session.ended()).await);
}

/// What only a guest can show: control groups, users, a root of its own.
async fn check(session: &Session) {
    let shell = |script: &str| ExecSpec {
        argv: ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec()).to_vec(),
        env: vec![b"PATH=/bin".to_vec()],
        ..ExecSpec::default()
    };
    let file =
        |path: &str, content: &str| StagedFile { path: path.into(), content: content.into(), mode: None };
    let files = vec![
        file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"),
        file("/etc/group", "root:x:0:\ntty:x:5:\nalice:x:1000:\n"),
    ];
    show(
        "staged files",
        session,
        ExecSpec { files, ..shell("ls -ln /etc; rm -r /etc/group.d /home; mkdir /made") },
    )
    .await;
    let spec = ExecSpec { timeout: Some(Duration::from_millis(700)), ..shell("setsid sleep 77 & sleep 78") };
    show("timeout with a setsid escapee", session, spec).await;
    show("nothing of it is left", session, shell("ps | grep -c 'sleep 7[78]'")).await;
    let spec = ExecSpec {
        user: "alice".into(),
        groups: vec!["29".into()],
        cwd: b"/new/dir".to_vec(),
        create_cwd: true,
        ..shell("id; pwd; echo $HOME; echo x > /dev/stdout; echo y > /dev/stderr; ls /dev/vport0p1")
    };
    show("as alice", session, spec).await;
    show("memory runs out", session, shell("x=$(head -c 400m /dev/zero | tr '\\0' x); echo ${#x}")).await;
    let configuration = cellule_protocol::v1::Configuration {
        hostname: "second".into(),
        hosts: b"127.0.0.1 second\n".to_vec(),
        read_only: true,
        tmpfs: vec![
            cellule_protocol::v1::Tmpfs { path: b"/scratch".to_vec(), options: "size=1m,mode=700".into() },
            cellule_protocol::v1::Tmpfs { path: b"/bad".to_vec(), options: "size=banana".into() },
        ],
        ..Default::default()
    };
    let answer = session.handshake(Some(configuration.clone())).await.unwrap();
    println!("problems: {:?}", answer.problems);
    let answer = session.handshake(Some(configuration)).await.unwrap();
    println!("problems again: {:?}", answer.problems);
    let script = "hostname; cat /etc/hostname /etc/hosts; touch /x; touch /tmp/x /run/x /scratch/x /dev/shm/x /etc/hosts && echo writable; mount | grep -E ' (/|/scratch|/tmp|/run) '";
    show("read-only", session, shell(script)).await;
    let exec = session.exec(shell("sleep 50 & sleep 50")).await.unwrap();
    println!("signal all: {:?}", exec.process.signaller().signal_all(15).await);
    let mut process = exec.process;
    println!("{:?}", process.wait().await.unwrap().exit);
    show("none left", session, shell("ps | grep -c 'sleep 5[0]'")).await;
    show("clock and random", session, shell("date -u; head -c 8 /dev/urandom | wc -c")).await;
    execs(session).await;
    insight(session).await;
}

/// Terminals, chains, many at once.
async fn execs(session: &Session) {
    let shell = |script: &str| ExecSpec {
        argv: ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec()).to_vec(),
        env: vec![b"PATH=/bin".to_vec()],
        ..ExecSpec::default()
    };
    let terminal = Some(TerminalSize { rows: 33, columns: 101 });
    let script = "tty; ls -l $(tty); stty size; echo x > /dev/tty; id -u; ls /proc/self/fd | tr '\\n' ' '";
    let spec = ExecSpec { terminal, user: "alice".into(), ..shell(script) };
    show("a terminal", session, spec).await;
    let spec = ExecSpec {
        terminal,
        timeout: Some(Duration::from_millis(700)),
        ..shell("trap '' HUP; setsid sleep 66 & sleep 67")
    };
    show("a terminal with a time limit", session, spec).await;
    show("nothing of it is left", session, shell("ps | grep -c 'sleep 6[67]'")).await;
    let words = |script: &str| ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec()).to_vec();
    let then = vec![words("echo b; sleep 20 & exit 0"), words("ps | grep -c 'sleep 2[0]'; exit 4")];
    show("a chain keeps its group", session, ExecSpec { then, ..shell("echo a") }).await;
    show("its survivor lives on", session, shell("ps | grep -c 'sleep 2[0]'")).await;
    show("memory and time", session, shell("x=$(head -c 20m /dev/zero | tr '\\0' x); i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done & wait")).await;
    let limit = |name: &str| Rlimit { name: name.into(), soft: Some(77), hard: Some(99_999) };
    let spec = ExecSpec {
        rlimits: vec![limit("nofile"), limit("nproc")],
        user: "alice".into(),
        ..shell("ulimit -n; ulimit -u")
    };
    show("limits of alice", session, spec).await;
    show("usual limits", session, shell("ulimit -n; ulimit -Hn; grep 'open files' /proc/1/limits")).await;

    let begun = Instant::now();
    let mut all = Vec::new();
    for _ in 0..300 {
        all.push(session.exec(ExecSpec { stdin: true, ..shell("read x; echo $x") }).await.unwrap());
    }
    println!("300 execs started after {:.0} ms: {:?}", ms(begun), session.status().await.unwrap());
    for (at, exec) in all.iter_mut().enumerate() {
        exec.stdin.as_mut().unwrap().write_all(format!("{at}\n").as_bytes()).await.unwrap();
    }
    for (at, exec) in all.into_iter().enumerate() {
        let Exec { mut stdout, mut process, .. } = exec;
        let mut text = String::new();
        stdout.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.trim().parse(), process.wait().await.unwrap().exit), (Ok(at), Exit::Code(0)));
    }
    println!("300 execs ended after {:.0} ms: {:?}", ms(begun), session.status().await.unwrap());
    let id = ExecId::random();
    session.exec_detached(id, shell("echo kept; exit 3")).await.unwrap();
    let what = AttachSpec { stdin: false, stdout: Some(0), stderr: None };
    let mut joined = session.attach(id, what).await.unwrap();
    let mut text = String::new();
    joined.stdout.as_mut().unwrap().read_to_string(&mut text).await.unwrap();
    println!("{text:?} {:?} {:?}", joined.next().await.unwrap(), session.execs().await.unwrap());
    show("groups that are left", session, shell("ls /sys/fs/cgroup/exec | grep -c '^[0-9]'")).await;
}

async fn insight(session: &Session) {
    println!("{:?}", session.stats().await.unwrap());
    for process in session.processes().await.unwrap() {
        println!("{process:?}");
    }
    let mut differences = session.diff().await.unwrap();
    while let Some(difference) = differences.next().await.unwrap() {
        println!("{:?} {}", difference.kind(), String::from_utf8_lossy(&difference.path));
    }
}

async fn show(what: &str, session: &Session, spec: ExecSpec) {
    let Exec { mut stdout, mut stderr, mut process, .. } = session.exec(spec).await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    let read_stderr = async {
        match &mut stderr {
            Some(stderr) => stderr.read_to_string(&mut err).await,
            None => Ok(0),
        }
    };
    let (a, b, status) = tokio::join!(stdout.read_to_string(&mut out), read_stderr, process.wait());
    a.unwrap();
    b.unwrap();
    println!("== {what}: {:?}\n{out}{err}", status.unwrap());
}

async fn measure(session: &Session) {
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        session.status().await.unwrap();
        times.push(ms(begun));
    }
    percentiles("status", &mut times);
    for _ in 0..50 {
        let begun = Instant::now();
        session.handshake(None).await.unwrap();
        times.push(ms(begun));
    }
    percentiles("handshake", &mut times);
    let mut started = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        let exec = session
            .exec(ExecSpec { argv: vec![b"/bin/true".to_vec()], ..ExecSpec::default() })
            .await
            .unwrap();
        started.push(ms(begun));
        let Exec { mut stdout, stderr, mut process, .. } = exec;
        let mut stderr = stderr.unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (a, b, status) =
            tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err), process.wait());
        a.unwrap();
        b.unwrap();
        status.unwrap();
        times.push(ms(begun));
    }
    percentiles("exec true, started", &mut started);
    percentiles("exec true, ended", &mut times);
    for _ in 0..3 {
        let exec = session
            .exec(ExecSpec { argv: vec![b"/bin/cat".to_vec()], stdin: true, ..ExecSpec::default() })
            .await
            .unwrap();
        let Exec { stdin, mut stdout, mut process, .. } = exec;
        let mut stdin = stdin.unwrap();
        let begun = Instant::now();
        let writer = tokio::spawn(async move {
            let block = vec![b'x'; 1 << 20];
            for _ in 0..MEGABYTES {
                stdin.write_all(&block).await.unwrap();
            }
            stdin.shutdown().await.unwrap();
        });
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0;
        loop {
            match stdout.read(&mut buffer).await.unwrap() {
                0 => break,
                count => total += count,
            }
        }
        writer.await.unwrap();
        process.wait().await.unwrap();
        assert_eq!(total, MEGABYTES << 20);
        println!("cat: {:.1} MB/s", (total as f64 / 1e6) / begun.elapsed().as_secs_f64());
    }
    for (what, argv) in [
        ("out, 4 KiB writes", "exec dd if=/dev/zero bs=4k count=32768"),
        ("out, 64 KiB writes", "exec dd if=/dev/zero bs=64k count=2048"),
        ("in", "exec cat > /dev/null"),
    ] {
        let spec = ExecSpec {
            argv: ["/bin/sh", "-c", argv].map(|word| word.as_bytes().to_vec()).to_vec(),
            env: vec![b"PATH=/bin".to_vec()],
            stdin: what == "in",
            ..ExecSpec::default()
        };
        let Exec { stdin, mut stdout, mut process, .. } = session.exec(spec).await.unwrap();
        let begun = Instant::now();
        if let Some(mut stdin) = stdin {
            let block = vec![b'x'; 1 << 20];
            for _ in 0..128 {
                stdin.write_all(&block).await.unwrap();
            }
            stdin.shutdown().await.unwrap();
        }
        let mut buffer = vec![0; 1 << 20];
        while stdout.read(&mut buffer).await.unwrap() > 0 {}
        process.wait().await.unwrap();
        println!("{what}: {:.1} MB/s", 128.0 * 1.048_576 / begun.elapsed().as_secs_f64());
    }
}

fn percentiles(what: &str, times: &mut Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{what}: p50 {:.2} ms, p95 {:.2} ms, max {:.2} ms", at(50), at(95), at(100));
    times.clear();
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
