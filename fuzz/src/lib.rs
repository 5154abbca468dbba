//! What the fuzz targets share: makers of almost valid input, and the checks that all builds must pass.
//!
//! Each target feeds one parser through the public API of its crate, and says in its own doc what must hold. What is
//! made here must never be shared with the crates: a maker that used their code would make their mistakes.

pub mod archive;
pub mod build;
pub mod call;
pub mod documents;
pub mod kernel;
pub mod mutate;
pub mod mux;
pub mod scratch;
pub mod secrets;
pub mod tar;
