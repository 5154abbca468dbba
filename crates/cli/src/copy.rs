//! The host's side of `cellule cp`: what its words mean, where things go, and the archives on both ways.
//!
//! | | |
//! |---|---|
//! | [`words`] | `NAME:PATH`, local paths and `-` |
//! | [`place`] | Docker's rules: which name in which directory |
//! | [`local`] | what is at the paths of this host |
//! | [`unpack`] | an archive from the guest, which may be hostile, beneath a directory of the host |
//!
//! The way from the host to the guest needs no more than [`cellule_rootfs::pack`].

pub(crate) mod local;
pub(crate) mod place;
pub(crate) mod unpack;
pub(crate) mod words;
