//! The gateway: the userspace network of one sandbox, and the only way in or out of it.
//!
//! It owns what a guest's Ethernet frames become: connections, datagrams and echoes of the host's, names that are looked up, each
//! allowed or refused by a policy. It must never know virtual machines, images or sandboxes' directories: it is given a socket that carries
//! frames, and says where bytes went.

#![forbid(unsafe_code)]

mod address;
pub mod dns;
pub mod policy;

pub use address::{GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, HOST_NAME, HOST_V4, HOST_V6, MTU};
