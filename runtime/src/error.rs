//! The engine's errors: the images crate's, and what containers add to them.

use std::io;
use std::path::PathBuf;

pub use wharf_images::Class;

/// A failure of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The images crate failed.
    #[error(transparent)]
    Image(#[from] wharf_images::Error),
    /// A failure with its class and a message for people.
    #[error("{message}")]
    Message {
        /// Its class.
        class: Class,
        /// What happened, naming the thing.
        message: String,
        /// What the person can do about it.
        hint: Option<String>,
    },
    /// The container's program could not be executed: docker's 126 (not executable) and 127 (not found).
    #[error("{message}")]
    Exec {
        /// 126 or 127.
        code: i32,
        /// What happened.
        message: String,
    },
    /// An operation on a path failed.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A system call failed that concerns no path.
    #[error("{op}: {source}")]
    Os {
        /// What was tried ("unshare the network namespace").
        op: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// What the container writes cannot be written to our own output.
    #[error("write the container's output: {0}")]
    Output(#[source] io::Error),
}

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `class` that says `message`.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Error::Message { class, message: message.into(), hint: None }
    }

    /// An operation on a path that failed.
    pub fn io(op: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Error::Io { op, path: path.into(), source: source.into() }
    }

    /// A system call that failed.
    pub fn os(op: &'static str, source: impl Into<io::Error>) -> Self {
        Error::Os { op, source: source.into() }
    }

    /// The same error, with advice.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Error::Message { class: self.class(), message: self.to_string(), hint: Some(hint.into()) }
    }

    /// The same error, said to have come in `during`.
    #[must_use]
    pub fn within(self, during: &str) -> Self {
        let hint = self.hint().map(str::to_owned);
        Error::Message { class: self.class(), message: format!("{during}: {self}"), hint }
    }

    /// Its class.
    pub fn class(&self) -> Class {
        match self {
            Error::Image(e) => e.class(),
            Error::Message { class, .. } => *class,
            Error::Exec { .. } => Class::InvalidInput,
            Error::Io { source, .. } | Error::Os { source, .. } | Error::Output(source) => match source.kind() {
                io::ErrorKind::NotFound => Class::NotFound,
                io::ErrorKind::PermissionDenied => Class::Forbidden,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Class::LimitExceeded,
                _ => Class::Internal,
            },
        }
    }

    /// What the person can do about it, if we know.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Image(e) => e.hint(),
            Error::Message { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }

    /// Docker's exit code for `run`, `create` and `exec`: 126, 127, else 125.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Exec { code, .. } => *code,
            _ => 125,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(e: rusqlite::Error) -> Self {
        Error::Image(e.into())
    }
}
