//! Memory over another store.
//!
//! The second store is the one that counts. Memory holds copies of what it keeps, each with the
//! stamp that it has there, and serves a copy only while the second store [vouches] for that stamp:
//! so a hit in memory is as current as a hit below it, and asks nobody. What cannot be vouched for
//! is [confirmed], which takes a round trip and moves no body; what is gone from memory, or was
//! never there, is looked up below and comes up with the answer.
//!
//! A copy also stands under memory's own epochs. They end when something is invalidated here, even
//! while the second store is away; what happens then is said in [`away`].
//!
//! A rule may confine responses to one [`Tier`]. What memory alone keeps has the stamp that the
//! second store would give it, so it is as current as the rest.
//!
//! What both keep is not in memory for longer than it is fresh. Another process may have renewed what
//! is stale here, and the second store knows.
//!
//! [vouches]: Store::vouches_for
//! [confirmed]: Store::confirm

mod away;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::away::Solitude;
pub use self::away::WhenAway;
use super::memory::{LONGEST, Resident};
use super::{
    BoxFuture, Claim, Fill, FillLock, Found, Kept, MemoryStore, Outcome, Store, StoreHealth, Usage,
    Wanted,
};
use crate::clock::Clock;
use crate::entry::StoredResponse;
use crate::epoch::{Captured, Epoch, Scope, Stamp};
use crate::error::Error;
use crate::key::Namespace;
use crate::rules::Tier;

/// Memory over a second store that other processes share.
///
/// A hit in memory costs no round trip, and no more than the [`MemoryStore`] alone. It is as
/// current as a hit in the second store: what this process invalidates is gone from its memory at
/// once, and what another one invalidates as soon as the second store tells of it. How soon that is
/// the second store states; for Redis see [`Mirroring`](super::Mirroring).
///
/// What is stored goes to both, and what is found in the second store comes up into memory. What is
/// too large for the second store is kept in memory alone, and the other way round; and so is what a
/// [rule](crate::Rule::tier) confines to one of them.
///
/// Clones share what is stored.
///
/// # Examples
///
/// ```no_run
/// # #[cfg(feature = "redis")]
/// # async fn example() -> Result<(), tower_response_cache::Error> {
/// use tower_response_cache::{CacheLayer, MemoryStore, RedisStore, TieredStore};
///
/// let redis = RedisStore::connect("redis://127.0.0.1:6379/0").await?;
/// let cache = CacheLayer::new(TieredStore::new(MemoryStore::new(64 << 20), redis));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TieredStore {
    memory: MemoryStore,
    second: Arc<dyn Store>,
    tiers: [&'static str; 2],
    memory_max_body: usize,
    when_away: WhenAway,
    solitude: Arc<Solitude>,
}

impl TieredStore {
    /// Puts memory over a second store. Nothing else may store in that memory.
    #[must_use]
    pub fn new(memory: MemoryStore, second: impl Store) -> Self {
        Self {
            tiers: [memory.name(), second.name()],
            memory,
            second: Arc::new(second),
            memory_max_body: usize::MAX,
            when_away: WhenAway::default(),
            solitude: Arc::default(),
        }
    }

    /// Keeps no longer bodies than this in memory, in bytes; by default what the memory takes.
    #[must_use]
    pub fn memory_max_body(mut self, bytes: usize) -> Self {
        self.memory_max_body = bytes;
        self
    }

    /// Says what becomes of requests while the second store cannot be asked; by default this
    /// process keeps what its handlers answer for two seconds.
    #[must_use]
    pub fn when_away(mut self, mode: WhenAway) -> Self {
        self.when_away = mode;
        self
    }

    async fn look_up(&self, wanted: Wanted<'_>, scopes: &[Scope]) -> Result<Found, Error> {
        let asked = wanted.clock.now();
        let (held, mut outcome) = match self.memory.read(&wanted, Arc::clone) {
            Ok(held) => (Some(held), Outcome::Absent),
            Err(outcome) => (None, outcome),
        };
        let mut held = held.filter(|held| asked < held.expires);
        if let Some(copy) = held.take_if(|held| !self.solitude.made(held.response.stamp())) {
            let stamp = copy.response.stamp();
            match self.second.confirm(wanted.namespace, stamp).await {
                Ok(true) => {
                    self.answered();
                    self.when_away.trust(&copy, asked);
                    return Ok(self.found(&copy));
                }
                Ok(false) => {
                    self.memory.discard(&copy.response);
                    outcome = Outcome::Invalidated;
                }
                Err(error) => return self.look_up_alone(Some(&copy), &wanted, scopes, error),
            }
        }
        match self.look_below(wanted, scopes, outcome).await {
            Ok(found) => {
                self.answered();
                Ok(found)
            }
            Err(error) => self.look_up_alone(held.as_ref(), &wanted, scopes, error),
        }
    }

    /// Asks the second store for a response, or for the epochs of one that it is not to have.
    async fn look_below(
        &self,
        wanted: Wanted<'_>,
        scopes: &[Scope],
        in_memory: Outcome,
    ) -> Result<Found, Error> {
        if wanted.tier == Some(Tier::Memory) {
            let captured = self.second.capture(wanted.namespace, scopes).await?;
            return Ok(Found {
                captured: Some(captured),
                ..self.missed(in_memory)
            });
        }
        let (moment, asked) = (self.memory.moment(), wanted.clock.now());
        let mut found = self.second.lookup(wanted, scopes).await?;
        if let Outcome::Response(response) = &found.outcome {
            found.tier = Some(self.second.name());
            if wanted.tier.is_none() {
                let left = response.fresh_for(asked);
                self.hold(response, moment, asked, left, wanted.clock);
            }
        }
        Ok(found)
    }

    /// Answers as well as can be without the second store.
    fn look_up_alone(
        &self,
        held: Option<&Arc<Resident>>,
        wanted: &Wanted<'_>,
        scopes: &[Scope],
        error: Error,
    ) -> Result<Found, Error> {
        if self.when_away == WhenAway::Bypass || wanted.tier == Some(Tier::Shared) {
            return Err(error);
        }
        let now = wanted.clock.now();
        let found = match held.filter(|held| now < *held.trusted.lock()) {
            Some(held) => self.found(held),
            None => Found {
                outcome: Outcome::Unreachable(error),
                ..Found::default()
            },
        };
        Ok(Found {
            captured: Some(self.solitude.capture(&self.memory, scopes)),
            ..found
        })
    }

    async fn capture_epochs(
        &self,
        namespace: &Namespace,
        scopes: &[Scope],
    ) -> Result<Captured, Error> {
        match self.second.capture(namespace, scopes).await {
            Err(_) if self.when_away != WhenAway::Bypass => {
                Ok(self.solitude.capture(&self.memory, scopes))
            }
            captured => captured.inspect(|_| self.answered()),
        }
    }

    async fn store(&self, mut fill: Fill) -> Result<Kept, Error> {
        if self.solitude.made(&fill.captured.stamp) {
            if fill.tier == Some(Tier::Shared) {
                return Ok(Kept::Invalidated);
            }
            let left = self.when_away.left_of(&fill);
            fill.retain = fill.retain.min(left);
            return Ok(self.memory.keep(fill));
        }
        if fill.tier == Some(Tier::Memory) {
            return self.store_here(fill).await;
        }
        let (began, clock, retain) = (fill.clock.now(), fill.clock.clone(), fill.retain);
        let moment = self.memory.moment();
        let copy = Arc::clone(&fill.response).stamped(fill.captured.stamp.clone());
        // The epochs of the others only the second store learns.
        let comes_up = fill.tier.is_none() && fill.late.is_empty();

        let kept = self.second.put(fill).await?;
        self.answered();
        let limit = match kept {
            Kept::Stored => copy.fresh_for(began),
            // It is here or nowhere.
            Kept::TooLarge => retain,
            Kept::Invalidated => return Ok(kept),
        };
        if comes_up && self.hold(&copy, moment, began, limit, &clock) == Kept::Stored {
            return Ok(Kept::Stored);
        }
        self.memory.supersede(&copy);
        Ok(kept)
    }

    /// Stores a response in memory alone.
    async fn store_here(&self, fill: Fill) -> Result<Kept, Error> {
        let (began, moment) = (fill.clock.now(), self.memory.moment());
        let stamp = self.second.admit(&fill).await?;
        self.answered();
        let Some(stamp) = stamp else {
            return Ok(Kept::Invalidated);
        };
        let response = fill.response.stamped(stamp);
        let kept = self.hold(&response, moment, began, fill.retain, &fill.clock);
        if kept == Kept::TooLarge {
            self.memory.supersede(&response);
        }
        Ok(kept)
    }

    /// Takes a response with the stamp of the second store into memory for so long.
    fn hold(
        &self,
        response: &Arc<StoredResponse>,
        moment: Epoch,
        current: Instant,
        limit: Duration,
        clock: &Clock,
    ) -> Kept {
        if limit.is_zero() || response.body.len() > self.memory_max_body {
            return Kept::TooLarge;
        }
        let expires = current + limit.min(LONGEST);
        let trusted = self.when_away.trusted_until(current);
        let response = Arc::clone(response);
        self.memory.hold(response, moment, expires, trusted, clock)
    }

    /// Invalidates here before and after `below` has been done in the second store: what comes up
    /// from there in the meantime may be what it is about.
    async fn around<T>(
        &self,
        scopes: &[Scope],
        below: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.memory.forget(scopes);
        let done = below.await;
        self.memory.forget(scopes);
        done
    }

    fn found(&self, held: &Resident) -> Found {
        Found {
            outcome: Outcome::Response(Arc::clone(&held.response)),
            captured: None,
            tier: Some(self.memory.name()),
        }
    }

    /// Returns what is known of a response that is not in memory and not to be found elsewhere.
    fn missed(&self, mut outcome: Outcome) -> Found {
        if let Outcome::OtherVariants(others) = &mut outcome {
            others.retain(|other| self.second.vouches_for(other.stamp()));
        }
        Found {
            outcome,
            ..Found::default()
        }
    }

    /// Notes that the second store has answered.
    fn answered(&self) {
        self.solitude.end(&self.memory, self.second.as_ref());
    }
}

impl Store for TieredStore {
    fn name(&self) -> &'static str {
        "tiered"
    }

    fn tiers(&self) -> &[&'static str] {
        &self.tiers
    }

    fn peek(&self, wanted: &Wanted<'_>) -> Option<Found> {
        let now = wanted.clock.now();
        let vouched = |held: &Arc<Resident>| {
            let stamp = held.response.stamp();
            let is_current =
                now < held.expires && self.second.vouches_for(stamp) && !self.solitude.made(stamp);
            is_current.then(|| {
                self.when_away.trust(held, now);
                self.found(held)
            })
        };
        match self.memory.read(wanted, vouched) {
            Ok(found) => found,
            Err(outcome) => (wanted.tier == Some(Tier::Memory)).then(|| self.missed(outcome)),
        }
    }

    fn lookup<'a>(
        &'a self,
        wanted: Wanted<'a>,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Found, Error>> {
        Box::pin(self.look_up(wanted, scopes))
    }

    fn capture<'a>(
        &'a self,
        namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Captured, Error>> {
        Box::pin(self.capture_epochs(namespace, scopes))
    }

    fn claim<'a>(
        &'a self,
        wanted: Wanted<'a>,
        scopes: &'a [Scope],
        captured: Option<Captured>,
    ) -> BoxFuture<'a, Result<(Captured, Claim), Error>> {
        Box::pin(async move {
            // What this process captured for itself alone is nothing to others.
            let own = captured.as_ref();
            // Nor is what it will keep for itself alone.
            if wanted.tier != Some(Tier::Memory)
                && own.is_none_or(|captured| !self.solitude.made(&captured.stamp))
                && let Ok(claimed) = self.second.claim(wanted, scopes, captured.clone()).await
            {
                self.answered();
                return Ok(claimed);
            }
            let captured = match captured {
                Some(captured) => captured,
                None => self.capture_epochs(wanted.namespace, scopes).await?,
            };
            Ok((captured, Claim::Granted(FillLock::none())))
        })
    }

    fn put<'a>(&'a self, fill: Fill) -> BoxFuture<'a, Result<Kept, Error>> {
        Box::pin(self.store(fill))
    }

    fn admit<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Option<Stamp>, Error>> {
        self.second.admit(fill)
    }

    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.around(scopes, self.second.invalidate(namespace, scopes)))
    }

    fn vouches_for(&self, stamp: &Stamp) -> bool {
        self.second.vouches_for(stamp)
    }

    fn confirm<'a>(
        &'a self,
        namespace: &'a Namespace,
        stamp: &'a Stamp,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.second.confirm(namespace, stamp)
    }

    fn renew<'a>(
        &'a self,
        namespace: &'a Namespace,
        scope: Scope,
        captured: Captured,
    ) -> BoxFuture<'a, Result<Option<Captured>, Error>> {
        Box::pin(async move {
            let scopes = [scope];
            if self.solitude.made(&captured.stamp) {
                self.invalidate(namespace, &scopes).await?;
                return Ok(None);
            }
            let renewed = self.second.renew(namespace, scope, captured);
            self.around(&scopes, renewed).await
        })
    }

    fn generation(&self) -> u64 {
        self.second.generation()
    }

    fn staleness(&self) -> Duration {
        self.when_away.staleness(self.second.staleness())
    }

    fn remove<'a>(&'a self, response: &'a StoredResponse) -> BoxFuture<'a, Result<(), Error>> {
        self.memory.discard(response);
        self.second.remove(response)
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.second.check()
    }

    fn usage(&self) -> Usage {
        self.memory.usage()
    }

    fn health(&self) -> StoreHealth {
        self.second.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.second.close()
    }
}

#[cfg(test)]
mod tests;
