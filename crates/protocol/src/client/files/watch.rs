//! Owns what the host hears of changes beneath a path of the guest's.

use tonic::Streaming;

use super::super::Session;
use super::FileError;
use crate::v1;
use crate::v1::watch_event::Kind;

/// Longer than any path that is of use, since directories may be deeper than paths can name.
const MAX_PATH: usize = 64 * 1024;

/// Changes beneath a path, from the moment that this was made. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    session: Session,
    events: Streaming<v1::WatchEvent>,
    over: bool,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// It is new here: made, or moved in from elsewhere.
    Created {
        /// Where it is.
        path: Vec<u8>,
        /// Whether it is a directory.
        directory: bool,
    },
    /// Its contents changed.
    Modified {
        /// Where it is.
        path: Vec<u8>,
        /// Whether it is a directory.
        directory: bool,
    },
    /// Its mode, owner, times or links changed.
    Attributes {
        /// Where it is.
        path: Vec<u8>,
        /// Whether it is a directory.
        directory: bool,
    },
    /// It is here no more: removed, or moved elsewhere.
    Deleted {
        /// Where it was.
        path: Vec<u8>,
        /// Whether it was a directory.
        directory: bool,
    },
    /// It has another name, both within what is watched.
    Renamed {
        /// Where it was.
        from: Vec<u8>,
        /// Where it is.
        to: Vec<u8>,
        /// Whether it is a directory.
        directory: bool,
    },
    /// Changes were lost: whoever keeps a copy must look at all of it again.
    Overflow,
    /// What was watched is gone, and nothing more comes.
    Gone,
}

impl Watch {
    /// Waits until the guest tells that all is watched.
    pub(super) async fn ready(
        session: &Session,
        events: Streaming<v1::WatchEvent>,
    ) -> Result<Self, FileError> {
        let mut watch = Self { session: session.clone(), events, over: false };
        match watch.message().await? {
            Some(event) if event.kind() == Kind::Ready => Ok(watch),
            _ => Err(FileError::protocol("a watch that told of changes before it was ready")),
        }
    }

    /// Waits for the next change, however long that takes; none after the last. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the guest can't watch any more, or the session is lost; then nothing follows.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, FileError>> {
        if self.over {
            return None;
        }
        let next = match self.message().await {
            Ok(Some(event)) => WatchEvent::checked(event),
            Ok(None) => Err(FileError::protocol("a watch that ended without a reason")),
            Err(error) => Err(error),
        };
        self.over = matches!(next, Err(_) | Ok(WatchEvent::Gone));
        Some(next)
    }

    async fn message(&mut self) -> Result<Option<v1::WatchEvent>, FileError> {
        let message = tokio::select! {
            // An event that came before the end counts.
            biased;
            message = self.events.message() => message,
            lost = self.session.ended() => return Err(FileError::lost(lost)),
        };
        match message {
            Ok(event) => Ok(event),
            Err(status) => Err(FileError::of(&self.session, &status).await),
        }
    }
}

impl WatchEvent {
    fn checked(event: v1::WatchEvent) -> Result<Self, FileError> {
        let kind = event.kind();
        let v1::WatchEvent { path, to, directory, .. } = event;
        let is_path = |path: &[u8]| path.starts_with(b"/") && path.len() <= MAX_PATH && !path.contains(&0);
        let placed = !matches!(kind, Kind::Overflow | Kind::Gone);
        if (placed && !is_path(&path)) || (kind == Kind::Renamed && !is_path(&to)) {
            return Err(FileError::protocol("a change of what is no path"));
        }
        match kind {
            Kind::Created => Ok(Self::Created { path, directory }),
            Kind::Modified => Ok(Self::Modified { path, directory }),
            Kind::Attributes => Ok(Self::Attributes { path, directory }),
            Kind::Deleted => Ok(Self::Deleted { path, directory }),
            Kind::Renamed => Ok(Self::Renamed { from: path, to, directory }),
            Kind::Overflow => Ok(Self::Overflow),
            Kind::Gone => Ok(Self::Gone),
            Kind::Ready | Kind::Unspecified => Err(FileError::protocol("a change of no known kind")),
        }
    }
}
