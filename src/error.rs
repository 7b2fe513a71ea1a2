//! The crate's one error type.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What went wrong while setting up the cache, or while speaking to a store.
///
/// A request never sees this error: for it, a store that fails is a miss.
/// It reaches whoever connects a store, reads settings or calls a
/// cache handle.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Box<str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kinds of [`Error`], by what can be done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting, address or argument is wrong: correct it.
    Invalid,
    /// The store cannot be reached, or its circuit breaker is open: it is tried again by itself.
    Unavailable,
    /// The store did not answer within its deadline.
    Timeout,
    /// The store answered, and refused: out of memory, read-only, no permission.
    Refused,
    /// The store gave back something that is not what was stored.
    Damaged,
}

impl Error {
    /// Makes an error of a kind; stores written outside this crate use it too.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into().into_boxed_str(),
            source: None,
        }
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Returns what kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug
            .field("kind", &self.kind)
            .field("message", &self.message);
        if let Some(source) = &self.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_the_message_alone_and_the_source_is_kept() {
        let cause = std::io::Error::other("connection refused");
        let error = Error::new(ErrorKind::Unavailable, "redis at 127.0.0.1:6379 is away")
            .with_source(cause);
        assert_eq!(error.to_string(), "redis at 127.0.0.1:6379 is away");
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("connection refused")
        );
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
