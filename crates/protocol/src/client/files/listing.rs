//! Owns the listing of a directory as it comes.

use std::collections::VecDeque;

use tonic::Streaming;

use super::super::Session;
use super::{DirEntry, FileError};
use crate::v1::ListResponse;
use crate::v1::list_response::Entry;

/// The entries of a directory, in no order, as the guest tells them.
#[derive(Debug)]
pub struct Listing {
    session: Session,
    batches: Streaming<ListResponse>,
    batch: VecDeque<Entry>,
    over: bool,
}

impl Listing {
    pub(super) fn new(session: &Session, batches: Streaming<ListResponse>) -> Self {
        Self { session: session.clone(), batches, batch: VecDeque::new(), over: false }
    }

    /// The next entry; none after the last.
    ///
    /// # Errors
    /// When the guest can't read on, or what it tells is no entry, or the session is lost; then nothing follows.
    pub async fn next(&mut self) -> Option<Result<DirEntry, FileError>> {
        loop {
            if let Some(entry) = self.batch.pop_front() {
                let entry = DirEntry::checked(entry);
                if entry.is_err() {
                    self.over = true;
                    self.batch.clear();
                }
                return Some(entry);
            }
            if self.over {
                return None;
            }
            match super::message(&self.session, &mut self.batches).await {
                Ok(Some(batch)) => self.batch = batch.entries.into(),
                Ok(None) => self.over = true,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
