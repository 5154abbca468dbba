//! Owns how an operation on files fails: a status whose message says what was done to which path and why it failed, with
//! the kernel's error number beside it.

use std::io;

use cellule_protocol::call::ERRNO;
use rustix::io::Errno;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Text of a path that goes back in a message.
const MAX_QUOTED: usize = 512;

/// Why an operation was refused, or broke off.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    errno: Option<Errno>,
    message: String,
}

/// Adds what was being done, and to what, to the kernel's reason.
pub(super) trait At<T> {
    /// `doing` reads as in "open".
    fn at(self, doing: &str, path: &[u8]) -> Result<T, Failure>;
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, errno: None, message: message.into() }
    }

    /// The request makes no sense, or not for what is there.
    pub(super) fn invalid(doing: &str, path: &[u8], why: &str) -> Self {
        Self::new(Code::InvalidArgument, format!("{doing} {}: {why}", quote(path)))
    }

    /// The kernel's number in its own words.
    pub(super) fn kernel(doing: &str, path: &[u8], errno: Errno) -> Self {
        let why = io::Error::from(errno).to_string();
        // The number goes beside the message, so its words suffice.
        Self::because(doing, path, errno, why.split(" (os error").next().unwrap_or_default())
    }

    /// The kernel's number, with words that say more than its own.
    pub(super) fn because(doing: &str, path: &[u8], errno: Errno, why: &str) -> Self {
        let message = format!("{doing} {}: {why}", quote(path));
        Self { code: code(errno), errno: Some(errno), message }
    }

    /// Says it better where it failed with `errno`.
    pub(super) fn hint(self, doing: &str, path: &[u8], errno: Errno, why: &str) -> Self {
        if self.errno == Some(errno) { Self::because(doing, path, errno, why) } else { self }
    }

    /// Whether it is that there is nothing at the path.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self.errno, Some(Errno::NOENT | Errno::NOTDIR))
    }

    /// Nobody waits for the outcome any more.
    pub(super) fn cancelled() -> Self {
        Self::new(Code::Cancelled, "given up")
    }

    /// The stream was cut rather than ended.
    pub(super) fn cut() -> Self {
        Self::new(Code::Aborted, "the stream was cut before its end")
    }
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, doing: &str, path: &[u8]) -> Result<T, Failure> {
        self.map_err(|errno| Failure::kernel(doing, path, errno))
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &str, path: &[u8]) -> Result<T, Failure> {
        self.map_err(|error| match Errno::from_io_error(&error) {
            Some(errno) => Failure::kernel(doing, path, errno),
            None => Failure::new(Code::FailedPrecondition, format!("{doing} {}: {error}", quote(path))),
        })
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut status = Self::new(failure.code, failure.message);
        if let Some(errno) = failure.errno {
            status.metadata_mut().insert(ERRNO, MetadataValue::from(errno.raw_os_error()));
        }
        status
    }
}

/// Never one of the codes that stand for a lost session: unknown, unavailable, internal.
fn code(errno: Errno) -> Code {
    match errno {
        Errno::NOENT => Code::NotFound,
        Errno::EXIST => Code::AlreadyExists,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Code::PermissionDenied,
        Errno::INVAL | Errno::NAMETOOLONG | Errno::LOOP | Errno::OPNOTSUPP => Code::InvalidArgument,
        Errno::NOSPC
        | Errno::DQUOT
        | Errno::FBIG
        | Errno::MLINK
        | Errno::NOMEM
        | Errno::NFILE
        | Errno::MFILE => Code::ResourceExhausted,
        Errno::IO => Code::DataLoss,
        _ => Code::FailedPrecondition,
    }
}

/// A path as text of bounded length, on one line.
pub(super) fn quote(path: &[u8]) -> String {
    let cut = path.get(..MAX_QUOTED).unwrap_or(path);
    String::from_utf8_lossy(cut).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
