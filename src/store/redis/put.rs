//! Storing a response.

use std::time::Duration;

use bytes::BufMut;
use redis::{Cmd, Pipeline, RedisWrite};

use super::Shared;
use super::connection::{Lanes, Names};
use super::epochs::{self, EPOCH_TTL, Known, millis};
use super::layout::{Name, Place};
use super::lookup::Traits;
use super::shards::{Dispatch, Lane};
use super::variants::Variants;
use crate::entry::codec;
use crate::epoch::{Captured, Scope, Stamp};
use crate::error::Error;
use crate::semantics::vary::Vary;
use crate::store::{Fill, Kept};

/// What a response may be stored with.
struct Admitted {
    stamp: Stamp,
    /// For a response that varies, what varies under its key, and for how long that is kept.
    listed: Option<(Variants, Duration)>,
}

impl Shared {
    /// Stores a response, unless one of its epochs has gone.
    ///
    /// The first round trip makes sure of the epochs, the second stores. What is invalidated
    /// between the two is stored and cannot be read. So the first one is there to keep a response
    /// that comes too late from taking the place of a good one.
    pub(super) async fn put(&self, fill: Fill) -> Result<Kept, Error> {
        let most = self.limits.entry_size;
        if fill.response.body.len() > most {
            return Ok(Kept::TooLarge);
        }
        let scopes = fill.captured.stamp.iter().map(|(scope, _)| scope);
        let place = Place::of(&fill.namespace, &fill.response.key, scopes);
        let dispatch = self.shards.begin(Lane::Short, self.limits.write);
        let Some(admitted) = self.admit(&dispatch, &fill, &place).await? else {
            return Ok(Kept::Invalidated);
        };

        let response = fill.response.stamped(admitted.stamp);
        let (now, wall) = (fill.clock.now(), fill.clock.wall());
        let (head, body) = codec::encode(&response, self.limits.compress_above, now, wall);
        if head.len().saturating_add(body.len()) > most {
            return Ok(Kept::TooLarge);
        }
        let ttl = fill.retain.clamp(Duration::from_millis(1), EPOCH_TTL);
        let digest = place.digest(&response.variant);
        let name = place.entry(digest);
        let mut commands = Pipeline::new();
        commands.add_command(self.set(&name, [&head, &body], ttl));
        if let Some((mut variants, left)) = admitted.listed {
            variants.add(&response);
            let list = variants.encode();
            if !variants.contains(&response.variant) {
                return Ok(Kept::TooLarge);
            }
            commands.add_command(self.set(&place.variants(), [&list, &[]], ttl.max(left)));
        }
        let is_long = Lanes::is_long(body.len());
        let dispatch = match is_long {
            true => self.shards.begin(Lane::Long, self.limits.write),
            false => dispatch,
        };
        dispatch.send(&commands).await?.all_done()?;
        let tags = fill.late;
        self.hints.note(&digest, Traits { tags, is_long });
        Ok(Kept::Stored)
    }

    /// Returns the stamp that a response may be stored under, if it may.
    pub(super) async fn stamp(&self, fill: &Fill) -> Result<Option<Stamp>, Error> {
        let scopes = fill.captured.stamp.iter().map(|(scope, _)| scope);
        let place = Place::of(&fill.namespace, &fill.response.key, scopes);
        let dispatch = self.shards.begin(Lane::Short, self.limits.write);
        let admitted = self.admit(&dispatch, fill, &place).await?;
        Ok(admitted.map(|admitted| admitted.stamp))
    }

    /// Makes sure that a response's epochs are current, and gets those of the tags that only the
    /// response names; `None` if one of its scopes may have been invalidated.
    async fn admit(
        &self,
        dispatch: &Dispatch<'_>,
        fill: &Fill,
        place: &Place<'_>,
    ) -> Result<Option<Admitted>, Error> {
        let Captured { stamp, moment } = &fill.captured;
        let scopes: Vec<Scope> = stamp.iter().map(|(scope, _)| scope).collect();
        let varies = fill.response.variant.vary != Vary::None;
        let mut names = Names::with_capacity(scopes.len().saturating_add(1));
        names.push(&place.variants());
        epochs::list(&mut names, &fill.namespace, &scopes);
        let mut commands = Pipeline::new();
        commands.add_command(names.into_command());
        epochs::ask_late(&mut commands, &fill.namespace, &fill.late)?;
        if varies {
            commands.cmd("PTTL").arg(place.variants());
        }
        let mut replies = dispatch.send(&commands).await?;

        let mut values = replies.array()?;
        let variants = values.bytes()?;
        let mut known = Known::new();
        known.read(&mut values, &scopes)?;
        let mut stamp = stamp.clone();
        let strict = self.limits.strict_tags;
        // Read after the replies have come, lest an age is compared with too short a time.
        let elapsed = self.elapsed_since(*moment);
        if !stamp.is_current(|scope| known.get(scope))
            || !epochs::read_late(&mut replies, &fill.late, elapsed, strict, &mut stamp)?
        {
            return Ok(None);
        }
        let listed = if varies {
            let left = u64::try_from(replies.integer()?).unwrap_or_default();
            // What is no list is replaced.
            let variants = variants.and_then(|list| self.decode_list(place, &list));
            Some((variants.unwrap_or_default(), Duration::from_millis(left)))
        } else {
            None
        };
        Ok(Some(Admitted { stamp, listed }))
    }

    /// Makes the command that stores a value of two parts under its seal, without joining them
    /// first.
    fn set(&self, name: &Name, [head, body]: [&[u8]; 2], ttl: Duration) -> Cmd {
        const NAME_AND_WORDS: usize = 192;
        let tag = self.seal.tag(name, [head, body]);
        let parts = [&tag, head, body];
        let size = parts
            .iter()
            .fold(0, |size, part| part.len().saturating_add(size));
        let mut command = Cmd::with_capacity(5, size.saturating_add(NAME_AND_WORDS));
        command.arg("SET").arg(name);
        let mut value = command.bufmut_for_next_arg(size);
        for part in parts {
            value.put_slice(part);
        }
        drop(value);
        command.arg("PX").arg(millis(ttl));
        command
    }
}
