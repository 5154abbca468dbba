//! The one task that starts and ends a pool's machines.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use cellule_supervisor::{SandboxId, SandboxSpec, Sandboxes, Slot, SlotNews};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::ready::Ready;
use super::{PoolOptions, PoolStats};
use crate::admission::{HostMemory, footprint};
use crate::builder::new_id;
use crate::copy::with_id;
use crate::{Error, Prepared};

/// How often is looked for machines that somebody took and never claimed.
const LOOK: Duration = Duration::from_secs(40);
/// How long machines that nobody has may take to end with the pool.
const END: Duration = Duration::from_secs(10);
/// As good as for ever.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long to wait before one is started again where the last could not be, or where there was no room.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    sandboxes: Sandboxes,
    program: PathBuf,
    /// What each machine is started for; no sandbox's yet.
    spec: SandboxSpec,
    options: PoolOptions,
    ready: Ready,
    slots: HashMap<SandboxId, Tracked>,
    news: FuturesUnordered<BoxFuture<'static, News>>,
    stats: watch::Sender<PoolStats>,
    /// When somebody came last.
    last: Instant,
    /// No machine is started before.
    not_before: Instant,
    at_once: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preparing,
    Ready,
    InUse,
    /// It is nobody's, and not gone yet.
    Ending,
}

/// A machine of the pool.
#[derive(Debug)]
struct Tracked {
    state: State,
    /// Ends it, unless somebody has it.
    let_go: Option<oneshot::Sender<()>>,
    /// Whether it was taken and not claimed when that was last looked for.
    missed: bool,
}

impl Tracked {
    fn let_go(&mut self) {
        if let Some(let_go) = self.let_go.take() {
            _ = let_go.send(());
        }
    }
}

/// What became of a machine.
enum News {
    Slot(Box<Slot>, SlotNews),
    Ended(SandboxId),
}

impl Keeper {
    pub(super) fn new(
        prepared: &Prepared,
        options: PoolOptions,
        ready: Ready,
    ) -> Result<(Self, watch::Receiver<PoolStats>), Error> {
        let host = prepared.host();
        let stats = PoolStats { wanted: options.min, ..PoolStats::default() };
        let (stats, view) = watch::channel(stats);
        let now = Instant::now();
        let keeper = Self {
            sandboxes: host.sandboxes()?,
            program: host.supervisor()?,
            spec: SandboxSpec { main: None, expires_ns: None, idle: None, ..prepared.spec().clone() },
            options,
            ready,
            slots: HashMap::new(),
            news: FuturesUnordered::new(),
            stats,
            last: now,
            not_before: now,
            at_once: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        };
        Ok((keeper, view))
    }

    /// Keeps the pool until it is dropped or over; then no machine of it is left that nobody has.
    pub(super) async fn keep(mut self, mut over: watch::Receiver<bool>) {
        let mut look = tokio::time::interval(LOOK);
        while !*over.borrow_and_update() {
            self.fill();
            self.tell();
            let idle = self.last + self.options.idle_timeout.min(LONGEST);
            let wanted = self.stats.borrow().wanted;
            tokio::select! {
                Some(news) = self.news.next(), if !self.news.is_empty() => self.note(news),
                () = tokio::time::sleep_until(self.not_before), if self.is_short() => {}
                () = tokio::time::sleep_until(idle), if wanted > self.options.min => {
                    self.stats.send_modify(|stats| stats.wanted = self.options.min);
                    self.shrink(self.options.min);
                }
                _ = look.tick() => self.look_for_lost(),
                _ = over.changed() => {}
            }
        }
        // Whoever is just claiming one is faster, or not: its supervisor knows.
        self.slots.values_mut().for_each(Tracked::let_go);
        let end = async {
            while self.slots.values().any(|slot| slot.state != State::InUse) {
                let Some(news) = self.news.next().await else { return };
                self.note(news);
                self.slots.values_mut().for_each(Tracked::let_go);
            }
        };
        _ = tokio::time::timeout(END, end).await;
    }

    /// Lets go of machines that somebody took long ago and never claimed: it died on the way.
    fn look_for_lost(&mut self) {
        for (id, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.state == State::Ready) {
            if self.ready.has(id) {
                slot.missed = false;
            } else if std::mem::replace(&mut slot.missed, true) {
                slot.let_go();
            }
        }
    }

    fn count(&self, state: State) -> usize {
        self.slots.values().filter(|slot| slot.state == state).count()
    }

    /// Whether it has fewer than it wants, and may have more.
    fn is_short(&self) -> bool {
        let coming = self.count(State::Preparing) + self.count(State::Ready);
        coming < self.stats.borrow().wanted
            && self.slots.len() < self.options.max
            && self.count(State::Preparing) < self.at_once
    }

    fn fill(&mut self) {
        while self.is_short() && Instant::now() >= self.not_before {
            if let Err(why) = self.start() {
                self.stats.send_modify(|stats| stats.note = Some(why));
                self.not_before = Instant::now() + TRY_AGAIN_AFTER;
            }
        }
    }

    fn start(&mut self) -> Result<(), String> {
        let expected = match self.stats.borrow().footprint {
            // Until one is there to be measured: what a small guest takes.
            0 => (self.spec.memory_mib << 20) / 4,
            measured => measured,
        };
        // Those that are still on their way have not taken theirs.
        let coming = u64::try_from(self.count(State::Preparing)).unwrap_or(0) + 1;
        if let Some(host) = HostMemory::now() {
            host.admit(expected.saturating_mul(coming)).map_err(|why| why.to_string())?;
        }
        let spec = with_id(&self.spec, new_id().map_err(|error| error.to_string())?);
        let dir = self.sandboxes.hidden(&spec).map_err(|error| error.to_string())?;
        let slot = Slot::start(dir, &self.program).map_err(|error| error.to_string())?;
        self.listen(slot, State::Preparing);
        Ok(())
    }

    /// Notes what a machine is now, and waits for what becomes of it next.
    fn listen(&mut self, mut slot: Slot, state: State) {
        let (let_go, told) = oneshot::channel();
        self.slots.insert(slot.id().clone(), Tracked { state, let_go: Some(let_go), missed: false });
        self.news.push(Box::pin(async move {
            let news = tokio::select! {
                news = slot.next() => news,
                Ok(()) = told => SlotNews::Over(String::new()),
            };
            News::Slot(Box::new(slot), news)
        }));
    }

    /// Waits for the end of one, whosever it is.
    fn see_off(&mut self, slot: Slot, state: State) {
        let id = slot.id().clone();
        self.slots.insert(id.clone(), Tracked { state, let_go: None, missed: false });
        self.news.push(Box::pin(async move {
            slot.ended().await;
            News::Ended(id)
        }));
    }

    fn note(&mut self, news: News) {
        match news {
            News::Slot(slot, SlotNews::Ready) => {
                let (id, taken) = (slot.id().clone(), slot.pid().and_then(footprint));
                self.stats.send_modify(|stats| {
                    stats.footprint = taken.unwrap_or(stats.footprint);
                    stats.note = None;
                });
                self.listen(*slot, State::Ready);
                if let Err(error) = self.ready.put(&id) {
                    self.stats.send_modify(|stats| stats.note = Some(error.to_string()));
                    // Nobody would ever find it.
                    self.slots.entry(id).and_modify(Tracked::let_go);
                    self.not_before = Instant::now() + TRY_AGAIN_AFTER;
                }
            }
            News::Slot(slot, SlotNews::Taken) => {
                self.see_off(*slot, State::InUse);
                self.last = Instant::now();
                // Whoever comes next would have to wait.
                let more = usize::from(self.count(State::Ready) == 0);
                let most = self.options.max;
                self.stats.send_modify(|stats| {
                    stats.taken += 1;
                    stats.wanted = (stats.wanted + more).min(most);
                });
            }
            News::Slot(slot, SlotNews::Over(why)) => {
                self.ready.remove(slot.id());
                let was = self.slots.get(slot.id()).map(|slot| (slot.state, slot.let_go.is_some()));
                self.see_off(*slot, State::Ending);
                // One that nobody let go of, and that is gone, says why.
                if matches!(was, Some((State::Preparing | State::Ready, true))) {
                    self.not_before = Instant::now() + TRY_AGAIN_AFTER;
                    self.stats.send_modify(|stats| {
                        stats.failed += 1;
                        stats.note = Some(why).filter(|why| !why.is_empty());
                    });
                }
            }
            News::Ended(id) => {
                // What one that was killed left: nobody else knows that it is nobody's.
                self.sandboxes.clear_hidden(&id);
                self.slots.remove(&id);
            }
        }
    }

    /// Lets go of those that nobody needs.
    fn shrink(&mut self, to: usize) {
        let there = self.count(State::Ready) + self.count(State::Preparing);
        let nobodys = |state| matches!(state, State::Ready | State::Preparing);
        let those = self.slots.iter_mut().filter(|(_, slot)| nobodys(slot.state) && slot.let_go.is_some());
        for (id, slot) in those.take(there.saturating_sub(to)) {
            // Whoever was faster has it.
            if slot.state == State::Preparing || self.ready.remove(id) {
                slot.let_go();
            }
        }
    }

    fn tell(&self) {
        let count = |state| self.count(state);
        self.stats.send_if_modified(|stats| {
            let now = PoolStats {
                preparing: count(State::Preparing),
                ready: count(State::Ready),
                in_use: count(State::InUse),
                ..stats.clone()
            };
            let changed = *stats != now;
            *stats = now;
            changed
        });
    }
}
