//! Owns how many of a guest's connections those may have who come in. The rest is the guest's own.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::gateway::Gateway;
use crate::limits::Limits;

/// The shares of the two sides that others come from.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Neighbours have a quarter.
    pub(crate) neighbours: Share,
    /// Clients of forwards have three, those that wait for the guest to answer included.
    pub(crate) forwards: Share,
}

impl Shares {
    pub(crate) fn new(limits: &Limits) -> Self {
        let most = limits.connections;
        Self { neighbours: Share::of(most.div_ceil(4)), forwards: Share::of(most - most / 4) }
    }
}

/// One side's.
#[derive(Debug)]
pub(crate) struct Share(Arc<Semaphore>);

impl Share {
    fn of(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))))
    }

    /// A place for one more, until the result is dropped: if neither the share nor what there is altogether is used up.
    pub(crate) fn take(&self, gateway: &Gateway) -> Option<OwnedSemaphorePermit> {
        if gateway.connections.count() >= gateway.limits.connections {
            return None;
        }
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}
