//! The name server between a hostile guest and hostile servers.

mod fixture;
mod guest;
mod records;
mod servers;
