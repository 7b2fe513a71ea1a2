//! Stored responses in Redis or Valkey.
//!
//! [`RedisStore`] keeps one key for each response and one for each epoch ([`layout`]). There are no
//! sets of keys to look after, no scripts, no transactions and no clocks to be compared: a response
//! carries the epochs it was made under, and to invalidate is to delete an epoch ([`epochs`]). A
//! hit takes one round trip ([`lookup`]), and so does an invalidation, whatever it reaches. Of
//! several processes that miss the same, one fetches ([`claim`]).
//!
//! Nothing here waits for a server that is away ([`connection`]).

mod builder;
mod claim;
mod connection;
mod epochs;
mod layout;
mod lookup;
mod memo;
mod put;
#[cfg(test)]
#[path = "../../../tests/support/redis_server.rs"]
mod redis_server;
mod variants;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis::{Cmd, Pipeline};

use self::builder::Limits;
pub use self::builder::RedisStoreBuilder;
use self::connection::{Connection, Replies, get};
use self::layout::Place;
use self::lookup::{Hints, Lookup};
use super::{BoxFuture, Claim, Fill, Found, Kept, Store, Wanted};
use crate::clock::Clock;
use crate::entry::StoredResponse;
use crate::epoch::{Captured, Scope};
use crate::error::{Error, ErrorKind};
use crate::key::Namespace;

/// Keeps stored responses in one Redis or Valkey server, for all processes that use it.
///
/// A look-up takes one round trip, and another when it guessed wrong which variant or which tags a
/// response would have. While the server is away, or does not answer, every method fails at once,
/// and a task in the background brings the connection up again.
///
/// Clones share the connection. It ends when the last of them is dropped, or with
/// [`close`](Store::close).
///
/// The server wants `maxmemory` and a policy of `allkeys-lfu` or `allkeys-lru`; what it evicts
/// costs misses. It needs no persistence: restored from a file of an hour ago, it would serve what
/// was invalidated since.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), tower_response_cache::Error> {
/// use tower_response_cache::RedisStore;
///
/// let store = RedisStore::connect("redis://127.0.0.1:6379/0").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedisStore(Arc<Shared>);

/// What the clones of a store share.
struct Shared {
    data: Connection,
    limits: Limits,
    hints: Hints,
    clock: Clock,
    /// Moments count from here.
    began: Instant,
    captures: AtomicU32,
}

impl RedisStore {
    /// Connects to `redis://[user[:password]@]host[:port][/db]` or `redis+unix:///path[?db=n]`.
    ///
    /// # Errors
    ///
    /// When the address is wrong, when the server does not answer in time, and when it refuses.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Returns a builder with the defaults.
    pub fn builder(url: &str) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url)
    }

    fn new(data: Connection, limits: Limits) -> Self {
        let clock = Clock::system();
        Self(Arc::new(Shared {
            data,
            limits,
            hints: Hints::new(),
            began: clock.now(),
            clock,
            captures: AtomicU32::new(0),
        }))
    }
}

impl Store for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn lookup<'a>(
        &'a self,
        wanted: Wanted<'a>,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Found, Error>> {
        let Shared {
            data,
            limits,
            hints,
            ..
        } = &*self.0;
        Box::pin(async move {
            let moment = self.0.moment();
            let exchange = data.begin(limits.read)?;
            Lookup::new(hints, exchange, wanted, scopes)
                .run(moment)
                .await
        })
    }

    fn capture<'a>(
        &'a self,
        namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Captured, Error>> {
        Box::pin(self.0.capture(namespace, scopes))
    }

    fn claim<'a>(
        &'a self,
        wanted: Wanted<'a>,
        scopes: &'a [Scope],
        captured: Option<Captured>,
    ) -> BoxFuture<'a, Result<(Captured, Claim), Error>> {
        Box::pin(self.0.claim(wanted, scopes, captured))
    }

    fn put<'a>(&'a self, fill: Fill) -> BoxFuture<'a, Result<Kept, Error>> {
        Box::pin(self.0.put(fill))
    }

    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let mut commands = Pipeline::new();
            epochs::forget(&mut commands, namespace, scopes);
            let mut exchange = self.0.data.begin(self.0.limits.write)?;
            exchange.send(&commands).await?.all_done()
        })
    }

    fn renew<'a>(
        &'a self,
        namespace: &'a Namespace,
        scope: Scope,
        mut captured: Captured,
    ) -> BoxFuture<'a, Result<Option<Captured>, Error>> {
        Box::pin(async move {
            let mut exchange = self.0.data.begin(self.0.limits.write)?;
            let (ended, new) = epochs::replace(&mut exchange, namespace, scope).await?;
            let was_current = ended.is_some() && ended == captured.stamp.get(scope);
            captured.stamp.replace(scope, new);
            Ok(was_current.then_some(captured))
        })
    }

    fn remove<'a>(&'a self, response: &'a StoredResponse) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.0.remove(response))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            let mut commands = Pipeline::new();
            commands.cmd("PING");
            let mut exchange = self.0.data.begin(self.0.limits.write)?;
            exchange.send(&commands).await?.all_done()
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.data.close())
    }
}

impl Shared {
    async fn capture(&self, namespace: &Namespace, scopes: &[Scope]) -> Result<Captured, Error> {
        let (captured, _) = self.capture_with(namespace, scopes, []).await?;
        captured
    }

    /// Captures epochs, and sends other commands along, whose replies it returns.
    async fn capture_with(
        &self,
        namespace: &Namespace,
        scopes: &[Scope],
        others: impl IntoIterator<Item = Cmd>,
    ) -> Result<(Result<Captured, Error>, Replies), Error> {
        /// One in so many captures also renews epochs: no epoch in use ends, and few commands ask.
        const RENEWAL: u32 = 32;
        let moment = self.moment();
        let renew = self
            .captures
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(RENEWAL);
        let mut exchange = self.data.begin(self.limits.capture)?;
        let (stamp, replies) =
            epochs::ensure(&mut exchange, namespace, scopes, renew, others).await?;
        Ok((stamp.map(|stamp| Captured { stamp, moment }), replies))
    }

    /// Deletes a response if it is still the one stored. One that replaces it in between goes too,
    /// which costs a miss.
    async fn remove(&self, response: &StoredResponse) -> Result<(), Error> {
        let namespace = response.key.namespace().ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "the response to be removed has no key")
        })?;
        let scopes = response.stamp.iter().map(|(scope, _)| scope);
        let place = Place::of(&namespace, &response.key, scopes);
        let name = place.entry(place.digest(&response.variant));
        let mut commands = Pipeline::new();
        commands.add_command(get(&name));
        let mut exchange = self.data.begin(self.limits.write)?;
        let Some(entry) = exchange.send(&commands).await?.bytes()? else {
            return Ok(());
        };
        let held = StoredResponse::decode(&entry, &response.key, &self.clock);
        let is_the_one = |held: StoredResponse| {
            held.stamp == response.stamp
                && held.fields == response.fields
                && held.body == response.body
        };
        if !held.is_ok_and(is_the_one) {
            return Ok(());
        }
        let mut commands = Pipeline::new();
        commands.cmd("DEL").arg(&name);
        exchange.send(&commands).await?.all_done()
    }

    /// The monotonic time, as a number.
    fn moment(&self) -> u64 {
        let since = self.clock.now().saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns the time since a moment; one that has not come yet may be any.
    fn elapsed_since(&self, moment: u64) -> Duration {
        let elapsed = self.moment().checked_sub(moment);
        elapsed.map_or(Duration::MAX, Duration::from_nanos)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("data", &self.data)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
