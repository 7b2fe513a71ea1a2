//! Storing a response.

use std::time::Duration;

use bytes::BufMut;
use redis::{Cmd, Pipeline, RedisWrite};

use super::Shared;
use super::epochs::{self, EPOCH_TTL, Known, millis};
use super::layout::Place;
use super::variants::Variants;
use crate::entry::codec;
use crate::epoch::Scope;
use crate::error::Error;
use crate::semantics::vary::Vary;
use crate::store::{Fill, Kept};

impl Shared {
    /// Stores a response, unless one of its epochs has gone.
    ///
    /// The first round trip makes sure of the epochs, and gets those of the tags that only the
    /// response names; the second stores. What is invalidated between the two is stored and cannot
    /// be read. That the first one asks at all is to keep a response that comes too late from
    /// taking the place of a good one.
    pub(super) async fn put(&self, fill: Fill) -> Result<Kept, Error> {
        let Fill {
            namespace,
            response,
            captured,
            late,
            retain,
            clock,
        } = fill;
        if response.body.len() > self.limits.entry_size {
            return Ok(Kept::TooLarge);
        }
        let scopes: Vec<Scope> = captured.stamp.iter().map(|(scope, _)| scope).collect();
        let place = Place::of(&namespace, &response.key, scopes.iter().copied());
        let varies = response.variant.vary != Vary::None;

        let mut exchange = self.data.begin(self.limits.write)?;
        let mut commands = Pipeline::new();
        epochs::ask(&mut commands, &namespace, &scopes);
        epochs::ask_late(&mut commands, &namespace, &late)?;
        if varies {
            commands.cmd("GET").arg(place.variants());
            commands.cmd("PTTL").arg(place.variants());
        }
        let mut replies = exchange.send(&commands).await?;
        let mut known = Known::new();
        known.read(&mut replies, &scopes)?;
        if !captured.stamp.is_current(|scope| known.get(scope)) {
            return Ok(Kept::Invalidated);
        }
        let elapsed = self.elapsed_since(captured.moment);
        let mut stamp = captured.stamp;
        if !epochs::read_late(
            &mut replies,
            &late,
            elapsed,
            self.limits.strict_tags,
            &mut stamp,
        )? {
            return Ok(Kept::Invalidated);
        }

        let response = response.stamped(stamp);
        let head = codec::encode_head(&response, clock.now(), clock.wall());
        if head.len().saturating_add(response.body.len()) > self.limits.entry_size {
            return Ok(Kept::TooLarge);
        }
        let ttl = retain.clamp(Duration::from_millis(1), EPOCH_TTL);
        let name = place.entry(place.digest(&response.variant));
        let mut commands = Pipeline::new();
        commands.add_command(set(&name, &head, &response.body, ttl));
        if varies {
            let list = replies.bytes().ok().flatten();
            let mut variants = list
                .and_then(|list| Variants::decode(&list))
                .unwrap_or_default();
            variants.add(&response);
            let list = variants.encode();
            if !variants.contains(&response.variant) {
                return Ok(Kept::TooLarge);
            }
            let left = u64::try_from(replies.integer()?).unwrap_or_default();
            let ttl = ttl.max(Duration::from_millis(left));
            commands.add_command(set(&place.variants(), &list, &[], ttl));
        }
        let mut replies = exchange.send(&commands).await?;
        replies.all_done()?;
        Ok(Kept::Stored)
    }
}

/// Makes the command that stores a value of two parts, without joining them first.
fn set(name: &str, head: &[u8], body: &[u8], ttl: Duration) -> Cmd {
    const WORDS: usize = 64;
    let size = head.len().saturating_add(body.len());
    let mut command = Cmd::with_capacity(5, size.saturating_add(name.len()).saturating_add(WORDS));
    command.arg("SET").arg(name);
    let mut value = command.bufmut_for_next_arg(size);
    value.put_slice(head);
    value.put_slice(body);
    drop(value);
    command.arg("PX").arg(millis(ttl));
    command
}
