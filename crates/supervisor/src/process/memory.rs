//! How much of its machine's memory the guest is to have.
//!
//! What its programs hold cannot be taken from a guest: it would take what the next one needs to start, and its kernel would
//! kill programs. So it is asked for no more than it can spare.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cellule_engine::{Machine, MachineState, MemorySize};
use cellule_protocol::client::Session;
use tokio::sync::oneshot;

use super::{Done, Supervisor};
use crate::connection::Reply;
use crate::failure::Failure;
use crate::warm::chain;

/// What is left to the guest of what it has to spare.
const RESERVE: u64 = 24 << 20;
/// How long is waited for a guest that gives nothing more.
const SETTLED: Duration = Duration::from_secs(5);
/// How long is waited at all. The guest goes on after that.
const WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What came of asking a guest.
pub(super) struct Asked {
    reply: oneshot::Sender<Reply>,
    /// What it was asked to keep, in MiB, and what it has, in bytes.
    result: Result<(u64, u64), String>,
}

impl Supervisor {
    pub(super) fn set_memory(&mut self, target: MemorySize, reply: oneshot::Sender<Reply>) {
        let (machine, session) = (self.machine.clone(), self.session.borrow().clone());
        let (machine, session) = match (self.life.ask_memory(), machine, session) {
            (Ok(()), Some(machine), Some(session)) => (machine, session),
            (Err(refusal), ..) => return drop(reply.send(Reply::Refused(refusal))),
            _ => return,
        };
        if std::mem::replace(&mut self.changing.memory, true) {
            return drop(reply.send(Reply::Failed("another update is under way".to_owned())));
        }
        let used = self.activity.begin();
        self.jobs.push(Box::pin(async move {
            let _used = used;
            let result = set(&*machine, &session, target).await;
            Done::AskedForMemory(Asked { reply, result })
        }));
    }

    pub(super) fn asked_for_memory(&mut self, Asked { reply, result }: Asked) {
        self.changing.memory = false;
        let answer = match result {
            Ok((mib, bytes)) => {
                self.record.memory_target_mib = Some(mib).filter(|mib| *mib < self.spec.memory_mib);
                Reply::Memory(bytes)
            }
            Err(why) => Reply::Failed(why),
        };
        self.publish(vec![(reply, answer)]);
    }

    /// A copy goes on with what its original was asked.
    pub(super) fn look_for_memory(&mut self, machine: Arc<dyn Machine>) {
        self.jobs.push(Box::pin(async move { machine.memory().await.map_or(Done::Nothing, Done::Memory) }));
    }

    pub(super) fn has_memory(&mut self, bytes: u64) {
        let mib = bytes >> 20;
        if mib < self.spec.memory_mib {
            self.record.memory_target_mib.get_or_insert(mib);
            self.publish(Vec::new());
        }
    }
}

/// Asks the guest for as much as it can spare of what is wanted, and waits until it has given that, or gives no more.
async fn set(machine: &dyn Machine, session: &Session, target: MemorySize) -> Result<(u64, u64), String> {
    let has = async || machine.memory().await.map_err(|error| chain(&error));
    let ask = async |target| machine.set_memory(target).await.map_err(|error| chain(&error));
    // Of what it has before and after it says what it uses, the larger: it may be on its way from one to the other.
    let before = has().await?;
    let used = session.stats().await.map_err(|error| Failure::call(&error).line())?;
    let spare = used.memory_total_bytes.saturating_sub(used.memory_used_bytes);
    let before = before.max(has().await?);
    let target = target.max(least(before, spare));
    ask(target).await?;
    let (begun, mut changed, mut last) = (Instant::now(), Instant::now(), before);
    loop {
        let now = has().await?;
        // One that stands still for a while gives nothing meanwhile.
        if now != last || machine.state() == MachineState::Paused {
            (changed, last) = (Instant::now(), now);
        }
        if now == target.bytes() {
            return Ok((target.mib().into(), now));
        }
        if changed.elapsed() > SETTLED || begun.elapsed() > WITHIN {
            // It would go on trying for ever.
            let settled = target.max(least(now, 0));
            ask(settled).await?;
            return Ok((settled.mib().into(), now));
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// The least that can be left to a guest that has so many bytes, and can spare that many of them.
fn least(has: u64, spare: u64) -> MemorySize {
    let mib = has.saturating_sub(spare.saturating_sub(RESERVE)).div_ceil(1 << 20);
    u32::try_from(mib).ok().and_then(|mib| MemorySize::from_mib(mib).ok()).unwrap_or(MemorySize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_can_be_spared() {
        const MIB: u64 = 1 << 20;
        let mib = |has, spare| least(has, spare).mib();
        assert_eq!(mib(512 * MIB, 424 * MIB), 112);
        assert_eq!(mib(512 * MIB, 424 * MIB - 1), 113);
        assert_eq!(mib(512 * MIB, 10 * MIB), 512);
        // A guest may say anything.
        assert_eq!(least(512 * MIB, u64::MAX), MemorySize::MIN);
    }
}
