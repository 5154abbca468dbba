//! Saved machines on disk.
//!
//! A [`SavedFiles`] is a directory that holds one: its memory, its devices' state, and a manifest that says what both are
//! for and how they looked when they were made. [`Templates`] are such directories under the hash of everything that made
//! the memory what it is, shared by all sandboxes that would boot to just that.
//!
//! ```text
//!   <templates>/<id>/manifest.json     format, what it was made of, who can go on with it, how the files look
//!                   /memory            the guest's memory, sparse
//!                   /devices           the engine's state of processors and devices
//!   <templates>/<id>.lock              held by whoever makes it
//!   <templates>/<id>.failed/           what is left of one that did not work: its manifest and the cause
//!   <templates>/.tmp-XXXXXX/           being made; removed by the next maker if its own died
//! ```
//! It must never know of images, sandboxes or the agent: what a template is made of are files and numbers to it.
//!
//! What is read here is a file, and may be anybody's: bounded, checked, and never trusted to be what it was when written.

#![forbid(unsafe_code)]

mod error;
mod files;
mod key;
mod templates;

pub use error::{Damage, Error};
pub use files::{FORMAT, Manifest, SavedFiles};
pub use key::{TemplateId, TemplateKey};
pub use templates::{Draft, Making, Template, TemplateState, Templates};
