//! Owns a value over time.
//!
//! ```text
//!   fetched ── 80 % of its life ──▶ asked for again ── fetched ──▶ …
//!                                        │ failed: again after 5 s, then twice as long each time, up to a minute
//!                                        ▼
//!                        the old one, as long as it lives ── then none: requests that need it are refused
//! ```
//! A value that came before the present one is kept, to be looked for in what servers answer.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::secret::Secret;
use super::source::{Fetched, ValueError};

/// The least time between two tries.
const PAUSE: Duration = Duration::from_secs(5);
/// The most, while they fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A value that may be another one later.
#[derive(Debug)]
pub(super) struct Live {
    present: RefCell<Present>,
    before: RefCell<Option<Secret>>,
    pause: Cell<Duration>,
}

#[derive(Debug)]
struct Present {
    value: Secret,
    expires: Option<Instant>,
    /// When the next one is asked for.
    due: Option<Instant>,
}

impl Present {
    fn new(Fetched { value, life }: Fetched) -> Self {
        let now = Instant::now();
        let due = life.map(|life| now + (life * 4 / 5).max(PAUSE));
        Self { value, expires: life.map(|life| now + life), due }
    }
}

impl Live {
    pub(super) fn new(fetched: Fetched) -> Self {
        let present = RefCell::new(Present::new(fetched));
        Self { present, before: RefCell::default(), pause: Cell::new(PAUSE) }
    }

    /// The value, unless it has expired.
    pub(super) fn value(&self) -> Option<Secret> {
        let present = self.present.borrow();
        let lives = present.expires.is_none_or(|expires| Instant::now() < expires);
        lives.then(|| present.value.clone())
    }

    /// All values that the other side may know.
    pub(super) fn known(&self) -> impl Iterator<Item = Secret> {
        let present = self.present.borrow().value.clone();
        [Some(present), self.before.borrow().clone()].into_iter().flatten()
    }

    /// Asks for the next value whenever it is due, and tells of failures. It never ends.
    pub(super) async fn keep(
        &self,
        fetch: impl AsyncFn() -> Result<Fetched, ValueError>,
        failed: impl Fn(&ValueError),
    ) {
        loop {
            let due = self.present.borrow().due;
            let Some(due) = due else { return pending().await };
            sleep_until(due).await;
            match fetch().await {
                Ok(fetched) => self.replace(fetched),
                Err(error) => {
                    failed(&error);
                    self.present.borrow_mut().due = Some(Instant::now() + self.pause.get());
                    self.pause.set((self.pause.get() * 2).min(LONGEST_PAUSE));
                }
            }
        }
    }

    fn replace(&self, fetched: Fetched) {
        self.pause.set(PAUSE);
        let old = self.present.replace(Present::new(fetched));
        let is_same = old.value.expose() == self.present.borrow().value.expose();
        if !is_same {
            self.before.replace(Some(old.value));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::LocalSet;
    use tokio::time::sleep;

    use super::*;

    fn fetched(value: &str, life: u64) -> Fetched {
        let value = Secret::new(value.as_bytes().to_vec()).unwrap();
        Fetched { value, life: Some(Duration::from_secs(life)) }
    }

    fn text(live: &Live) -> Option<String> {
        live.value().map(|value| String::from_utf8(value.expose().to_vec()).unwrap())
    }

    /// A value of 100 s that is replaced by those in the list, `None` for a failure; with the seconds at which it was asked for.
    async fn kept(next: Vec<Option<Fetched>>, look: impl AsyncFnOnce(&Live)) -> Vec<u64> {
        let (live, began) = (Rc::new(Live::new(fetched("first", 100))), Instant::now());
        let tries = Rc::new(RefCell::new(Vec::new()));
        let next = RefCell::new(next.into_iter());
        let local = LocalSet::new();
        let (own, asked) = (Rc::clone(&live), Rc::clone(&tries));
        local.spawn_local(async move {
            let fetch = async || {
                asked.borrow_mut().push(began.elapsed().as_secs());
                next.borrow_mut().next().flatten().ok_or(ValueError::Late)
            };
            own.keep(fetch, |_| {}).await;
        });
        local.run_until(look(&live)).await;
        tries.take()
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_replaced_before_it_expires() {
        let tries = kept(vec![Some(fetched("second", 50)), Some(fetched("third", 1000))], async |live| {
            sleep(Duration::from_secs(79)).await;
            assert_eq!(text(live).unwrap(), "first");
            sleep(Duration::from_secs(2)).await;
            assert_eq!(text(live).unwrap(), "second");
            assert_eq!(live.known().count(), 2);
            sleep(Duration::from_secs(60)).await;
            assert_eq!(text(live).unwrap(), "third");
        });
        assert_eq!(tries.await, [80, 120]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_kept_while_it_lives_and_no_longer() {
        let mut next = vec![None; 4];
        next.push(Some(fetched("second", 100)));
        let tries = kept(next, async |live| {
            sleep(Duration::from_secs(99)).await;
            assert_eq!(text(live).unwrap(), "first");
            sleep(Duration::from_secs(2)).await;
            assert_eq!(text(live), None);
            assert_eq!(live.known().count(), 1, "it is still looked for in answers");
            sleep(Duration::from_secs(60)).await;
            assert_eq!(text(live).unwrap(), "second");
        });
        assert_eq!(tries.await, [80, 85, 95, 115, 155]);
    }

    #[tokio::test(start_paused = true)]
    async fn values_that_live_shortly_are_not_asked_for_all_the_time() {
        let next = (0..100).map(|_| Some(fetched("next", 1))).collect();
        let tries = kept(next, async |_| sleep(Duration::from_secs(101)).await).await;
        assert_eq!(tries, [80, 85, 90, 95, 100]);
    }
}
