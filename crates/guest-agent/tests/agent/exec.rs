//! What a program gets, how it ends, and what its owner hears of it.

use std::time::{Duration, Instant};

use cellule_protocol::client::{ExecError, ExecId, ExecSpec, Exit, StartFailureKind};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{AgentProcess, LIMIT, assert_gone, finish, run, shell, within};

#[tokio::test]
async fn a_program_ends_with_its_code_and_both_outputs_come_apart() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let (status, stdout, stderr) = run(&session, shell("echo out; echo err >&2; exit 42")).await;
    assert_eq!(status.exit, Exit::Code(42));
    assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert!(!status.timed_out && !status.oom_killed);
}

#[tokio::test]
async fn a_death_by_signal_names_the_signal() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let (status, ..) = run(&session, shell("kill -SEGV $$")).await;
    assert_eq!(status.exit, Exit::Signal(11));
}

#[tokio::test]
async fn environment_directory_and_arguments_arrive_as_given() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut spec = shell("printf '%s|%s|%s|%s' \"$PWD\" \"$A\" \"$1\" \"$(env | wc -l)\"");
    spec.argv.extend([b"sh".to_vec(), b"\xFF with space".to_vec()]);
    spec.env.push(b"A=x=y".to_vec());
    spec.env.push(b"HOME=/nowhere".to_vec());
    spec.cwd = b"/usr".to_vec();
    let (_, stdout, _) = run(&session, spec).await;
    // PATH, A, HOME; and PWD, with what else the shell itself adds, is there too.
    let text = stdout.split(|byte| *byte == b'|').collect::<Vec<_>>();
    assert_eq!(text[..3], [&b"/usr"[..], b"x=y", b"\xFF with space"]);
    let count: u32 = String::from_utf8_lossy(text[3]).trim().parse().unwrap();
    assert!(count <= 6, "more variables than were given: {count}");
}

#[tokio::test]
async fn the_end_of_the_input_reaches_the_program() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(ExecSpec { stdin: true, ..shell("wc -c") }).await.unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    stdin.write_all(b"12345").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut stdout = String::new();
    exec.stdout.read_to_string(&mut stdout).await.unwrap();
    assert_eq!(stdout.trim(), "5");
    assert_eq!(exec.process.wait().await.unwrap().exit, Exit::Code(0));
}

#[tokio::test]
async fn a_program_without_input_reads_nothing_and_ends() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let (status, stdout, _) = run(&session, shell("wc -c")).await;
    assert_eq!((status.exit, stdout.trim_ascii()), (Exit::Code(0), &b"0"[..]));
}

#[tokio::test]
async fn megabytes_go_both_ways_intact() {
    const SIZE: usize = 64 << 20;
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(ExecSpec { stdin: true, ..shell("exec cat") }).await.unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    let sent = tokio::spawn(async move {
        let mut hash = Sha256::new();
        let mut state = 1_u64;
        let mut left = SIZE;
        while left > 0 {
            let chunk: Vec<u8> = (0..left.min(100_003))
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    state.to_le_bytes()[7]
                })
                .collect();
            hash.update(&chunk);
            stdin.write_all(&chunk).await.unwrap();
            left -= chunk.len();
        }
        stdin.shutdown().await.unwrap();
        hash.finalize()
    });
    let mut hash = Sha256::new();
    let mut total = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = tokio::time::timeout(LIMIT, exec.stdout.read(&mut buffer)).await.unwrap().unwrap();
        if count == 0 {
            break;
        }
        total += count;
        hash.update(&buffer[..count]);
    }
    assert_eq!(total, SIZE);
    assert_eq!(hash.finalize(), sent.await.unwrap());
    assert_eq!(exec.process.wait().await.unwrap().exit, Exit::Code(0));
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_no_memory_and_slows_the_program() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let before = session.status().await.unwrap().agent_rss_bytes;
    let mut exec = session.exec(shell("exec yes")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = session.status().await.unwrap().agent_rss_bytes;
    assert!(after < before + (4 << 20), "{before} grew to {after}");
    let mut some = vec![0; 1 << 20];
    exec.stdout.read_exact(&mut some).await.unwrap();
    assert_eq!(some[..4], *b"y\ny\n");
    // Neither the unread output nor anything else delays a kill and its report.
    assert!(exec.process.signaller().signal(15).await.unwrap());
    let status = tokio::time::timeout(LIMIT, exec.process.wait()).await.unwrap().unwrap();
    assert_eq!(status.exit, Exit::Signal(15));
}

#[tokio::test]
async fn unread_input_delays_neither_kill_nor_exit() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(ExecSpec { stdin: true, ..shell("exec sleep 1000") }).await.unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    let writer = tokio::spawn(async move { while stdin.write_all(&[0; 1 << 14]).await.is_ok() {} });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(exec.process.signaller().signal(9).await.unwrap());
    let status = tokio::time::timeout(LIMIT, exec.process.wait()).await.unwrap().unwrap();
    assert_eq!(status.exit, Exit::Signal(9));
    tokio::time::timeout(LIMIT, writer).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_exit_is_told_while_the_input_stays_open() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(ExecSpec { stdin: true, ..shell("exit 11") }).await.unwrap();
    assert_eq!(within(exec.process.wait()).await.unwrap().exit, Exit::Code(11));
    drop(exec.stdin);
}

#[tokio::test]
async fn a_time_limit_holds_whatever_the_input_waits_for() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let timeout = Some(Duration::from_millis(300));
    let mut exec = session.exec(ExecSpec { stdin: true, timeout, ..shell("exec sleep 1000") }).await.unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    let writer = tokio::spawn(async move { while stdin.write_all(&[0; 1 << 14]).await.is_ok() {} });
    let status = within(exec.process.wait()).await.unwrap();
    assert_eq!((status.exit, status.timed_out), (Exit::Signal(9), true));
    within(writer).await.unwrap();
}

#[tokio::test]
async fn a_write_to_an_input_that_the_program_closed_fails() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(ExecSpec { stdin: true, ..shell("exec <&-; sleep 1000") }).await.unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    let error = within(async {
        loop {
            if let Err(error) = stdin.write_all(&[0; 1 << 14]).await {
                return error;
            }
        }
    })
    .await;
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn orphans_are_reaped() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    // As the subreaper that PID 1 is by itself.
    let (status, stdout, _) = run(&session, shell("(sleep 0.3 & echo $!) ; exit 0")).await;
    assert_eq!(status.exit, Exit::Code(0));
    let orphan = String::from_utf8_lossy(&stdout).trim().to_owned();
    let stat = std::path::Path::new("/proc").join(orphan).join("stat");
    let begun = Instant::now();
    // Not even a zombie is left.
    while stat.exists() {
        assert!(begun.elapsed() < LIMIT, "{:?}", std::fs::read_to_string(&stat));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_exit_at_the_deadline_is_either_success_or_a_timeout() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    for after in (0..40).map(|at| 180 + at) {
        let timeout = Some(Duration::from_millis(after));
        let (status, ..) = run(&session, ExecSpec { timeout, ..shell("exec sleep 0.2") }).await;
        assert!(
            matches!((status.exit, status.timed_out), (Exit::Code(0), false) | (Exit::Signal(9), true)),
            "{status:?}"
        );
    }
}

#[tokio::test]
async fn a_survivor_that_holds_the_pipe_does_not_hold_the_exec() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let begun = Instant::now();
    let (status, stdout, _) = run(&session, shell("echo before; setsid sleep 100 & exit 3")).await;
    assert_eq!(status.exit, Exit::Code(3));
    assert_eq!(stdout, b"before\n");
    assert!(begun.elapsed() < Duration::from_secs(50));
}

#[tokio::test]
async fn all_that_was_written_before_the_exit_is_delivered() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(shell("head -c 60000 /dev/zero; sleep 100 & exit 0")).await.unwrap();
    exec.process.wait().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut stdout = Vec::new();
    tokio::time::timeout(LIMIT, exec.stdout.read_to_end(&mut stdout)).await.unwrap().unwrap();
    assert_eq!(stdout.len(), 60_000);
}

#[tokio::test]
async fn a_time_limit_ends_the_program_and_its_children() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let spec = ExecSpec { timeout: Some(Duration::from_millis(300)), ..shell("sleep 1000 & echo $!; wait") };
    let (status, stdout, _) = run(&session, spec).await;
    assert_eq!(status.exit, Exit::Signal(9));
    assert!(status.timed_out);
    assert_gone(String::from_utf8_lossy(&stdout).trim()).await;
}

#[tokio::test]
async fn an_exit_within_the_limit_is_no_timeout() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let spec = ExecSpec { timeout: Some(Duration::from_secs(50)), ..shell("exit 7") };
    let (status, ..) = run(&session, spec).await;
    assert_eq!((status.exit, status.timed_out), (Exit::Code(7), false));
}

#[tokio::test]
async fn an_exec_that_its_owner_drops_is_killed() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let exec = session.exec(shell("exec sleep 1000")).await.unwrap();
    let pid = exec.process.pid().to_string();
    drop(exec);
    assert_gone(&pid).await;
}

#[tokio::test]
async fn a_reader_that_leaves_looks_like_a_closed_pipe() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(shell("exec yes")).await.unwrap();
    let stdout = exec.stdout;
    drop(stdout);
    let status = tokio::time::timeout(LIMIT, exec.process.wait()).await.unwrap().unwrap();
    assert_eq!(status.exit, Exit::Signal(13));
}

#[tokio::test]
async fn signals_of_an_exec_that_is_gone_reach_nobody() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut exec = session.exec(shell("exit 0")).await.unwrap();
    exec.process.wait().await.unwrap();
    assert!(!exec.process.signaller().signal(9).await.unwrap());
    assert!(!exec.process.signaller().signal_all(9).await.unwrap());
}

#[tokio::test]
async fn children_get_default_signals_an_empty_mask_and_no_descriptors() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let script = "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | wc -l; cut -d' ' -f6 /proc/$$/stat; echo $$";
    let (_, stdout, _) = run(&session, shell(script)).await;
    let text = String::from_utf8(stdout).unwrap();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    assert_eq!(lines[0], "SigBlk:\t0000000000000000");
    // At most what this process was started with, and not SIGPIPE, which the agent ignores; and nothing of the two signals of the
    // C library, which it ignores in what it spawns.
    let ignored = |line: &str| {
        u64::from_str_radix(line.strip_prefix("SigIgn:\t").unwrap(), 16).unwrap() & !(0b11 << 31)
    };
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("SigIgn")).unwrap();
    assert_eq!(ignored(lines[1]) & !(ignored(own) & !(1 << 12)), 0, "{own}");
    // Three, and the directory that `ls` reads.
    assert_eq!(lines[2], "4");
    assert_eq!(lines[3], lines[4], "it leads a session of its own");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "text").unwrap();
    let argv = |program: &[u8]| ExecSpec { argv: vec![program.to_vec()], ..shell("") };
    let cases = [
        (argv(b"no-such-program"), StartFailureKind::NotFound, "argv[0]"),
        (argv(b"/no/such/program"), StartFailureKind::NotFound, "argv[0]"),
        (argv(plain.as_os_str().as_encoded_bytes()), StartFailureKind::NotExecutable, "argv[0]"),
        (argv(b"/usr"), StartFailureKind::NotExecutable, "argv[0]"),
        (ExecSpec::default(), StartFailureKind::InvalidArgument, "argv"),
        (argv(b"a\0b"), StartFailureKind::InvalidArgument, "argv[0]"),
        (argv(&vec![b'x'; 200_000]), StartFailureKind::InvalidArgument, "argv[0]"),
        (ExecSpec { env: vec![b"x".to_vec()], ..shell("") }, StartFailureKind::InvalidArgument, "env[0]"),
        (ExecSpec { cwd: b"/no/such".to_vec(), ..shell("") }, StartFailureKind::BadWorkingDirectory, "cwd"),
        (ExecSpec { cwd: b"x".to_vec(), ..shell("") }, StartFailureKind::InvalidArgument, "cwd"),
        (ExecSpec { user: "no-such-user".into(), ..shell("") }, StartFailureKind::UnknownUser, "user"),
        (ExecSpec { user: "0:no-such-group".into(), ..shell("") }, StartFailureKind::UnknownGroup, "user"),
    ];
    for (spec, kind, field) in cases {
        let shown = format!("{:.100}", format!("{spec:?}"));
        match session.exec(spec).await {
            Err(ExecError::Failed(failure)) => {
                assert_eq!((failure.kind, failure.field.as_str()), (kind, field), "{shown}: {failure}");
            }
            other => panic!("{shown}: {other:?}"),
        }
    }
    // The session is none the worse.
    assert_eq!(run(&session, shell("exit 0")).await.0.exit, Exit::Code(0));
}

#[tokio::test]
async fn a_missing_working_directory_is_made_if_asked_for() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let dir = tempfile::tempdir().unwrap();
    let cwd = dir.path().join("a/b");
    let cwd = cwd.as_os_str().as_encoded_bytes().to_vec();
    let spec = ExecSpec { cwd: cwd.clone(), create_cwd: true, ..shell("pwd") };
    assert_eq!(run(&session, spec).await.1.trim_ascii(), cwd);
}

#[tokio::test]
async fn three_hundred_execs_at_once_each_get_their_own() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut all = Vec::new();
    for at in 0..300_u16 {
        let spec = ExecSpec { stdin: true, ..shell(&format!("read go; echo {at}; exit {}", at % 256)) };
        all.push((at, within(session.exec(spec)).await.unwrap()));
    }
    assert_eq!(session.status().await.unwrap().running_execs, 300);
    for (at, mut exec) in all {
        exec.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
        let (status, stdout, _) = finish(exec).await;
        assert_eq!(status.exit, Exit::Code(u8::try_from(at % 256).unwrap()));
        assert_eq!(stdout, format!("{at}\n").into_bytes());
    }
}

#[tokio::test]
async fn two_hundred_execs_in_one_burst_all_end_well() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let all: Vec<_> = (0..200_u8)
        .map(|at| {
            let session = session.clone();
            tokio::spawn(async move { (at, run(&session, shell(&format!("echo {at}; exit {at}"))).await) })
        })
        .collect();
    for one in all {
        let (at, (status, stdout, _)) = one.await.unwrap();
        assert_eq!(status.exit, Exit::Code(at));
        assert_eq!(stdout, format!("{at}\n").into_bytes());
    }
}

#[tokio::test]
async fn one_more_than_a_session_holds_is_refused_and_the_others_are_none_the_worse() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let mut all = Vec::new();
    let refused = loop {
        let spec = ExecSpec { stdin: true, ..shell("exec cat") };
        match within(session.exec(spec)).await {
            Ok(exec) => all.push(exec),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, ExecError::TooMany { limit: 341 }), "{refused:?}");
    assert_eq!(all.len(), 341);
    let last = all.pop().unwrap();
    assert_eq!(finish(last).await.0.exit, Exit::Code(0));
    assert_eq!(run(&session, shell("exit 9")).await.0.exit, Exit::Code(9));
}

#[tokio::test]
async fn more_than_the_agent_runs_are_refused_with_the_reason() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    for id in 1..=512 {
        session.exec_detached(ExecId(id), shell("exec sleep 1000")).await.unwrap();
    }
    match session.exec_detached(ExecId(1000), shell("exit 0")).await {
        Err(ExecError::Failed(failure)) => assert_eq!(failure.kind, StartFailureKind::ResourceExhausted),
        other => panic!("{other:?}"),
    }
    session.signal(ExecId(7), 9, false).await.unwrap();
    let begun = Instant::now();
    while session.exec_detached(ExecId(1000), shell("exit 0")).await.is_err() {
        assert!(begun.elapsed() < LIMIT);
    }
}

#[tokio::test]
async fn a_program_whose_output_nobody_wants_has_no_streams_and_ends_as_any_other() {
    let agent = AgentProcess::start();
    let session = agent.session().await;
    let script = "for fd in 0 1 2; do [ \"$(readlink /proc/$$/fd/$fd)\" = /dev/null ] || exit 9; done; \
                  head -c 1000000 /dev/zero; exit 7";
    let spec = ExecSpec { stdin: true, ..shell(script) };
    let mut process = within(session.exec_without_output(spec)).await.unwrap();
    assert_eq!(within(process.wait()).await.unwrap().exit, Exit::Code(7));
    let missing = ExecSpec { argv: vec![b"/none".to_vec()], ..ExecSpec::default() };
    let failed = within(session.exec_without_output(missing)).await;
    assert!(matches!(failed, Err(ExecError::Failed(_))), "{failed:?}");
    // Dropped, it is killed as others are.
    let process = within(session.exec_without_output(shell("exec sleep 1000"))).await.unwrap();
    let pid = process.pid().to_string();
    drop(process);
    assert_gone(&pid).await;
}
