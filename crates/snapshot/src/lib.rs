//! Saved machines on disk.
//!
//! A [`SavedFiles`] is a directory that holds one: its memory, its devices' state, and a manifest that says what both are
//! for and how they looked when they were made. [`Templates`] are such directories under the hash of everything that made
//! the memory what it is, shared by all sandboxes that would boot to just that. [`Snapshots`] are such directories under names
//! that people gave them.
//!
//! ```text
//!   <any>/manifest.json             format, what the machine was, who can go on with it, how the files look
//!        /memory                    the guest's memory, sparse: all of it, or, with a base, the pages that differ
//!        /base, pages               another one's memory, by a link, and the list of the pages that differ from it
//!        /devices                   the engine's state of processors and devices
//!
//!   <templates>/<id>/…              a template
//!              /<id>.lock           held by whoever makes it
//!              /<id>.failed/        what is left of one that did not work: its manifest and the cause
//!   <snapshots>/<name>/…            a snapshot
//!   <either>/.tmp-XXXXXX/           being made or removed; the next one clears it away if the process that did died
//! ```
//! It must never know of images, sandboxes or the agent: what a template is made of are files and numbers to it, and what a
//! sandbox was is a document that it keeps.
//!
//! What is read here is a file, and may be anybody's: bounded, checked, and never trusted to be what it was when written.

#![forbid(unsafe_code)]

mod archive;
mod directory;
mod error;
mod files;
mod key;
mod name;
mod saving;
mod snapshots;
mod sparse;
mod templates;

pub use error::{Damage, Error};
pub use files::{
    BaseRecord, FORMAT, FileRecord, Manifest, SandboxSubject, SavedFiles, Subject, TemplateSubject,
};
pub use key::{TemplateId, TemplateKey};
pub use name::{InvalidSnapshotName, SnapshotName};
pub use saving::{Durability, Extent, Saving};
pub use snapshots::{Snapshot, SnapshotDraft, Snapshots};
pub use sparse::{copy as copy_sparse, shares_blocks};
pub use templates::{Draft, Making, Template, TemplateState, Templates};
