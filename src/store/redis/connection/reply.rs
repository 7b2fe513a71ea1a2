//! What a server answered, and what its refusals mean.

use std::vec;

use bytes::Bytes;
use redis::{RedisError, RedisResult, ServerError, Value};

use super::frame;
use crate::error::{Error, ErrorKind};

/// The replies to a pipeline, to be taken in the order of its commands.
#[derive(Debug)]
pub(crate) struct Replies(Left);

/// What has not been taken.
#[derive(Debug)]
enum Left {
    Values(vec::IntoIter<Value>),
    /// A list of strings as it was received, and where the next one begins.
    Strings(Bytes, usize),
}

impl Replies {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self(Left::Values(values.into_iter()))
    }

    /// Takes the reply to an `MGET` as it was received.
    pub(super) fn of_raw(reply: Bytes) -> RedisResult<Self> {
        match frame::list(&reply) {
            Some(strings) => {
                let begin = reply.len().saturating_sub(strings.len());
                Ok(Self(Left::Strings(reply, begin)))
            }
            None => Ok(Self::new(vec![redis::parse_redis_value(&reply)?])),
        }
    }

    /// Returns the replies that are left, but for strings, which say nothing about the server.
    pub(super) fn values(&self) -> &[Value] {
        match &self.0 {
            Left::Values(values) => values.as_slice(),
            Left::Strings(..) => &[],
        }
    }

    /// Takes the next reply, of which only matters that the command was done.
    pub(crate) fn done(&mut self) -> Result<(), Error> {
        self.take().map(drop)
    }

    /// Takes all replies that are left, of which only matters that the commands were done.
    pub(crate) fn all_done(&mut self) -> Result<(), Error> {
        while !self.values().is_empty() {
            self.done()?;
        }
        Ok(())
    }

    /// Takes the reply to a `GET`, one of those to an `MGET`, or one that is a text.
    pub(crate) fn bytes(&mut self) -> Result<Option<Bytes>, Error> {
        if let Left::Strings(reply, begin) = &mut self.0 {
            let rest = reply.get(*begin..).unwrap_or_default();
            let (string, after) = frame::string(rest).ok_or_else(nonsense)?;
            let string = string.map(|string| reply.slice_ref(string));
            *begin = reply.len().saturating_sub(after.len());
            return Ok(string);
        }
        match self.take()? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes.into())),
            Value::VerbatimString { text, .. } => Ok(Some(text.into())),
            _ => Err(nonsense()),
        }
    }

    /// Takes the reply to an `MGET`, whose values are replies themselves.
    pub(crate) fn array(&mut self) -> Result<Self, Error> {
        match self.take()? {
            Value::Array(values) => Ok(Self::new(values)),
            _ => Err(nonsense()),
        }
    }

    /// Returns what is in the one reply, the list that answers an `MGET`.
    pub(super) fn into_list(mut self) -> Result<Self, Error> {
        match self.0 {
            Left::Strings(..) => Ok(self),
            Left::Values(_) => self.array(),
        }
    }

    /// Takes the reply to a command that counts.
    pub(crate) fn integer(&mut self) -> Result<i64, Error> {
        match self.take()? {
            Value::Int(number) => Ok(number),
            _ => Err(nonsense()),
        }
    }

    /// Returns all replies that are left.
    pub(crate) fn into_values(self) -> Vec<Value> {
        match self.0 {
            Left::Values(values) => values.collect(),
            Left::Strings(..) => Vec::new(),
        }
    }

    /// Takes the reply to a command of which only matters that the server is the one to ask for it,
    /// though it may send on to where the slot moves. Any other refusal leaves that open.
    pub(crate) fn mine(&mut self) -> Result<(), Error> {
        match self.value()? {
            reply if sent_on(&reply).is_some() => Ok(()),
            Value::ServerError(refusal) => {
                let message = "redis does not show that it still is the one to ask";
                Err(Error::new(ErrorKind::Unavailable, message).with_source(refused(&refusal)))
            }
            _ => Ok(()),
        }
    }

    /// Takes the next reply as it is.
    pub(crate) fn value(&mut self) -> Result<Value, Error> {
        match &mut self.0 {
            Left::Values(values) => values.next().ok_or_else(nonsense),
            Left::Strings(..) => Err(nonsense()),
        }
    }

    fn take(&mut self) -> Result<Value, Error> {
        match self.value()? {
            Value::ServerError(refusal) => Err(refused(&refusal)),
            value => Ok(value),
        }
    }
}

/// What a reply says about the server as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    /// It answers commands, though it may refuse one.
    Well,
    /// It answers, and says that another server of its cluster has what was asked for.
    Elsewhere,
    /// It has become a replica and takes no writes.
    ReadOnly,
    /// It does nothing at present: it loads its data, runs a script, or has lost its primary.
    Unable,
}

/// Returns the host and the port of the server that a command has to be sent to this once.
pub(crate) fn sent_on(reply: &Value) -> Option<(&str, u16)> {
    let Value::ServerError(refusal) = reply else {
        return None;
    };
    let details = refusal.details().filter(|_| refusal.code() == "ASK")?;
    let (_slot, address) = details.split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// Returns the refusal among the replies that says most about the server, and what it says.
pub(super) fn gravest_refusal(values: &[Value]) -> Option<(Health, Error)> {
    let refusals = values.iter().filter_map(|value| match value {
        Value::ServerError(refusal) => Some((health(refusal.code()), refusal)),
        _ => None,
    });
    let (health, refusal) = refusals.max_by_key(|(health, _)| *health)?;
    Some((health, refused(refusal)))
}

/// Returns what an error says about the server; one that is no refusal says that it did not answer.
pub(super) fn health_after(error: &RedisError) -> Health {
    error.code().map_or(Health::Unable, health)
}

fn health(code: &str) -> Health {
    match code {
        "ASK" => Health::Well,
        "MOVED" => Health::Elsewhere,
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
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" => {
            ErrorKind::Unavailable
        }
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
            ("ASK", ErrorKind::Unavailable, Health::Well),
            ("MOVED", ErrorKind::Unavailable, Health::Elsewhere),
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
    fn a_command_is_sent_on_to_where_the_server_says() {
        for (text, expected) in [
            ("-ASK 3999 127.0.0.1:6381\r\n", Some(("127.0.0.1", 6381))),
            ("-ASK 3999 ::1:6381\r\n", Some(("::1", 6381))),
            ("-ASK 3999 :6381\r\n", Some(("", 6381))),
            ("-ASK 3999 :x\r\n", None),
            ("-ASK\r\n", None),
            ("-MOVED 3999 127.0.0.1:6381\r\n", None),
            ("+ASK 3999 127.0.0.1:6381\r\n", None),
        ] {
            assert_eq!(sent_on(&reply(text)), expected, "{text}");
        }
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
