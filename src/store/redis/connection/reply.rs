//! What a server answered, and what its refusals mean.

use std::vec;

use bytes::Bytes;
use redis::{RedisError, ServerError, Value};

use crate::error::{Error, ErrorKind};

/// The replies to a pipeline, to be taken in the order of its commands.
#[derive(Debug)]
pub(crate) struct Replies(vec::IntoIter<Value>);

impl Replies {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    /// Takes the next reply, of which only matters that the command was done.
    pub(crate) fn done(&mut self) -> Result<(), Error> {
        self.take().map(drop)
    }

    /// Takes all replies that are left, of which only matters that the commands were done.
    pub(crate) fn all_done(&mut self) -> Result<(), Error> {
        while !self.0.as_slice().is_empty() {
            self.done()?;
        }
        Ok(())
    }

    /// Takes the reply to a `GET`.
    pub(crate) fn bytes(&mut self) -> Result<Option<Bytes>, Error> {
        match self.take()? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes.into())),
            _ => Err(nonsense()),
        }
    }

    /// Takes the reply to a command that counts.
    pub(crate) fn integer(&mut self) -> Result<i64, Error> {
        match self.take()? {
            Value::Int(number) => Ok(number),
            _ => Err(nonsense()),
        }
    }

    fn take(&mut self) -> Result<Value, Error> {
        match self.0.next() {
            Some(Value::ServerError(refusal)) => Err(refused(&refusal)),
            Some(value) => Ok(value),
            None => Err(nonsense()),
        }
    }
}

/// What a reply says about the server as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It answers commands, though it may refuse one.
    Well,
    /// It has become a replica and takes no writes.
    ReadOnly,
    /// It does nothing at present: it loads its data, runs a script, or has lost its primary.
    Unable,
}

/// Returns what the replies to a pipeline say about the server.
pub(super) fn health(values: &[Value]) -> Health {
    let verdict = |value: &Value| match value {
        Value::ServerError(refusal) if refusal.code() == "READONLY" => Some(Health::ReadOnly),
        Value::ServerError(refusal) => {
            (kind(refusal.code()) == ErrorKind::Unavailable).then_some(Health::Unable)
        }
        _ => None,
    };
    values.iter().find_map(verdict).unwrap_or(Health::Well)
}

/// Makes the crate's error of one that the client met.
pub(super) fn failed(error: RedisError, message: String) -> Error {
    let kind = match error.kind() {
        redis::ErrorKind::AuthenticationFailed => ErrorKind::Refused,
        redis::ErrorKind::Server(_) | redis::ErrorKind::Extension => {
            kind(error.code().unwrap_or_default())
        }
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, message).with_source(error)
}

fn refused(refusal: &ServerError) -> Error {
    let details = refusal.details().unwrap_or_default();
    let message = format!("redis answered {}: {details}", refusal.code());
    Error::new(kind(refusal.code()), message)
}

/// What can be done about an error reply, by its first word.
fn kind(code: &str) -> ErrorKind {
    match code {
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" => ErrorKind::Unavailable,
        // The key holds a list or the like, which this crate never makes.
        "WRONGTYPE" => ErrorKind::Damaged,
        _ => ErrorKind::Refused,
    }
}

fn nonsense() -> Error {
    Error::new(
        ErrorKind::Damaged,
        "redis answered something that is no reply to the command",
    )
}
