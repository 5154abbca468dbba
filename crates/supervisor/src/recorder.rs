//! Puts each change of a sandbox's state on the disk, and then tells it: who was told something finds it there.
//!
//! ```text
//!   push ──▶ next ──▶ being written ──▶ told: status to watchers, answers to those who asked
//!             ▲ what comes meanwhile is one change with it
//! ```
//! A disk that stalls delays the telling by [`PATIENCE`] and no more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::connection::Reply;
use crate::directory::{self, DirectoryError};
use crate::inherited::complain;
use crate::record::Record;
use crate::status::Status;

/// How long a write may take before its change is told all the same.
const PATIENCE: Duration = Duration::from_secs(3);

/// A change, and whom it answers.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) record: Record,
    pub(crate) status: Status,
    pub(crate) answers: Vec<(oneshot::Sender<Reply>, Reply)>,
}

/// A change that is being written, and told when the write is done or the time over.
#[derive(Debug)]
struct Current {
    change: Change,
    until: tokio::time::Instant,
    begun: bool,
}

/// Puts changes on the disk, one at a time.
#[derive(Debug)]
pub(crate) struct Recorder {
    dir: PathBuf,
    status: watch::Sender<Arc<Status>>,
    next: Option<Change>,
    current: Option<Current>,
    writing: Option<JoinHandle<Result<(), DirectoryError>>>,
    failed: bool,
}

impl Recorder {
    pub(crate) fn new(dir: PathBuf, status: watch::Sender<Arc<Status>>) -> Self {
        Self { dir, status, next: None, current: None, writing: None, failed: false }
    }

    pub(crate) fn push(&mut self, mut change: Change) {
        if let Some(next) = self.next.take() {
            let mut answers = next.answers;
            answers.append(&mut change.answers);
            change.answers = answers;
        }
        self.next = Some(change);
    }

    /// Goes on; returns after something was told, or never if nothing is to be done. Cancelling it loses nothing.
    pub(crate) async fn advance(&mut self) {
        if self.current.is_none() {
            let Some(change) = self.next.take() else { return std::future::pending().await };
            let until = tokio::time::Instant::now() + PATIENCE;
            self.current = Some(Current { change, until, begun: false });
        }
        while let Some(current) = &mut self.current {
            if let Some(writing) = &mut self.writing {
                // One that took too long goes on by itself, and nothing else is written before it is done.
                let Ok(written) = tokio::time::timeout_at(current.until, writing).await else {
                    self.fail("the disk does not take the sandbox's state");
                    break;
                };
                self.writing = None;
                self.note(written);
            } else if current.begun {
                break;
            } else {
                current.begun = true;
                current.change.record.bound();
                let (dir, record) = (self.dir.clone(), current.change.record.clone());
                let write = move || directory::write_record(&dir, &record);
                self.writing = Some(tokio::task::spawn_blocking(write));
            }
        }
        if let Some(Current { change, .. }) = self.current.take() {
            tell(&self.status, change.status, change.answers);
        }
    }

    /// Waits for a write that is under way; `false` if it takes too long.
    pub(crate) async fn settle(&mut self) -> bool {
        let Some(writing) = &mut self.writing else { return true };
        let settled = tokio::time::timeout(PATIENCE, writing).await.is_ok();
        if settled {
            self.writing = None;
        }
        settled
    }

    /// Tells the last change of all, which others have put on the disk.
    pub(crate) fn finish(mut self, change: Change) {
        self.push(change);
        let answers = self.current.take().map(|current| current.change.answers).unwrap_or_default();
        if let Some(last) = self.next.take() {
            tell(&self.status, last.status, answers.into_iter().chain(last.answers).collect());
        }
    }

    fn note(&mut self, written: Result<Result<(), DirectoryError>, tokio::task::JoinError>) {
        match written {
            Ok(Ok(())) => self.failed = false,
            Ok(Err(error)) => self.fail(&error.to_string()),
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// Says once what goes wrong.
    fn fail(&mut self, why: &str) {
        if !std::mem::replace(&mut self.failed, true) {
            complain(why);
        }
    }
}

fn tell(to: &watch::Sender<Arc<Status>>, status: Status, answers: Vec<(oneshot::Sender<Reply>, Reply)>) {
    to.send_replace(Arc::new(status));
    for (sender, reply) in answers {
        // Whoever asked may be gone.
        _ = sender.send(reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;

    fn change(state: State) -> (Change, oneshot::Receiver<Reply>) {
        let (sender, reply) = oneshot::channel();
        let record = Record { state, ..Record::created() };
        let status = Status { state, ..Status::starting() };
        (Change { record, status, answers: vec![(sender, Reply::Done)] }, reply)
    }

    #[tokio::test]
    async fn what_is_told_is_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut statuses) = watch::channel(Arc::new(Status::starting()));
        let mut recorder = Recorder::new(dir.path().to_path_buf(), sender);
        for state in [State::Running, State::Pausing, State::Paused] {
            let (change, mut reply) = change(state);
            recorder.push(change);
            assert!(reply.try_recv().is_err(), "it is not there yet");
            recorder.advance().await;
            assert_eq!(directory::read_record(dir.path()).unwrap().state, state);
            assert_eq!(reply.try_recv(), Ok(Reply::Done));
            assert_eq!(statuses.borrow_and_update().state, state);
        }
        assert!(
            futures::FutureExt::now_or_never(recorder.advance()).is_none(),
            "there is nothing left to do"
        );
    }

    #[tokio::test]
    async fn what_comes_meanwhile_is_one_change_and_everyone_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, statuses) = watch::channel(Arc::new(Status::starting()));
        let mut recorder = Recorder::new(dir.path().to_path_buf(), sender);
        let (first, mut one) = change(State::Running);
        let (second, mut two) = change(State::Pausing);
        let (last, mut three) = change(State::Failed);
        recorder.push(first);
        recorder.push(second);
        // Cancelled in the middle of a write.
        _ = futures::FutureExt::now_or_never(recorder.advance());
        recorder.settle().await;
        recorder.finish(last);
        assert_eq!(
            (one.try_recv(), two.try_recv(), three.try_recv()),
            (Ok(Reply::Done), Ok(Reply::Done), Ok(Reply::Done))
        );
        assert_eq!(statuses.borrow().state, State::Failed);
    }

    #[tokio::test]
    async fn a_disk_that_refuses_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, statuses) = watch::channel(Arc::new(Status::starting()));
        let mut recorder = Recorder::new(dir.path().join("missing"), sender);
        let (change, mut reply) = change(State::Running);
        recorder.push(change);
        recorder.advance().await;
        assert_eq!(reply.try_recv(), Ok(Reply::Done));
        assert_eq!(statuses.borrow().state, State::Running);
    }
}
