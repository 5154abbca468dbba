//! A machine that is ready before there is a sandbox for it: keeping one, and claiming one.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::Child;

use super::{Sandbox, SandboxError, begin, start};
use crate::directory::SandboxDir;
use crate::listener;
use crate::name::{SandboxId, SandboxName};
use crate::sandboxes::Sandboxes;
use crate::spec::SandboxSpec;
use crate::standby::{Claim, READY, TAKEN, YOURS};

/// How long a machine that is ready may take to be claimed.
const CLAIM: Duration = Duration::from_secs(30);
/// The longest line that is said of one.
const LINE: u64 = 4 << 10;

/// A machine in the making, or ready, that this process keeps. Dropped, it ends, unless it was claimed.
#[derive(Debug)]
pub struct Slot {
    id: SandboxId,
    child: Child,
    news: BufReader<UnixStream>,
}

/// What becomes of a [`Slot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotNews {
    /// It can be claimed.
    Ready,
    /// It was claimed.
    Taken,
    /// It never was ready, or is no more: why, if it said so.
    Over(String),
}

impl Slot {
    /// Starts one in a directory that [`Sandboxes::hidden`] made.
    ///
    /// # Errors
    /// The directory cannot be written, or the program not started.
    pub fn start(dir: SandboxDir, program: &Path) -> Result<Self, SandboxError> {
        let id = dir.id().clone();
        let (child, ours) = start::spawn(dir, program, start::As::Standby)?;
        Ok(Self { id, child, news: BufReader::new(ours) })
    }

    /// The id that the sandbox will have.
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// The number of its supervisor's process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for what becomes of it next.
    pub async fn next(&mut self) -> SlotNews {
        let mut line = String::new();
        let read = (&mut self.news).take(LINE).read_line(&mut line).await;
        match line.trim_end() {
            READY => SlotNews::Ready,
            TAKEN => SlotNews::Taken,
            why => SlotNews::Over(if read.is_ok() { why.to_owned() } else { String::new() }),
        }
    }

    /// Lets go of it, and waits until its supervisor has ended: at once, unless it is somebody else's by now.
    pub async fn ended(self) {
        let Self { mut child, news, .. } = self;
        drop(news);
        // It was started by us, so there is somebody to wait for.
        _ = child.wait().await;
    }
}

impl Sandbox {
    /// Makes a machine that is ready the sandbox of this specification, which has the machine's id. It belongs to this process
    /// then. [`running`](Self::running) waits until the guest knows it.
    ///
    /// # Errors
    /// It is gone, or claimed already: [`SandboxError::SupervisorGone`]. It is none for this specification, or the name is
    /// taken: [`SandboxError::Refused`].
    pub async fn claim(
        sandboxes: &Sandboxes,
        spec: SandboxSpec,
        name: Option<SandboxName>,
    ) -> Result<Self, SandboxError> {
        let id = spec.id.clone();
        let gone = || SandboxError::SupervisorGone { log: String::new() };
        let path = sandboxes.hidden_path(&id);
        let claim = async {
            let mut stream = listener::connect(&path).await.ok()?;
            let text = serde_json::to_vec(&Claim { spec, name }).ok()?;
            stream.write_u32(u32::try_from(text.len()).ok()?).await.ok()?;
            stream.write_all(&text).await.ok()?;
            let answer = line(&mut stream).await?;
            Some((stream, answer))
        };
        let (stream, answer) = tokio::time::timeout(CLAIM, claim).await.ok().flatten().ok_or_else(gone)?;
        if answer != YOURS {
            return Err(SandboxError::Refused { message: answer });
        }
        let (session, supervisor) = begin(stream).await.ok_or_else(gone)?;
        let path = sandboxes.path_of(&id);
        let sandboxes = sandboxes.clone();
        Ok(Self { session, supervisor, sandboxes, id, path, child: None, was_paused: false })
    }
}

/// A line, and not one byte of what follows it.
async fn line(stream: &mut UnixStream) -> Option<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await.ok()? {
            b'\n' => return String::from_utf8(line).ok(),
            byte if (line.len() as u64) < LINE => line.push(byte),
            _ => return None,
        }
    }
}
