//! The main program in the guest: its start, and its way to its end.

use std::time::Duration;

use cellule_protocol::client::{
    AttachError, AttachEvent, AttachSpec, Attachment, CallError, ExecError, ExecId, ExecSpec, ExitStatus,
    Lost, Rlimit, Session, StartFailure, StartFailureKind, TerminalSize,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::failure::Failure;
use crate::hub::Hub;
use crate::inherited::complain;
use crate::saved::SavedMain;
use crate::spec::{MainSpec, MainStdin};

/// How long the last output of a program that has ended may take to come. It lies in the guest's memory.
const DRAIN: Duration = Duration::from_secs(60);

/// A main program that runs.
pub(crate) struct Running {
    pub(crate) pid: u32,
    /// Its end, once all of its output has been read.
    pub(crate) ended: BoxFuture<'static, Result<ExitStatus, Failure>>,
}

/// Why there is no main program.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// The guest says why not.
    Refused(StartFailure),
    /// The agent cannot be asked.
    Lost(Failure),
}

/// Starts the main program, its streams connected with the hub.
pub(crate) async fn start(session: Session, main: MainSpec, hub: Hub) -> Result<Running, NotStarted> {
    let what = streams(&main, [0, 0]);
    session.exec_detached(ExecId::MAIN, exec_spec(main)).await.map_err(not_started)?;
    connect(session, what, hub).await
}

/// Connects the hub with a main program that ran when its machine was saved.
pub(crate) async fn join(
    session: Session,
    main: MainSpec,
    hub: Hub,
    saved: SavedMain,
) -> Result<Running, NotStarted> {
    connect(session, streams(&main, [saved.stdout, saved.stderr]), hub).await
}

/// What of it to join, and from which byte of its outputs on.
fn streams(main: &MainSpec, [stdout, stderr]: [u64; 2]) -> AttachSpec {
    AttachSpec {
        stdin: main.stdin != MainStdin::None,
        stdout: Some(stdout),
        stderr: (!main.tty).then_some(stderr),
    }
}

async fn connect(session: Session, what: AttachSpec, hub: Hub) -> Result<Running, NotStarted> {
    let mut attachment = session.attach(ExecId::MAIN, what).await.map_err(not_attached)?;
    let Some(stdout) = attachment.stdout.take() else {
        let lost = Lost::Protocol("an attachment without its output".to_owned());
        return Err(NotStarted::Lost(Failure::lost(&lost)));
    };
    let missing = |from: u64, asked: Option<u64>| from.saturating_sub(asked.unwrap_or(from));
    let lost = missing(attachment.stdout_from, what.stdout) + missing(attachment.stderr_from, what.stderr);
    if lost > 0 {
        // They were on their way when it was saved, and are the former sandbox's.
        complain(&format!(
            "{lost} bytes of the main program's output before this are not in this sandbox's log"
        ));
    }
    let close = move |stderr| {
        let session = session.clone();
        // An agent that does not answer is noticed elsewhere.
        tokio::spawn(async move { _ = session.close_output(ExecId::MAIN, stderr).await });
    };
    hub.begin_at([attachment.stdout_from, attachment.stderr_from]);
    let read = hub.begin(attachment.stdin.take(), stdout, attachment.stderr.take(), close).await;
    let pid = attachment.pid;
    let ended = async move {
        let exit = exit(&mut attachment).await;
        hub.drain();
        let exit = exit.map_err(|lost| Failure::lost(&lost))?;
        match tokio::time::timeout(DRAIN, read).await {
            Ok(Ok(Ok(()))) => Ok(exit),
            Ok(Ok(Err(error))) => Err(Failure::output_lost(&error)),
            Ok(Err(error)) => Err(Failure::output_lost(&error)),
            Err(error) => Err(Failure::output_lost(&error)),
        }
    };
    Ok(Running { pid, ended: ended.boxed() })
}

async fn exit(attachment: &mut Attachment) -> Result<ExitStatus, Lost> {
    loop {
        if let AttachEvent::Exited(status) = attachment.next().await? {
            return Ok(status);
        }
    }
}

fn exec_spec(main: MainSpec) -> ExecSpec {
    ExecSpec {
        argv: main.argv.into_iter().map(String::into_bytes).collect(),
        env: main.env.into_iter().map(String::into_bytes).collect(),
        cwd: main.working_dir.into_bytes(),
        create_cwd: true,
        user: main.user,
        groups: main.groups,
        stdin: main.stdin != MainStdin::None,
        timeout: main.timeout_ms.map(Duration::from_millis),
        terminal: main.tty.then_some(TerminalSize { rows: main.rows, columns: main.columns }),
        lossless: true,
        rlimits: main.rlimits.into_iter().map(|(name, soft, hard)| Rlimit { name, soft, hard }).collect(),
        ..ExecSpec::default()
    }
}

fn not_started(error: ExecError) -> NotStarted {
    let refused = |kind, message: String| {
        NotStarted::Refused(StartFailure { kind, field: String::new(), message, errno: 0 })
    };
    match error {
        ExecError::Failed(failure) => NotStarted::Refused(failure),
        ExecError::TooMany { .. } => refused(StartFailureKind::ResourceExhausted, error.to_string()),
        // A request that it does not take, for its size say.
        ExecError::Call(CallError::Refused { message, .. }) => refused(StartFailureKind::Internal, message),
        ExecError::Call(error) => NotStarted::Lost(Failure::call(&error)),
    }
}

fn not_attached(error: AttachError) -> NotStarted {
    // It runs, and cannot be heard: there is no use in that.
    NotStarted::Lost(match error {
        AttachError::Call(error) => Failure::call(&error),
        other => Failure::output_lost(&other),
    })
}
