//! Owns what the host asks about the guest as a whole: what it uses, who runs there, what changed, what its agent says.

use tonic::Streaming;

use super::calls::{MAX_LISTING, bounded};
use super::{CallError, Session};
use crate::v1;

/// Messages of one call, for as long as it has any.
#[derive(Debug)]
struct Messages<T> {
    session: Session,
    messages: Streaming<T>,
}

/// What differs from the image, in the order of a walk.
#[derive(Debug)]
pub struct Differences {
    batches: Messages<v1::DiffResponse>,
    batch: std::vec::IntoIter<v1::Difference>,
}

/// What the agent says of itself.
#[derive(Debug)]
pub struct LogLines {
    lines: Messages<v1::LogLine>,
}

impl Session {
    /// What the guest uses.
    ///
    /// # Errors
    /// When the session is lost or the agent does not answer within its limit.
    pub async fn stats(&self) -> Result<v1::StatsResponse, CallError> {
        let mut client = self.client.clone();
        self.call(async move { client.stats(v1::StatsRequest {}).await }).await
    }

    /// The processes of the guest, the agent and the kernel's own left out.
    ///
    /// # Errors
    /// When the session is lost or the agent does not answer within its limit.
    pub async fn processes(&self) -> Result<Vec<v1::Process>, CallError> {
        let mut client = self.client.clone().max_decoding_message_size(MAX_LISTING);
        let listed = self.call(async move { client.processes(v1::ProcessesRequest {}).await }).await?;
        Ok(listed.processes)
    }

    /// What differs from the image.
    ///
    /// # Errors
    /// When the session is lost, or the agent silent, or it has no image to compare with.
    pub async fn diff(&self) -> Result<Differences, CallError> {
        let mut client = self.client.clone();
        let messages = self.call(async move { client.diff(v1::DiffRequest {}).await }).await?;
        let batches = Messages { session: self.clone(), messages };
        Ok(Differences { batches, batch: Vec::new().into_iter() })
    }

    /// What the agent has said lately, and then each line as it comes.
    ///
    /// # Errors
    /// When the session is lost or the agent does not answer within its limit.
    pub async fn log(&self) -> Result<LogLines, CallError> {
        let mut client = self.client.clone();
        let messages = self.call(async move { client.log(v1::LogRequest {}).await }).await?;
        Ok(LogLines { lines: Messages { session: self.clone(), messages } })
    }
}

impl<T> Messages<T> {
    async fn next(&mut self) -> Result<Option<T>, CallError> {
        let message = tokio::select! {
            // A message that came before the end counts.
            biased;
            message = self.messages.message() => message,
            lost = self.session.ended() => return Err(CallError::Lost(lost)),
        };
        match message {
            Ok(message) => Ok(message),
            Err(status) => Err(self.session.failure(&status).await),
        }
    }
}

impl Differences {
    /// The next one; none after the last. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the session is lost, or the agent could not go on: what came is not all.
    pub async fn next(&mut self) -> Result<Option<v1::Difference>, CallError> {
        loop {
            if let Some(difference) = self.batch.next() {
                return Ok(Some(difference));
            }
            match self.batches.next().await? {
                Some(batch) => self.batch = batch.differences.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

impl LogLines {
    /// The next one, however long that takes; none if the agent has ended the call. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn next(&mut self) -> Result<Option<v1::LogLine>, CallError> {
        let line = self.lines.next().await?;
        Ok(line.map(|line| v1::LogLine { text: bounded(&line.text), ..line }))
    }
}
