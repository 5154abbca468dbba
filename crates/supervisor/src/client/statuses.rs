//! What a supervisor tells of its sandbox, as it changes.

use cellule_protocol::supervisor::v1;

use crate::status::{Status, UnknownStatus};

/// The states of a sandbox as they come.
#[derive(Debug)]
pub struct Statuses(tonic::Streaming<v1::Status>);

impl Statuses {
    pub(super) fn new(stream: tonic::Streaming<v1::Status>) -> Self {
        Self(stream)
    }

    /// The next one; at first the present one. `None` after a final one, or when the supervisor is gone. Cancelling it
    /// loses nothing.
    pub async fn next(&mut self) -> Option<Result<Status, UnknownStatus>> {
        self.0.message().await.ok()?.map(Status::try_from)
    }
}
