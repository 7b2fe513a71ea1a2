//! Commands for several servers, taken apart, and their replies put together.

use std::ptr;

use redis::{Arg, Cmd, Pipeline, Value};

use super::map::Map;
use super::shard::Shard;
use super::slot;
use crate::error::{Error, ErrorKind};
use crate::store::redis::connection::get;

/// Commands by the servers that they are for, in each part in their order.
#[derive(Debug)]
pub(super) struct Split<'a> {
    map: &'a Map,
    pub(super) parts: Vec<(&'a Shard, Pipeline)>,
    sources: Vec<Source>,
}

/// Where the reply to a command comes from.
#[derive(Debug)]
enum Source {
    /// From this part.
    One(usize),
    /// For an `MGET`, which may span slots, one value from each of these.
    Each(Vec<usize>),
}

impl<'a> Split<'a> {
    /// Takes commands apart, each of which begins with its own name and that of what it is about.
    ///
    /// # Errors
    ///
    /// When no server is known to have something.
    pub(super) fn of<'c>(
        commands: impl Iterator<Item = &'c Cmd>,
        map: &'a Map,
    ) -> Result<Self, Error> {
        let mut split = Self {
            map,
            parts: Vec::new(),
            sources: Vec::new(),
        };
        for command in commands {
            let source = split.add(command)?;
            split.sources.push(source);
        }
        Ok(split)
    }

    fn add(&mut self, command: &Cmd) -> Result<Source, Error> {
        let mut words = command.args_iter().filter_map(|word| match word {
            Arg::Simple(word) => Some(word),
            _ => None,
        });
        if words.next() == Some(b"MGET") {
            let each = words.map(|name| self.put(name, get(&name)));
            return each.collect::<Result<_, _>>().map(Source::Each);
        }
        let name = words.next().unwrap_or_default();
        self.put(name, command.clone()).map(Source::One)
    }

    /// Adds a command to the part of the server that has a name; returns which one that is.
    fn put(&mut self, name: &[u8], command: Cmd) -> Result<usize, Error> {
        let slot = slot::of(name);
        let owner = self.map.owner(slot).ok_or_else(|| {
            let message = format!("no server of the cluster is known to have slot {slot}");
            Error::new(ErrorKind::Unavailable, message)
        })?;
        let place = self
            .parts
            .iter()
            .position(|(shard, _)| ptr::eq(*shard, owner));
        let place = place.unwrap_or_else(|| {
            self.parts.push((owner, Pipeline::new()));
            self.parts.len() - 1
        });
        if let Some((_, commands)) = self.parts.get_mut(place) {
            commands.add_command(command);
        }
        Ok(place)
    }

    /// Puts the replies to the parts into the order of the commands; `None` if any is missing.
    pub(super) fn join(&self, replies: Vec<Vec<Value>>) -> Option<Vec<Value>> {
        let mut replies: Vec<_> = replies.into_iter().map(Vec::into_iter).collect();
        let mut next = |part: usize| replies.get_mut(part)?.next();
        let reply = |source: &Source| match source {
            Source::One(part) => next(*part),
            Source::Each(parts) => {
                let values = parts.iter().map(|part| next(*part).map(or_nothing));
                values.collect::<Option<_>>().map(Value::Array)
            }
        };
        self.sources.iter().map(reply).collect()
    }
}

/// Takes what is no string for absent, as `MGET` does.
fn or_nothing(reply: Value) -> Value {
    match reply {
        Value::ServerError(error) if error.code() == "WRONGTYPE" => Value::Nil,
        reply => reply,
    }
}
