//! What may be reached.
