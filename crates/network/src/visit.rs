//! Owns what is told of those who come in: a sandbox that somebody visits is in use.

use std::any::Any;

/// Lasts as long as a visit.
pub type Visit = Box<dyn Any>;

/// Called when somebody comes in; what it gives is kept until they are gone.
pub type Visits = Box<dyn Fn() -> Visit + Send>;
