//! Owns what an open connection is held to when the policy changes.
//!
//! A connection that only a name makes allowed must have shown one (`inspect`). One that began under rules without names never was looked
//! at, so that it has to go when it needs a name; another may be for a name that is not allowed any more.

use std::net::SocketAddr;

use crate::gateway::{Gateway, Place};
use crate::inspect::Inspection;
use crate::policy::{Name, Protocol};

/// What is known of the name that a connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// It came to the guest: rules say nothing of it.
    Inbound,
    /// Whatever name it shows, it need not show one.
    Freely,
    /// It must show a name as far as what is spoken on it shows any, and has shown none that was refused.
    Strictly,
    /// It has shown this name, for good.
    To(Name),
    /// Each of its requests is held to the rules of its time.
    ByRequest,
}

impl Held {
    /// Before anything was said.
    pub(crate) fn at_first(inspection: Option<&Inspection>) -> Self {
        match inspection.and_then(Inspection::of_requests) {
            Some(true) => Self::Strictly,
            Some(false) | None => Self::Freely,
        }
    }
}

impl Gateway {
    /// Whether a connection to `to` may go on under the policy as it is now.
    pub(crate) fn may_go_on(&self, to: SocketAddr, held: &Held) -> bool {
        match self.place(to.ip()) {
            Place::Host => *held == Held::Inbound || self.exposed.borrow().contains_key(&to.port()),
            Place::Outside => match held {
                Held::Inbound => true,
                Held::Freely => !self.wants_name(to),
                Held::Strictly | Held::ByRequest => self.allows(to, Protocol::Tcp),
                Held::To(name) => self.allows(to, Protocol::Tcp) && self.judge(to, name).is_ok(),
            },
            Place::Gateway | Place::Nobody | Place::Neighbour => true,
        }
    }
}
