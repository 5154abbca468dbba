//! Builds EROFS files from layers and reads them back, entry by entry.
#![expect(clippy::unwrap_used, reason = "a test may fail so")]

mod archive;
mod compression;
mod directory;
mod entries;
mod headers;
mod hostile;
mod judges;
mod layers;
mod layout;
mod limits;
mod model;
mod sparse;
mod support;
