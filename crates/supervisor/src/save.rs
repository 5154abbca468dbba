//! What a client wants saved, and what came of it, as it goes over the wire.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use cellule_protocol::supervisor::v1;
use cellule_snapshot::{Durability, Extent};

/// How a sandbox is to be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveRequest {
    /// An empty directory: an absolute path.
    pub dir: PathBuf,
    /// What of its memory is written.
    pub extent: Extent,
    /// Whether it must outlive a crash of the host.
    pub durability: Durability,
    /// What its user writes on it.
    pub labels: BTreeMap<String, String>,
}

/// What saving it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaveOutcome {
    /// For how long its programs stood still. Nothing, if they did before.
    pub paused: Duration,
    /// What was copied of its memory meanwhile.
    pub copied_bytes: u64,
}

impl From<SaveRequest> for v1::SaveRequest {
    fn from(request: SaveRequest) -> Self {
        Self {
            dir: request.dir.to_string_lossy().into_owned(),
            whole: request.extent == Extent::Whole,
            durable: request.durability == Durability::Durable,
            labels: request.labels.into_iter().collect(),
        }
    }
}

impl TryFrom<v1::SaveRequest> for SaveRequest {
    type Error = &'static str;

    fn try_from(request: v1::SaveRequest) -> Result<Self, &'static str> {
        let dir = PathBuf::from(request.dir);
        if !dir.is_absolute() {
            return Err("the directory to save in is not an absolute path");
        }
        Ok(Self {
            dir,
            extent: if request.whole { Extent::Whole } else { Extent::Changes },
            durability: if request.durable { Durability::Durable } else { Durability::Ephemeral },
            labels: request.labels.into_iter().collect(),
        })
    }
}

impl From<SaveOutcome> for v1::SaveResponse {
    fn from(outcome: SaveOutcome) -> Self {
        let paused_us = u64::try_from(outcome.paused.as_micros()).unwrap_or(u64::MAX);
        Self { paused_us, copied_bytes: outcome.copied_bytes }
    }
}

impl From<v1::SaveResponse> for SaveOutcome {
    fn from(response: v1::SaveResponse) -> Self {
        Self { paused: Duration::from_micros(response.paused_us), copied_bytes: response.copied_bytes }
    }
}
