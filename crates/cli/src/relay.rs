//! Connects a program in a guest with the terminal or pipes of this process: streams both ways, and signals.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::Poll;

use cellule::ExecId;
use cellule_protocol::client::{Output, Session, Stdin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::blocking::Blocking;
use crate::detach_keys::{DetachFilter, DetachKeys};

/// What is moved at a time.
const CHUNK: usize = 128 << 10;

/// Copies what the program writes to a descriptor of ours, until it ends. A reader of ours that hangs up is passed on:
/// the program's own writes fail then.
///
/// # Errors
/// The descriptor of ours cannot be written for another reason, or the sandbox is lost.
pub(crate) async fn output(mut from: Output, to: impl AsFd) -> io::Result<()> {
    let to = Arc::new(Blocking::sharing(to)?);
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        match to.write_all_of(buffer).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => buffer = other?,
        }
    }
}

/// Copies our standard input to the program, until it ends or the program reads no more; or until its user types the
/// keys that detach, which is told to `detached`, and then the input is not ended.
///
/// A thread of its own reads it, since nothing else can wait for a terminal and a file alike. It is left behind when
/// the program has ended and the input has not.
pub(crate) async fn input(
    mut to: Stdin,
    keys: Option<DetachKeys>,
    detached: oneshot::Sender<()>,
) -> io::Result<()> {
    let mut chunks = read_input()?;
    let mut filter = keys.as_ref().map(DetachFilter::new);
    let mut leave = false;
    while let Some(chunk) = chunks.recv().await {
        let mut chunk = chunk?;
        if let Some(filter) = &mut filter {
            let mut passed = Vec::with_capacity(chunk.len());
            leave = filter.pass(&chunk, &mut passed).is_break();
            chunk = passed;
        }
        let written = async {
            to.write_all(&chunk).await?;
            if leave || chunks.is_empty() { to.flush().await } else { Ok(()) }
        };
        match written.await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
        if leave {
            _ = detached.send(());
            // Were we to end it, the program's input would end. Whoever hears of the keys drops us, with the stream cut.
            return std::future::pending().await;
        }
    }
    let mut rest = Vec::new();
    if let Some(filter) = filter {
        filter.finish(&mut rest);
    }
    let ended = async {
        to.write_all(&rest).await?;
        to.shutdown().await
    };
    match ended.await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn read_input() -> io::Result<mpsc::Receiver<io::Result<Vec<u8>>>> {
    // Two chunks on their way: one being read, one being sent.
    let (sender, receiver) = mpsc::channel(2);
    let mut file = Blocking::sharing(io::stdin())?;
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        loop {
            let mut chunk = vec![0; CHUNK];
            let message = match io::Read::read(&mut file, &mut chunk) {
                Ok(0) => return,
                Ok(read) => {
                    chunk.truncate(read);
                    Ok(chunk)
                }
                Err(error) => Err(error),
            };
            let failed = message.is_err();
            if sender.blocking_send(message).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// The signals that a user, a terminal or a service manager sends to a command.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(i32, Signal)>);

/// The number of SIGINT.
pub(crate) const INTERRUPT: i32 = 2;

impl Signals {
    /// From now on these signals come here and do nothing else. Those that are ignored, as under `nohup`, stay so.
    pub(crate) fn catch() -> io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let ignored = ignored();
        let wanted = kinds.into_iter().filter(|kind| ignored & (1 << (kind.as_raw_value() - 1)) == 0);
        Ok(Self(wanted.map(|kind| Ok((kind.as_raw_value(), signal(kind)?))).collect::<io::Result<_>>()?))
    }

    /// The number of the next one.
    pub(crate) async fn next(&mut self) -> i32 {
        std::future::poll_fn(|cx| {
            for (number, signal) in &mut self.0 {
                if signal.poll_recv(cx).is_ready() {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The signals that this process ignores, one bit each, the lowest for signal 1.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Passes signals on to a program. Returns at the second interrupt, which is meant for us.
pub(crate) async fn pass_on(signals: &mut Signals, to: Session, exec: ExecId) -> i32 {
    let mut interrupted = false;
    loop {
        let signal = signals.next().await;
        if signal == INTERRUPT && std::mem::replace(&mut interrupted, true) {
            return signal;
        }
        // A program that is gone needs none; a sandbox that is lost is noticed by whoever waits for the program.
        let to = to.clone();
        tokio::spawn(async move { to.signal(exec, signal, false).await });
    }
}
