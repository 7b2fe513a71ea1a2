//! Commands for several servers, taken apart, and their replies put together.

use std::ptr;

use redis::{Arg, Cmd, Pipeline, Value};

use super::map::{self, Map};
use super::shard::Shard;
use super::slot;
use crate::error::Error;
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
        let owner = self.map.owner(slot).ok_or_else(|| map::unowned(slot))?;
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::map::tests::map;
    use super::*;

    /// Answers each command with its last word.
    fn answer(commands: &Pipeline) -> Vec<Value> {
        let last = |command: &Cmd| match command.args_iter().last() {
            Some(Arg::Simple(word)) => Value::BulkString(word.to_vec()),
            word => panic!("{word:?}"),
        };
        commands.cmd_iter().map(last).collect()
    }

    proptest! {
        #[test]
        fn every_reply_finds_its_command(
            names in vec(vec("[a-c{}]{0,8}", 0..4), 0..12),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            let _inside = runtime.enter();
            let (map, _) = map(&[(0, 5000, 1), (5001, 10_000, 2), (10_001, 16_383, 3)]);
            let (mut commands, mut expected) = (Pipeline::new(), Vec::new());
            let value = |name: &String| Value::BulkString(name.clone().into_bytes());
            for names in &names {
                if let [name] = &names[..] {
                    commands.add_command(get(name));
                    expected.push(value(name));
                } else {
                    commands.cmd("MGET").arg(names);
                    expected.push(Value::Array(names.iter().map(value).collect()));
                }
            }
            let split = Split::of(commands.cmd_iter(), &map).unwrap();
            for (shard, commands) in &split.parts {
                for command in commands.cmd_iter() {
                    let words = command.args_iter().len();
                    prop_assert_eq!(words, 2, "no command has two names");
                    let Some(Arg::Simple(name)) = command.args_iter().nth(1) else {
                        panic!("{command:?}");
                    };
                    let owner = map.owner(slot::of(name)).unwrap();
                    prop_assert!(ptr::eq(*shard, owner));
                }
            }
            let replies = split.parts.iter().map(|(_, commands)| answer(commands));
            let replies: Vec<_> = replies.collect();
            prop_assert_eq!(split.join(replies.clone()), Some(expected));
            if let Some(short) = replies.split_last().map(|(_, rest)| rest.to_vec()) {
                prop_assert_eq!(split.join(short), None);
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_string_is_absent_among_others_and_an_error_alone() {
        let (map, _) = map(&[(0, 16_383, 1)]);
        let mut commands = Pipeline::new();
        commands.cmd("MGET").arg("a").arg("b");
        commands.add_command(get(&"a"));
        let split = Split::of(commands.cmd_iter(), &map).unwrap();
        let error = redis::parse_redis_value(b"-WRONGTYPE a list\r\n").unwrap();
        let replies = [error.clone(), Value::Okay, error.clone()];
        let replies = Vec::from([replies.to_vec()]);
        let joined = [Value::Array(vec![Value::Nil, Value::Okay]), error];
        assert_eq!(split.join(replies), Some(joined.to_vec()));
    }
}
