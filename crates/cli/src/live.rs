//! Text that is shown as it comes, to somebody who looks on.

use std::io::{self, Write as _};

use crate::failure::Failure;

/// Writes a text to standard output, and has it there at once. False: nobody reads any more, and the command may end.
///
/// # Errors
/// Standard output cannot be written for another reason.
pub(crate) fn show(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::because("cannot write standard output", &error)),
    }
}
