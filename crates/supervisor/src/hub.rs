//! The main program's input and output, shared by its log and any number of clients.
//!
//! ```text
//!                       ┌──▶ main.log
//!   agent ── output ──▶ pump ──▶ client, client, …     each has what came since it joined
//!   agent ◀── input ◀── client, client, …              one at a time
//!
//!   waiting ──▶ flowing ──▶ draining ──────────▶ closed
//!   (joined     (the        (the program ended:   (the machine is gone: what is not at its end is cut)
//!    before     slowest     what is left is read,
//!    the start) client      clients get it at
//!               sets the    their own pace)
//!               pace)
//! ```
//! The program waits for a client that does not read, as at any pipe; a client that goes away is dropped. With nobody
//! there, all goes to the log alone. Only as long as the sandbox belongs to a process is its last client one that the
//! program writes for: when that one goes away, the program finds a closed pipe, as it would without a sandbox.

mod client;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::activity::{Activity, Use};
use crate::log::LogWriter;
use crate::spec::MainStdin;
use cellule_protocol::pass_through::Passable;

/// What is read from the program at a time.
const CHUNK: usize = 64 << 10;
/// Chunks that a client may lag behind before the program waits for it.
const LAG: usize = 2;

/// How far the program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Waiting,
    Flowing,
    Draining,
    Closed,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// After its last byte.
    Clean,
    /// Who knows where.
    Cut,
}

/// What a client of an output is sent. That no more comes, without [`Piece::End`], is a cut.
#[derive(Debug, Clone)]
enum Piece {
    Bytes(Arc<[u8]>),
    End,
}

type Sink = Arc<tokio::sync::Mutex<Option<Box<dyn AsyncWrite + Send + Unpin>>>>;

/// Shares the streams of a main program; clones share the same.
#[derive(Debug, Clone)]
pub(crate) struct Hub(Arc<Shared>);

struct Shared {
    /// Standard output and error.
    outlets: [Mutex<Outlet>; 2],
    stdin: MainStdin,
    sink: Sink,
    log: Arc<Mutex<LogWriter>>,
    stage: watch::Sender<Stage>,
    clients: watch::Sender<usize>,
    activity: Activity,
    /// Whether the program goes on without clients.
    released: AtomicBool,
    /// How many bytes of each output were read, of all that the program wrote.
    read: [AtomicU64; 2],
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("stage", &*self.stage.borrow()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Outlet {
    clients: Vec<Client>,
    /// Whether any was there.
    joined: bool,
    end: Option<End>,
}

/// A client of one output.
#[derive(Debug, Clone)]
struct Client {
    pieces: mpsc::UnboundedSender<Piece>,
    /// Closed once the client is gone.
    room: Arc<Semaphore>,
}

/// A client that is there.
#[derive(Debug)]
struct Present {
    hub: Hub,
    _use: Use,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.hub.0.clients.send_modify(|count| *count -= 1);
    }
}

impl Hub {
    pub(crate) fn new(log: LogWriter, stdin: MainStdin, activity: Activity) -> Self {
        Self(Arc::new(Shared {
            outlets: [Mutex::default(), Mutex::default()],
            stdin,
            sink: Sink::default(),
            log: Arc::new(Mutex::new(log)),
            stage: watch::Sender::new(Stage::Waiting),
            clients: watch::Sender::new(0),
            activity,
            released: AtomicBool::new(false),
            read: [const { AtomicU64::new(0) }; 2],
        }))
    }

    /// How many bytes of standard output and error were read, of all that the program wrote.
    pub(crate) fn read(&self) -> [u64; 2] {
        self.0.read.each_ref().map(|read| read.load(Ordering::Relaxed))
    }

    /// The program's output comes from there on: it ran before, and what it wrote then was read elsewhere.
    pub(crate) fn begin_at(&self, read: [u64; 2]) {
        for (counter, read) in self.0.read.iter().zip(read) {
            counter.store(read, Ordering::Relaxed);
        }
    }

    /// The sandbox belongs to no process any more.
    pub(crate) fn release(&self) {
        self.0.released.store(true, Ordering::Relaxed);
    }

    fn enter(&self) -> Present {
        self.0.clients.send_modify(|count| *count += 1);
        Present { hub: self.clone(), _use: self.0.activity.begin() }
    }

    fn outlet<T>(&self, stderr: bool, what: impl FnOnce(&mut Outlet) -> T) -> T {
        what(&mut self.0.outlets[usize::from(stderr)].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Passes standard output or error on to a client, from now on.
    pub(crate) fn join_output(&self, stderr: bool, stream: impl Passable + Send + 'static) {
        let (pieces, inbox) = mpsc::unbounded_channel();
        let client = Client { pieces, room: Arc::new(Semaphore::new(LAG)) };
        let room = Arc::clone(&client.room);
        self.outlet(stderr, |outlet| match outlet.end {
            None => {
                outlet.clients.retain(|client| !client.pieces.is_closed());
                outlet.clients.push(client);
                outlet.joined = true;
            }
            Some(End::Clean) => drop(client.pieces.send(Piece::End)),
            Some(End::Cut) => {}
        });
        tokio::spawn(client::output(stream, inbox, room, self.enter()));
    }

    /// Passes what a client sends on to standard input. Dropped at once, which cuts it, if the program has none.
    pub(crate) fn join_input(&self, stream: impl Passable + Send + 'static) {
        if self.0.stdin == MainStdin::None {
            return;
        }
        let (stage, sink) = (self.0.stage.subscribe(), Arc::clone(&self.0.sink));
        let closes = self.0.stdin == MainStdin::Once;
        tokio::spawn(client::input(stream, sink, closes, stage, self.enter()));
    }

    /// Begins to share the streams of the program that was just started. The handle gives whether all of its output was
    /// read to its end. `deserted` is told of an output, whether it is standard error, that nobody will read any more.
    pub(crate) async fn begin<R, W>(
        &self,
        stdin: Option<W>,
        stdout: R,
        stderr: Option<R>,
        deserted: impl Fn(bool) + Send + Sync + 'static,
    ) -> JoinHandle<io::Result<()>>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        *self.0.sink.lock().await = stdin.map(|stdin| Box::new(stdin) as Box<dyn AsyncWrite + Send + Unpin>);
        self.advance(Stage::Flowing);
        let hub = self.clone();
        tokio::spawn(async move {
            let (stdout, stderr) =
                tokio::join!(hub.pump(false, Some(stdout), &deserted), hub.pump(true, stderr, &deserted));
            stdout.and(stderr)
        })
    }

    /// The program has ended: its clients no longer set the pace at which the rest is read.
    pub(crate) fn drain(&self) {
        self.advance(Stage::Draining);
    }

    /// Nothing more comes. What is not at its end is cut.
    pub(crate) async fn close(&self) {
        self.advance(Stage::Closed);
        for stderr in [false, true] {
            self.end(stderr, End::Cut);
        }
        let log = Arc::clone(&self.0.log);
        let finish = move || lock(&log).finish(SystemTime::now());
        _ = tokio::task::spawn_blocking(finish).await;
    }

    /// Waits until all clients have taken what they are to get, or are gone.
    pub(crate) async fn delivered(&self) {
        // The sender is ours, so the wait cannot fail.
        _ = self.0.clients.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Whether any client is there.
    pub(crate) fn has_clients(&self) -> bool {
        *self.0.clients.borrow() > 0
    }

    /// How many bytes of the log are gone, since it was put aside twice.
    pub(crate) fn rotated_away(&self) -> u64 {
        lock(&self.0.log).rotated_away()
    }

    fn advance(&self, to: Stage) {
        self.0.stage.send_if_modified(|stage| {
            let further = to > *stage;
            *stage = to.max(*stage);
            further
        });
    }

    async fn pump<R: AsyncRead + Unpin>(
        &self,
        stderr: bool,
        source: Option<R>,
        deserted: &impl Fn(bool),
    ) -> io::Result<()> {
        let Some(mut source) = source else {
            self.end(stderr, End::Clean);
            return Ok(());
        };
        let mut buffer = vec![0; CHUNK];
        loop {
            match source.read(&mut buffer).await {
                Ok(0) => {
                    self.end(stderr, End::Clean);
                    return Ok(());
                }
                Ok(length) => {
                    self.0.read[usize::from(stderr)].fetch_add(length as u64, Ordering::Relaxed);
                    if !self.pass(stderr, buffer[..length].into()).await {
                        self.end(stderr, End::Cut);
                        deserted(stderr);
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.end(stderr, End::Cut);
                    return Err(error);
                }
            }
        }
    }

    /// Passes bytes on to all. Returns whether anybody wants more.
    async fn pass(&self, stderr: bool, bytes: Arc<[u8]>) -> bool {
        let (clients, joined) = self.outlet(stderr, |outlet| {
            outlet.clients.retain(|client| client.pieces.send(Piece::Bytes(Arc::clone(&bytes))).is_ok());
            (outlet.clients.clone(), outlet.joined)
        });
        let deserted = joined && clients.is_empty();
        // A disk that stalls holds up this program, and nothing else of ours.
        let log = Arc::clone(&self.0.log);
        let write = move || lock(&log).append(stderr, &bytes, SystemTime::now());
        _ = tokio::task::spawn_blocking(write).await;
        let mut stage = self.0.stage.subscribe();
        for client in clients {
            tokio::select! {
                // An error means that the client is gone.
                room = client.room.acquire() => if let Ok(room) = room { room.forget() },
                _ = stage.wait_for(|stage| *stage >= Stage::Draining) => {}
            }
        }
        !deserted || self.0.released.load(Ordering::Relaxed)
    }

    fn end(&self, stderr: bool, end: End) {
        self.outlet(stderr, |outlet| {
            if outlet.end.is_none() {
                outlet.end = Some(end);
                for client in outlet.clients.drain(..) {
                    if end == End::Clean {
                        _ = client.pieces.send(Piece::End);
                    }
                }
            }
        });
    }
}

fn lock(log: &Mutex<LogWriter>) -> std::sync::MutexGuard<'_, LogWriter> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
