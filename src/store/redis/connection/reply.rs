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

    /// Takes the reply to a `GET`, one of those to an `MGET`, or one that is a text.
    pub(crate) fn bytes(&mut self) -> Result<Option<Bytes>, Error> {
        match self.take()? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes.into())),
            Value::VerbatimString { text, .. } => Ok(Some(text.into())),
            _ => Err(nonsense()),
        }
    }

    /// Takes the reply to an `MGET`, whose values are replies themselves.
    pub(crate) fn array(&mut self) -> Result<Self, Error> {
        Self::of_array(self.0.next())
    }

    pub(super) fn of_array(reply: Option<Value>) -> Result<Self, Error> {
        match accepted(reply)? {
            Value::Array(values) => Ok(Self::new(values)),
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
        accepted(self.0.next())
    }
}

fn accepted(reply: Option<Value>) -> Result<Value, Error> {
    match reply {
        Some(Value::ServerError(refusal)) => Err(refused(&refusal)),
        Some(value) => Ok(value),
        None => Err(nonsense()),
    }
}

/// What a reply says about the server as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    /// It answers commands, though it may refuse one.
    Well,
    /// It has become a replica and takes no writes.
    ReadOnly,
    /// It does nothing at present: it loads its data, runs a script, or has lost its primary.
    Unable,
}

/// Returns the refusal among the replies that says most about the server, and what it says.
pub(super) fn gravest_refusal(values: &[Value]) -> Option<(Health, Error)> {
    let refusals = values.iter().filter_map(|value| match value {
        Value::ServerError(refusal) => Some((health(refusal), refusal)),
        _ => None,
    });
    let (health, refusal) = refusals.max_by_key(|(health, _)| *health)?;
    Some((health, refused(refusal)))
}

fn health(refusal: &ServerError) -> Health {
    match refusal.code() {
        "READONLY" => Health::ReadOnly,
        code if kind(code) == ErrorKind::Unavailable => Health::Unable,
        _ => Health::Well,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's reply in the notation of the wire.
    fn reply(text: &str) -> Value {
        redis::parse_redis_value(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_refusal_says_whether_waiting_helps() {
        for (code, kind, expected) in [
            ("LOADING", ErrorKind::Unavailable, Health::Unable),
            ("BUSY", ErrorKind::Unavailable, Health::Unable),
            ("MASTERDOWN", ErrorKind::Unavailable, Health::Unable),
            ("CLUSTERDOWN", ErrorKind::Unavailable, Health::Unable),
            ("TRYAGAIN", ErrorKind::Unavailable, Health::Unable),
            ("READONLY", ErrorKind::Refused, Health::ReadOnly),
            ("WRONGTYPE", ErrorKind::Damaged, Health::Well),
            ("OOM", ErrorKind::Refused, Health::Well),
            ("MISCONF", ErrorKind::Refused, Health::Well),
            ("NOREPLICAS", ErrorKind::Refused, Health::Well),
            ("NOAUTH", ErrorKind::Refused, Health::Well),
            ("NOPERM", ErrorKind::Refused, Health::Well),
            ("MOVED", ErrorKind::Refused, Health::Well),
            ("ERR", ErrorKind::Refused, Health::Well),
        ] {
            let values = vec![Value::Nil, reply(&format!("-{code} some details\r\n"))];
            let (health, _) = gravest_refusal(&values).unwrap();
            assert_eq!(health, expected, "{code}");
            let mut replies = Replies::new(values);
            assert_eq!(replies.bytes().unwrap(), None);
            let error = replies.bytes().unwrap_err();
            assert_eq!(error.kind(), kind, "{code}");
            assert_eq!(
                error.to_string(),
                format!("redis answered {code}: some details")
            );
        }
    }

    #[test]
    fn a_reply_of_another_kind_or_none_at_all_is_damage() {
        let mut replies = Replies::new(vec![Value::Int(1), Value::Okay, Value::Array(vec![])]);
        assert_eq!(replies.bytes().unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(replies.integer().unwrap_err().kind(), ErrorKind::Damaged);
        replies.all_done().unwrap();
        assert_eq!(replies.done().unwrap_err().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn of_all_replies_the_gravest_tells_of_the_server() {
        let values = [
            "+OK\r\n",
            "-LOADING no\r\n",
            "-READONLY no\r\n",
            "-OOM no\r\n",
        ]
        .map(reply);
        let (health, error) = gravest_refusal(&values).unwrap();
        assert_eq!(health, Health::Unable);
        assert!(error.to_string().contains("LOADING"), "{error}");
        assert!(gravest_refusal(&values[..1]).is_none());
    }

    #[test]
    fn of_all_replies_the_first_refusal_is_told() {
        let values = ["+OK\r\n", "-OOM no\r\n", "-READONLY no\r\n"].map(reply);
        let error = Replies::new(values.into()).all_done().unwrap_err();
        assert!(error.to_string().contains("OOM"), "{error}");
    }
}
