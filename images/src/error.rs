//! One error type for the crate. Each error belongs to a [`Class`]; the command line and the API server turn
//! the class into an exit code or an HTTP status, so no other table exists.

use std::io;
use std::path::PathBuf;

/// What kind of failure it is, for whoever must answer a person or an HTTP client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The named thing does not exist.
    NotFound,
    /// The request contradicts the present state (a name in use, an image a container needs).
    Conflict,
    /// The request itself is wrong.
    InvalidInput,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// Known, and not allowed.
    Forbidden,
    /// The other side cannot be reached or cannot answer now; trying later may help.
    Unavailable,
    /// Wharf, or this system, cannot do it.
    Unsupported,
    /// Bytes are not what they claim to be: digest, size, format.
    Corrupt,
    /// A limit that protects the host was reached.
    LimitExceeded,
    /// A signal or a caller ended it.
    Cancelled,
    /// Anything else: the disk, the kernel, a bug.
    Internal,
}

/// A failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// An operation on a path failed.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "rename".
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The database failed.
    #[error("database: {0}")]
    Db(#[from] rusqlite::Error),
    /// JSON that should have been well formed was not.
    #[error("{what}: {source}")]
    Json {
        /// Which document.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
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

    /// A JSON document that could not be read.
    pub fn json(what: impl Into<String>, source: serde_json::Error) -> Self {
        Error::Json { what: what.into(), source }
    }

    /// The same error, with advice. Only [`Error::Message`] carries advice; others become one.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        let class = self.class();
        Error::Message { class, message: self.to_string(), hint: Some(hint.into()) }
    }

    /// Its class.
    pub fn class(&self) -> Class {
        match self {
            Error::Message { class, .. } => *class,
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Class::NotFound,
                io::ErrorKind::PermissionDenied => Class::Forbidden,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Class::LimitExceeded,
                _ => Class::Internal,
            },
            Error::Db(_) => Class::Internal,
            Error::Json { .. } => Class::Corrupt,
        }
    }

    /// What the person can do about it, if we know.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Message { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}
