//! QEMU's control channel, QMP: one JSON object per line, answers in the order of the commands, events in between.
//!
//! QEMU is only half trusted: a guest may have taken it over. Lines are bounded, what isn't understood ends the
//! channel, and every command has a time limit.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::{Framed, LinesCodec};

use crate::ControlError;

/// Longest line. The longest that is expected is the greeting, with some 200 bytes.
const LINE_MAX: usize = 64 << 10;
/// How long QEMU may take to answer.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// What QEMU tells unasked, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The guest's processors were stopped.
    Stop,
    /// They go on.
    Resume,
    /// QEMU is about to end: because of the guest or not, and for this reason.
    Shutdown { guest: bool, reason: String },
}

/// A line from QEMU.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Greeting {
        #[serde(rename = "QMP")]
        qmp: Greeting,
    },
    Return {
        #[serde(rename = "return")]
        value: Value,
    },
    Error {
        error: Refusal,
    },
    Event {
        event: String,
        #[serde(default)]
        data: Value,
    },
}

#[derive(Deserialize)]
struct Greeting {
    version: Versions,
}

#[derive(Deserialize)]
struct Versions {
    qemu: Version,
}

/// QEMU's version, as it greets with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Version {
    major: u32,
    minor: u32,
    micro: u32,
}

impl Version {
    pub(super) fn parts(self) -> (u32, u32) {
        (self.major, self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

type Answer = oneshot::Sender<Result<Value, String>>;

/// Sends commands. The channel stays open as long as this is there.
#[derive(Debug, Clone)]
pub(super) struct Qmp {
    commands: mpsc::Sender<(String, Answer)>,
    version: Version,
}

impl Qmp {
    /// Waits for QEMU's greeting and agrees to speak plainly. The receiver gets the events; it ends with the channel.
    pub(super) async fn open(socket: UnixStream) -> Result<(Self, mpsc::Receiver<Event>), ControlError> {
        let mut lines = Framed::new(socket, LinesCodec::new_with_max_length(LINE_MAX));
        let command = "greeting";
        let version = match tokio::time::timeout(LIMIT, lines.next()).await {
            Err(_) => return Err(ControlError::Timeout { command, limit: LIMIT }),
            Ok(None) => return Err(ControlError::Closed),
            Ok(Some(line)) => match line.ok().as_deref().map(serde_json::from_str) {
                Some(Ok(Message::Greeting { qmp })) => qmp.version.qemu,
                _ => return Err(ControlError::Malformed { command }),
            },
        };
        let (commands, queue) = mpsc::channel(8);
        let (events, receiver) = mpsc::channel(64);
        tokio::spawn(serve(lines, queue, events));
        let qmp = Self { commands, version };
        qmp.execute("qmp_capabilities").await?;
        Ok((qmp, receiver))
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Has QEMU execute a command that takes no arguments.
    pub(super) async fn execute(&self, command: &'static str) -> Result<Value, ControlError> {
        self.execute_within(command, LIMIT).await
    }

    /// The same of one that may take longer.
    pub(super) async fn execute_within(
        &self,
        command: &'static str,
        limit: Duration,
    ) -> Result<Value, ControlError> {
        self.send(command, json!({ "execute": command }), limit).await
    }

    /// Has QEMU execute a command.
    pub(super) async fn execute_with(
        &self,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, ControlError> {
        self.send(command, json!({ "execute": command, "arguments": arguments }), LIMIT).await
    }

    async fn send(
        &self,
        command: &'static str,
        message: Value,
        limit: Duration,
    ) -> Result<Value, ControlError> {
        let run = async {
            let (answer, answered) = oneshot::channel();
            let line = message.to_string();
            self.commands.send((line, answer)).await.map_err(|_| ControlError::Closed)?;
            answered
                .await
                .map_err(|_| ControlError::Closed)?
                .map_err(|message| ControlError::Refused { command, message })
        };
        tokio::time::timeout(limit, run).await.map_err(|_| ControlError::Timeout { command, limit })?
    }
}

/// Owns the socket, until either side hangs up or QEMU says what can't be understood.
async fn serve(
    mut lines: Framed<UnixStream, LinesCodec>,
    mut queue: mpsc::Receiver<(String, Answer)>,
    events: mpsc::Sender<Event>,
) {
    let mut waiting: VecDeque<Answer> = VecDeque::new();
    loop {
        tokio::select! {
            command = queue.recv() => {
                let Some((line, answer)) = command else { return };
                waiting.push_back(answer);
                if lines.send(line).await.is_err() {
                    return;
                }
            }
            line = lines.next() => {
                let Some(Ok(line)) = line else { return };
                match serde_json::from_str(&line) {
                    // Whoever asked may have stopped waiting; the answer's place in the order counts all the same.
                    Ok(Message::Return { value }) => match waiting.pop_front() {
                        Some(answer) => drop(answer.send(Ok(value))),
                        None => return,
                    },
                    Ok(Message::Error { error }) => match waiting.pop_front() {
                        Some(answer) => drop(answer.send(Err(error.desc))),
                        None => return,
                    },
                    Ok(Message::Event { event, data }) => {
                        if let Some(event) = known(&event, &data)
                            && events.send(event).await.is_err()
                        {
                            return;
                        }
                    }
                    Ok(Message::Greeting { .. }) | Err(_) => return,
                }
            }
        }
    }
}

fn known(event: &str, data: &Value) -> Option<Event> {
    match event {
        "STOP" => Some(Event::Stop),
        "RESUME" => Some(Event::Resume),
        "SHUTDOWN" => Some(Event::Shutdown {
            guest: data["guest"].as_bool().unwrap_or(false),
            reason: data["reason"].as_str().unwrap_or_default().to_owned(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
