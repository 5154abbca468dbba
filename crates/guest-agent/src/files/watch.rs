//! Owns the watching of a path, or of a tree.
//!
//! The kernel watches single directories. A directory that appears is watched before it is looked through, and what is
//! found in it is told as created; so nothing is missed, and what is told by the kernel as well is told once. Events wait in
//! the kernel's own queue, which is bounded, until the host wants them; its overflow is an event, after which all
//! directories are looked for anew.
//!
//! ```text
//!   MOVED_FROM ──▶ waits a moment ──┬── MOVED_TO of the same cookie ──▶ renamed
//!                                   ├── something else of that name ──▶ deleted
//!                                   └── nothing ──────────────────────▶ deleted
//! ```

mod scan;
mod tree;

use std::collections::{HashSet, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellule_protocol::v1::WatchEvent;
use cellule_protocol::v1::watch_event::Kind;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::tree::{Tree, Wd};
use super::failure::{At, Failure};
use super::path::GuestPath;
use super::workers::{Stop, Workers};
use crate::port::register;

const DOING: &str = "watch";
/// How long the second half of a renaming may take to come.
const PAIR_WITHIN: Duration = Duration::from_millis(20);
/// Events that are taken from the kernel in one go.
const BATCH: usize = 1024;
/// What one read of the kernel's events may fill.
const BUFFER: usize = 32 * 1024;

/// What changes, as it is asked for.
pub(super) struct Events {
    workers: Arc<Workers>,
    readable: AsyncFd<OwnedFd>,
    /// Away while a thread looks at events.
    watcher: Option<Watcher>,
    queue: VecDeque<WatchEvent>,
    failed: Option<Failure>,
    over: bool,
}

/// What is watched, and what is known of it.
struct Watcher {
    inotify: OwnedFd,
    path: GuestPath,
    /// `path` without a slash at its end.
    prefix: Vec<u8>,
    recursive: bool,
    tree: Tree,
    /// First halves of renamings.
    moved: Vec<Moved>,
    /// Names that were found in a directory that had just appeared, of which the kernel may tell as well.
    told: HashSet<(Wd, Vec<u8>)>,
    out: Vec<WatchEvent>,
    /// Whether the kernel may have more events.
    more: bool,
    gone: bool,
}

struct Moved {
    cookie: u32,
    wd: Wd,
    name: Vec<u8>,
    directory: bool,
    since: Instant,
}

impl Events {
    /// Begins to watch.
    pub(super) async fn begin(
        workers: Arc<Workers>,
        path: GuestPath,
        recursive: bool,
    ) -> Result<Self, Failure> {
        let called = path.clone();
        let watcher = workers.job(move |stop| Watcher::begin(path, recursive, stop)).await?;
        let fd = watcher.inotify.try_clone().at(DOING, called.as_bytes())?;
        let readable = register(fd, Interest::READABLE).at(DOING, called.as_bytes())?;
        let queue = VecDeque::from([event(Kind::Ready, called.as_bytes().to_vec(), true)]);
        Ok(Self { workers, readable, watcher: Some(watcher), queue, failed: None, over: false })
    }

    /// The next event; none after the last.
    pub(super) async fn next(&mut self) -> Option<Result<WatchEvent, Failure>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(Ok(event));
            }
            if let Some(failed) = self.failed.take() {
                self.over = true;
                return Some(Err(failed));
            }
            if self.over {
                return None;
            }
            if let Err(failed) = self.more().await {
                self.failed = Some(failed);
            }
        }
    }

    async fn more(&mut self) -> Result<(), Failure> {
        let Some(watcher) = &self.watcher else { return Err(Failure::cancelled()) };
        if !watcher.more {
            let readable = self.readable.readable();
            // A renaming's second half that does not come is news, too.
            let wait = if watcher.moved.is_empty() { Duration::MAX } else { PAIR_WITHIN };
            if let Ok(ready) = tokio::time::timeout(wait, readable).await {
                ready.at(DOING, watcher.path.as_bytes())?.clear_ready();
            }
        }
        let Some(mut watcher) = self.watcher.take() else { return Err(Failure::cancelled()) };
        let step = move || {
            let result = watcher.read();
            Ok((watcher, result))
        };
        let (mut watcher, result) = self.workers.step(step).await?;
        self.queue.extend(watcher.out.drain(..));
        if watcher.gone {
            self.queue.push_back(event(Kind::Gone, watcher.path.as_bytes().to_vec(), false));
            self.over = true;
        }
        self.watcher = Some(watcher);
        result
    }
}

impl Watcher {
    fn begin(path: GuestPath, recursive: bool, stop: &Stop) -> Result<Self, Failure> {
        let flags = CreateFlags::NONBLOCK | CreateFlags::CLOEXEC;
        let inotify = match inotify::init(flags) {
            Err(Errno::MFILE) => {
                let why = "too many are watched at once (fs.inotify.max_user_instances)";
                return Err(Failure::because(DOING, path.as_bytes(), Errno::MFILE, why));
            }
            made => made.at(DOING, path.as_bytes())?,
        };
        let prefix = path.as_bytes();
        let end = prefix.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        let prefix = prefix[..end].to_vec();
        let mut watcher = Self {
            inotify,
            path,
            prefix,
            recursive,
            tree: Tree::default(),
            moved: Vec::new(),
            told: HashSet::new(),
            out: Vec::new(),
            more: false,
            gone: false,
        };
        watcher.scan_root(stop)?;
        Ok(watcher)
    }

    /// Takes what the kernel has to tell, up to a bound.
    fn read(&mut self) -> Result<(), Failure> {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let descriptor = self.inotify.try_clone().at(DOING, self.path.as_bytes())?;
        let mut reader = Reader::new(&descriptor, &mut buffer);
        self.more = false;
        loop {
            let (wd, flags, cookie, name) = match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes().to_vec());
                    (event.wd(), event.events(), event.cookie(), name)
                }
                Err(Errno::AGAIN) => {
                    // Whatever was queued when something was found has been told.
                    self.told.clear();
                    break;
                }
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno).at(DOING, self.path.as_bytes()),
            };
            self.event(wd, flags, cookie, name)?;
            if self.gone {
                return Ok(());
            }
            if reader.is_buffer_empty() && self.out.len() >= BATCH {
                self.more = true;
                break;
            }
        }
        self.give_up_pairs(|moved| moved.since.elapsed() >= PAIR_WITHIN);
        Ok(())
    }

    fn event(&mut self, wd: Wd, flags: ReadFlags, cookie: u32, name: Option<Vec<u8>>) -> Result<(), Failure> {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.overflow();
        }
        if !self.tree.contains(wd) {
            // Of a directory that has left; its watch is about to end.
            return Ok(());
        }
        let ends = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
        if self.tree.is_root(wd) && flags.intersects(ends) {
            self.give_up_pairs(|_| true);
            self.gone = true;
            return Ok(());
        }
        if flags.contains(ReadFlags::IGNORED) {
            self.tree.forget(wd);
            return Ok(());
        }
        let directory = flags.contains(ReadFlags::ISDIR);
        let Some(name) = name else {
            // Of a directory's own, its parent tells, which the root has not.
            if self.tree.is_root(wd) {
                let kind = if flags.contains(ReadFlags::MODIFY) { Kind::Modified } else { Kind::Attributes };
                self.out.push(event(kind, self.path.as_bytes().to_vec(), directory));
            }
            return Ok(());
        };
        if !flags.contains(ReadFlags::MOVED_TO) || !self.moved.iter().any(|moved| moved.cookie == cookie) {
            self.give_up_pairs(|moved| moved.wd == wd && moved.name == name);
        }
        if flags.contains(ReadFlags::MOVED_FROM) {
            self.told.remove(&(wd, name.clone()));
            self.moved.push(Moved { cookie, wd, name, directory, since: Instant::now() });
        } else if flags.contains(ReadFlags::MOVED_TO) {
            self.moved_to(wd, &name, cookie, directory)?;
        } else if flags.contains(ReadFlags::CREATE) {
            self.appeared(wd, &name, directory)?;
        } else if flags.contains(ReadFlags::DELETE) {
            self.told.remove(&(wd, name.clone()));
            self.tell(Kind::Deleted, wd, &name, directory);
            self.tree.forget_name(wd, &name);
        } else if flags.contains(ReadFlags::MODIFY) {
            self.tell(Kind::Modified, wd, &name, directory);
        } else {
            self.tell(Kind::Attributes, wd, &name, directory);
        }
        Ok(())
    }

    fn moved_to(&mut self, wd: Wd, name: &[u8], cookie: u32, directory: bool) -> Result<(), Failure> {
        let Some(at) = self.moved.iter().position(|moved| moved.cookie == cookie) else {
            return self.appeared(wd, name, directory);
        };
        let from = self.moved.swap_remove(at);
        let Some(to) = self.path_of(wd, name) else { return Ok(()) };
        let Some(old) = self.path_of(from.wd, &from.name) else {
            return self.appeared(wd, name, directory);
        };
        self.out.push(WatchEvent { to, ..event(Kind::Renamed, old, directory) });
        if let Some(moved) = self.tree.child(from.wd, &from.name) {
            if self.tree.child(wd, name).is_some() {
                // It took the name of another that is watched, or the two changed places. Which, only a look tells.
                return self.overflow();
            }
            self.tree.place(moved, Some(wd), name);
        }
        Ok(())
    }

    fn appeared(&mut self, wd: Wd, name: &[u8], directory: bool) -> Result<(), Failure> {
        if self.told.remove(&(wd, name.to_vec())) {
            return Ok(());
        }
        self.tell(Kind::Created, wd, name, directory);
        if directory && self.recursive { self.scan_new(wd, name) } else { Ok(()) }
    }

    /// Takes for deleted what was moved away, if so `decided`.
    fn give_up_pairs(&mut self, decided: impl Fn(&Moved) -> bool) {
        let (gone, kept) = std::mem::take(&mut self.moved).into_iter().partition(|moved| decided(moved));
        self.moved = kept;
        let gone: Vec<Moved> = gone;
        for Moved { wd, name, directory, .. } in gone {
            self.tell(Kind::Deleted, wd, &name, directory);
            if let Some(left) = self.tree.child(wd, &name) {
                for wd in self.tree.forget_all(left) {
                    // It may have ended by itself.
                    let _ended = inotify::remove_watch(&self.inotify, wd);
                }
            }
        }
    }

    /// The kernel has lost events: begins anew with what is there.
    fn overflow(&mut self) -> Result<(), Failure> {
        self.out.push(event(Kind::Overflow, Vec::new(), false));
        self.moved.clear();
        self.told.clear();
        let before = std::mem::take(&mut self.tree);
        match self.scan_root(&Stop::default()) {
            Ok(()) => {}
            Err(failure) if failure.is_absence() => self.gone = true,
            Err(failure) => return Err(failure),
        }
        for wd in before.watches().filter(|wd| !self.tree.contains(*wd)) {
            let _ended = inotify::remove_watch(&self.inotify, wd);
        }
        Ok(())
    }

    fn tell(&mut self, kind: Kind, wd: Wd, name: &[u8], directory: bool) {
        if let Some(path) = self.path_of(wd, name) {
            self.out.push(event(kind, path, directory));
        }
    }

    fn path_of(&self, wd: Wd, name: &[u8]) -> Option<Vec<u8>> {
        Some([&self.prefix[..], &self.tree.path(wd)?, b"/", name].concat())
    }
}

fn event(kind: Kind, path: Vec<u8>, directory: bool) -> WatchEvent {
    WatchEvent { kind: kind.into(), path, to: Vec::new(), directory }
}
