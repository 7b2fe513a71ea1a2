//! Asking and telling, whichever servers it concerns.

use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value};

use super::map::Map;
use super::shard::{Lane, Shard};
use super::split::Split;
use crate::epoch::{Epoch, Scope};
use crate::error::{Error, ErrorKind};
use crate::key::Namespace;
use crate::store::redis::connection::{Exchange, Names, Replies, sent_on};
use crate::store::redis::epochs::Known;
use crate::store::redis::incarnation;

/// Commands to the servers of a store and their replies, under one deadline.
///
/// All goes by the map of when it began.
pub(crate) struct Dispatch<'a> {
    map: Arc<Map>,
    lane: Lane,
    deadline: Instant,
    /// The generation in which it began.
    began: u64,
    believing: Option<&'a Namespace>,
}

impl<'a> Dispatch<'a> {
    pub(super) fn new(map: Arc<Map>, lane: Lane, deadline: Instant, began: u64) -> Self {
        Self {
            map,
            lane,
            deadline,
            began,
            believing: None,
        }
    }

    /// Believes what the servers hold of this namespace, and so makes sure that it is of their
    /// present life.
    pub(crate) fn believing(self, namespace: &'a Namespace) -> Self {
        Self {
            believing: Some(namespace),
            ..self
        }
    }

    /// Returns the epoch of a scope, if it is known without asking.
    pub(crate) fn mirrored(&self, namespace: &Namespace, scope: Scope) -> Option<Epoch> {
        let mirror = self.map.owner_of(scope).ok()?.mirror()?;
        mirror.epoch(namespace, scope)
    }

    /// Reads what stands under names; what is no string counts as absent.
    ///
    /// The replies are taken by [`Replies::bytes`], one for each name.
    ///
    /// # Errors
    ///
    /// As those of [`send`](Self::send), and when a server refuses.
    pub(crate) async fn read(&self, names: &Names) -> Result<Replies, Error> {
        if names.is_empty() {
            return Ok(Replies::new(Vec::new()));
        }
        match self.map.sole() {
            Some(shard) => self.begin(shard).await?.read(names).await,
            None => {
                let split = Split::of([names.command()].into_iter(), &self.map)?;
                self.spread(split).await?.array()
            }
        }
    }

    /// Reads epochs where the servers tell when they change, and remembers them for as long as they may
    /// be believed.
    ///
    /// # Errors
    ///
    /// When a server that is needed is away or does not answer in time, and where nothing is mirrored.
    pub(crate) async fn load(
        &self,
        namespace: &Namespace,
        scopes: &[Scope],
    ) -> Result<Known, Error> {
        let parts = self.map.by_owner(scopes)?;
        let loads = parts.iter().map(async |(shard, scopes)| {
            let mut exchange = shard.begin_control(self.deadline)?;
            self.believe(shard, &mut exchange, namespace).await?;
            shard.load(&mut exchange, namespace, scopes).await
        });
        let mut known = Known::new();
        for loaded in join_all(loads).await {
            known.extend(loaded?);
        }
        Ok(known)
    }

    /// Sends commands, to each server its own in one piece, and waits for all replies.
    ///
    /// When this is dropped in the middle, the commands may or may not be carried out.
    ///
    /// # Errors
    ///
    /// When a server that is needed is away, does not answer in time, or has something no more. A
    /// refusal is the error of its own reply.
    pub(crate) async fn send(&self, commands: &Pipeline) -> Result<Replies, Error> {
        if commands.is_empty() {
            return Ok(Replies::new(Vec::new()));
        }
        match self.map.sole() {
            Some(shard) => {
                let mut exchange = self.begin(shard).await?;
                shard.tell(&mut exchange, self.lane, commands).await
            }
            None => {
                let split = Split::of(commands.cmd_iter(), &self.map)?;
                self.spread(split).await
            }
        }
    }

    /// Sends each server its part. None is spared the others' sake: what is told need not be told
    /// again.
    async fn spread(&self, split: Split<'_>) -> Result<Replies, Error> {
        let parts = split.parts.iter();
        let parts = parts.map(|(shard, commands)| self.tell(shard, commands));
        let replies = join_all(parts).await.into_iter();
        let replies = split.join(replies.collect::<Result<_, _>>()?);
        let replies = replies
            .ok_or_else(|| Error::new(ErrorKind::Damaged, "redis left commands unanswered"))?;
        Ok(Replies::new(replies))
    }

    async fn tell(&self, shard: &Shard, commands: &Pipeline) -> Result<Vec<Value>, Error> {
        let mut exchange = self.begin(shard).await?;
        let replies = shard.tell(&mut exchange, self.lane, commands).await?;
        let mut replies = replies.into_values();
        self.follow(shard, &mut exchange, commands, &mut replies)
            .await?;
        Ok(replies)
    }

    /// Finds what is on its way to another server: a slot that moves is half here and half there.
    ///
    /// From the first such command on, all are done again, one by one. Their order matters, and those
    /// behind it have been done before it; no command of this store is spoilt by repetition.
    async fn follow(
        &self,
        shard: &Shard,
        exchange: &mut Exchange<'_>,
        commands: &Pipeline,
        replies: &mut [Value],
    ) -> Result<(), Error> {
        let Some(first) = replies.iter().position(|reply| sent_on(reply).is_some()) else {
            return Ok(());
        };
        for (command, reply) in commands.cmd_iter().zip(replies).skip(first) {
            let alone = pipeline([command]);
            *reply = shard.tell(exchange, self.lane, &alone).await?.value()?;
            let Some((host, port)) = sent_on(reply) else {
                continue;
            };
            let there = shard.endpoint().and_then(|here| here.beside(host, port));
            let there = there.and_then(|there| self.map.at(&there));
            let there = there.ok_or_else(|| {
                shard.strayed();
                let message = "the slot moves to a server that has none yet";
                Error::new(ErrorKind::Unavailable, message)
            })?;
            let mut exchange = self.begin(there).await?;
            let asking = redis::cmd("ASKING");
            let commands = pipeline([&asking, command]);
            let mut replies = there.tell(&mut exchange, self.lane, &commands).await?;
            replies.done()?;
            *reply = replies.value()?;
        }
        Ok(())
    }

    async fn begin<'s>(&self, shard: &'s Shard) -> Result<Exchange<'s>, Error> {
        let mut exchange = shard.begin(self.lane, self.deadline)?;
        if let Some(namespace) = self.believing {
            self.believe(shard, &mut exchange, namespace).await?;
        }
        Ok(exchange)
    }

    /// Makes sure that a server's part of a namespace is of its present life, once for each
    /// connection.
    ///
    /// Who began before that was known may have heard from other servers what is so no longer.
    async fn believe(
        &self,
        shard: &Shard,
        exchange: &mut Exchange<'_>,
        namespace: &Namespace,
    ) -> Result<(), Error> {
        let trusted = exchange.trusted();
        let since = match trusted.since(namespace) {
            Some(since) => since,
            None => self.find_out(shard, exchange, namespace).await?,
        };
        if since <= self.began {
            return Ok(());
        }
        let message = "what redis holds was in doubt: it may be from a dump";
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// Returns the generation from which on a server's part of a namespace is to be believed.
    async fn find_out(
        &self,
        shard: &Shard,
        exchange: &mut Exchange<'_>,
        namespace: &Namespace,
    ) -> Result<u64, Error> {
        let trusted = exchange.trusted();
        let _turn = exchange.wait_for(trusted.turn()).await?;
        if let Some(since) = trusted.since(namespace) {
            return Ok(since);
        }
        let everything = Scope::namespace(namespace.as_str());
        let tag = shard
            .tag()
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the server has no slot"))?;
        let home = || {
            let owner = self.map.owner_of(everything)?;
            match ptr::eq(owner, shard) {
                true => Ok(None),
                false => owner.begin(Lane::Short, self.deadline).map(Some),
            }
        };
        let was_doubtful = incarnation::check(exchange, namespace, &tag, home).await?;
        let since = match was_doubtful && self.map.sole().is_none() {
            true => {
                self.map.forget(&[everything]);
                shard.lost()
            }
            false => 0,
        };
        trusted.insert(namespace, since);
        Ok(since)
    }
}

fn pipeline<'c>(commands: impl IntoIterator<Item = &'c Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for command in commands {
        pipeline.add_command(command.clone());
    }
    pipeline
}
