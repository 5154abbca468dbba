//! The gateway: the userspace network of one sandbox, and the only way in or out of it.
//!
//! It owns what a guest's Ethernet frames become: connections, datagrams and echoes of the host's, names that are looked up, each
//! allowed or refused by a policy. It must never know virtual machines, images or sandboxes' directories: it is given a socket that carries
//! frames, and says where bytes went.

#![forbid(unsafe_code)]

mod address;
mod check;
pub mod dns;
mod echo;
mod forward;
mod gateway;
mod held;
mod inspect;
mod limits;
mod link;
mod names;
mod neighbours;
mod network;
mod outbox;
mod outside;
mod packet;
pub mod policy;
mod rate;
mod record;
mod relay;
mod reply;
mod requests;
pub mod secrets;
mod share;
mod stack;
mod tcp;
mod udp;
mod visit;

pub use address::{
    GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, HOST_NAME, HOST_V4, HOST_V6, MTU, PREFIX_V4, PREFIX_V6,
};
pub use check::{Answer, Whom};
pub use forward::{Forward, ForwardError, ForwardStatus};
pub use limits::Limits;
pub use neighbours::{Neighbourhood, Resolve, neighbour_answers};
pub use network::{Config, Figures, Network, NetworkError};
pub use record::{Direction, Outcome, Record, Sink};
pub use tcp::OpenConnection;
pub use visit::{Visit, Visits};

/// What fuzz targets reach that is nobody else's.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::inspect::shown;
    pub use crate::neighbours::written_again;
    pub use crate::secrets::fuzzing::{Holder, connection, replaced, replaced_whole};
}

#[cfg(test)]
mod tests;
