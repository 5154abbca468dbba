//! Owns why a program was not started.

use std::io;

use cellule_protocol::v1::StartFailure;
use cellule_protocol::v1::start_failure::Kind;
use rustix::io::Errno;

/// Text of a request that goes back in a message.
const MAX_QUOTED: usize = 256;

/// A refusal, and which field is to blame.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    field: String,
    message: String,
    errno: i32,
}

impl Failure {
    pub(super) fn new(kind: Kind, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, field: field.into(), message: message.into(), errno: 0 }
    }

    pub(super) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, field, message)
    }

    pub(super) fn no_root() -> Self {
        Self::new(Kind::NoRootFilesystem, "", "this machine has no root filesystem")
    }

    /// The agent's own means are at an end.
    pub(super) fn exhausted(doing: &str, error: &io::Error) -> Self {
        Self::new(Kind::ResourceExhausted, "", format!("{doing}: {error}")).with_errno(error)
    }

    pub(super) fn too_many(limit: usize) -> Self {
        Self::new(Kind::ResourceExhausted, "", format!("{limit} programs run already"))
    }

    pub(super) fn internal(doing: &str, error: &io::Error) -> Self {
        Self::new(Kind::Internal, "", format!("{doing}: {error}")).with_errno(error)
    }

    /// The streams of the exec never came.
    pub(crate) fn no_streams(message: &str) -> Self {
        Self::new(Kind::Internal, "", message)
    }

    pub(super) fn with_errno(mut self, error: &io::Error) -> Self {
        self.errno = error.raw_os_error().unwrap_or(0);
        self
    }

    /// What the kernel's refusal to execute means to whoever asked.
    pub(super) fn of_execution(program: &[u8], error: &io::Error) -> Self {
        let quoted = quote(program);
        let (kind, field, message) = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT) if program.contains(&b'/') => (
                Kind::NotFound,
                "argv[0]",
                format!("{quoted}: it, or the interpreter that it names, does not exist"),
            ),
            Some(Errno::NOENT) => (Kind::NotFound, "argv[0]", format!("{quoted}: no such program in PATH")),
            Some(Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => {
                (Kind::NotFound, "argv[0]", format!("{quoted}: {error}"))
            }
            Some(
                Errno::ACCESS
                | Errno::PERM
                | Errno::NOEXEC
                | Errno::ISDIR
                | Errno::TXTBSY
                | Errno::INVAL
                | Errno::LIBBAD,
            ) => (Kind::NotExecutable, "argv[0]", format!("{quoted}: {error}")),
            Some(Errno::TOOBIG) => {
                (Kind::InvalidArgument, "argv", format!("with the environment too large: {error}"))
            }
            Some(Errno::NOMEM | Errno::AGAIN | Errno::NFILE | Errno::MFILE) => {
                (Kind::ResourceExhausted, "", format!("execute {quoted}: {error}"))
            }
            _ => (Kind::Internal, "argv[0]", format!("execute {quoted}: {error}")),
        };
        Self::new(kind, field, message).with_errno(error)
    }

    /// What a shell would exit with, and say.
    pub(super) fn as_of_a_shell(&self) -> (i32, &str) {
        (if self.kind == Kind::NotFound { 127 } else { 126 }, &self.message)
    }

    pub(super) fn into_message(self) -> StartFailure {
        StartFailure { kind: self.kind.into(), field: self.field, message: self.message, errno: self.errno }
    }

    #[cfg(test)]
    pub(super) fn parts(&self) -> (Kind, &str) {
        (self.kind, &self.field)
    }
}

/// Bytes of a request as text of bounded length.
pub(super) fn quote(bytes: &[u8]) -> String {
    let cut = bytes.get(..MAX_QUOTED).unwrap_or(bytes);
    String::from_utf8_lossy(cut).escape_debug().to_string()
}
