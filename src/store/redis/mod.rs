//! Stored responses in Redis or Valkey.
//!
//! [`RedisStore`] keeps one key for each response and one for each epoch ([`layout`]). There are no
//! sets of keys to look after, no scripts, no transactions and no clocks to be compared: a response
//! carries the epochs it was made under, and to invalidate is to delete an epoch ([`epochs`]). A
//! hit takes one round trip ([`lookup`]), and so does an invalidation, whatever it reaches. Of
//! several processes that miss the same, one fetches ([`claim`]). Where others can write to the
//! server, responses carry proof of who stored them ([`seal`]).
//!
//! Nothing here waits for a server that is away ([`connection`]).

mod builder;
mod claim;
mod connection;
mod control;
mod epochs;
mod incarnation;
mod layout;
mod lookup;
mod memo;
mod put;
mod replicas;
#[cfg(test)]
#[path = "../../../tests/support/redis_cluster.rs"]
mod redis_cluster;
#[cfg(test)]
#[expect(dead_code, reason = "other tests need the rest")]
#[path = "../../../tests/support/redis_sentinels.rs"]
mod redis_sentinels;
#[cfg(test)]
#[path = "../../../tests/support/redis_server.rs"]
pub(super) mod redis_server;
mod seal;
mod shards;
mod variants;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{Cmd, Pipeline};
use smallvec::SmallVec;

use self::builder::Limits;
pub use self::builder::RedisStoreBuilder;
pub(crate) use self::builder::WAITS;
use self::connection::{Names, Replies, get};
pub use self::control::Mirroring;
use self::epochs::Known;
use self::layout::{Name, Place};
use self::lookup::{Hints, Lookup};
pub(crate) use self::seal::SHORTEST_SECRET;
use self::seal::Seal;
use self::shards::{Lane, Shards};
use self::variants::Variants;
use super::{BoxFuture, Claim, Fill, Found, Kept, Store, StoreHealth, Wanted};
use crate::clock::Clock;
use crate::entry::{StoredResponse, codec};
use crate::epoch::{Captured, Scope, Stamp};
use crate::error::{Error, ErrorKind};
use crate::key::{Namespace, PrimaryKey};

/// Keeps stored responses in a Redis or Valkey server, or a cluster of them, for all processes that
/// use it.
///
/// A look-up takes one round trip, and another when it guessed wrong which variant or which tags a
/// response would have. While the server is away, or does not answer, every method fails at once,
/// and a task in the background brings the connection up again.
///
/// Clones share the connection, and a second one for responses of 64 KiB and more, lest short ones
/// wait behind them. Both end when the last of them is dropped, or with
/// [`close`](Store::close).
///
/// Nothing is kept for longer than a day, whatever its lifetime: then it is a miss once.
///
/// The server wants `maxmemory` and a policy of `allkeys-lfu` or `allkeys-lru`; what it evicts
/// costs misses. It needs no persistence: restored from a dump it begins anew, lest it serves what was
/// invalidated since.
///
/// The server has to be a Redis of 6.2 or later, or a Valkey, and for memory over this store a Redis
/// of 6.2.14, or of 7.0.5 or later. What every change is tested with is Redis 7.0.15; the same tests
/// have passed with Redis 6.2.14 and 8.2.3 and with Valkey 9.1.2, as far as these had what it takes.
/// Those between, Redis 7.2 and 7.4 and Valkey 7.2 and 8, were not tested.
///
/// A user of the server's needs no more than
///
/// ```text
/// ~hc1:* +get +mget +set +del +pttl +pexpire +ping +info +hello +client|tracking +select +wait
/// ```
///
/// and of these `+info` only for [`health`](Store::health) and to notice that the server was restored
/// from a dump, `+hello +client|tracking` for memory over this store and to be told when another
/// process has fetched what this one waits for, `+select` for a database other than 0, `+wait` for
/// [`wait_replicas`](RedisStoreBuilder::wait_replicas). A cluster takes `+cluster|slots +asking` as
/// well. From Redis 7.2 on, and with Valkey, `+client|setinfo` lets the connections say whose they
/// are; without it they are refused that, and otherwise the same.
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
    shards: Shards,
    limits: Limits,
    seal: Seal,
    hints: Hints,
    clock: Clock,
    /// Moments count from here.
    began: Instant,
    captures: AtomicU32,
}

impl RedisStore {
    /// Connects to `redis://[user[:password]@]host[:port][/db]`, to the same over TLS with `rediss`
    /// for `redis` (feature `redis-tls`), or to `redis+unix:///path[?db=n]`.
    ///
    /// To `redis+sentinel://[user[:password]@]host[:port][,..]/service[/db]`, or with `rediss`, it
    /// connects by asking the Sentinels at these hosts where the primary of the service is, and asks
    /// again when that may have changed. User and password are those of the servers. Each failover
    /// begins with an empty cache: the new primary may not have heard of the last invalidations.
    /// A primary is believed to be one for 2 s from when the Sentinels were asked that said so, at
    /// least half of those in the URL; then nothing is served that it says, nor from memory over it,
    /// until they say so again. So a process that is cut off with a former primary, or has not heard
    /// of its successor, serves what is invalidated there for no longer than that (and the time of
    /// [`Mirroring::Poll`], if it polls). What it invalidates itself meanwhile, it invalidates again
    /// at the successor; `min-replicas-to-write 1` has the former primary refuse that at once. Name all
    /// of the Sentinels, an odd number: while most of them are away, so is the cache.
    ///
    /// `redis+cluster://[user[:password]@]host[:port][,..]`, or with `rediss`, is a Redis Cluster
    /// whose primaries any of these hosts knows, primary or replica. What is stored is spread over
    /// all of them, and so are the epochs: the one of the namespace and the one of a route are in
    /// one place each. Each primary has connections of its own, and still a look-up takes one round
    /// trip. The certificates of TLS have to be for what the servers are announced as.
    ///
    /// * While a primary is away, what needs it fails at once, and to all else nothing happens
    ///   (`cluster-require-full-coverage no`; otherwise the servers refuse everything until it has
    ///   been replaced). [`health`](Store::health) is that of the worst of them.
    /// * A failover does not empty the cache. What was invalidated within the last minute is
    ///   invalidated again, as far as the processes still live that did; so what the new primary had
    ///   not heard of is served for the moment between the failover and that.
    /// * A primary that the network cuts off from most of the others answers nobody once it has
    ///   noticed, which takes it `cluster-node-timeout`, 15 s by default. Until then a process that is
    ///   cut off together with it serves what is invalidated at its successor, and from memory for 2 s
    ///   more, or the time of [`Mirroring::Poll`].
    /// * A primary that is started again from a dump, before a replica has taken its place, empties
    ///   the cache, all of it, lest it serves what was invalidated since. It does not if it has no
    ///   dump, for which it takes `save ""`, `appendonly no` and `rdb-del-sync-files yes`: a replica
    ///   keeps what it was sent when it joined. With Redis 6.2, which does not tell what it has
    ///   loaded, this is not only of use but needed.
    /// * While slots move, nothing stale is served. What is asked for at the moment at which a slot is
    ///   handed over is a miss, and so is what has moved to a server that has no whole slot yet.
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

    fn new(shards: Shards, limits: Limits, seal: Seal, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            shards,
            limits,
            seal,
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
        Box::pin(async move {
            let moment = self.0.moment();
            Lookup::begin(&self.0, wanted, scopes).run(moment).await
        })
    }

    fn longest_lookup(&self) -> Duration {
        self.0.limits.read
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

    fn admit<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Option<Stamp>, Error>> {
        Box::pin(self.0.stamp(fill))
    }

    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let mut commands = Pipeline::new();
            epochs::forget(&mut commands, namespace, scopes);
            let Shared { shards, limits, .. } = &*self.0;
            let told = shards.begin(Lane::Sure, limits.write).send(&commands).await;
            shards.forget(scopes);
            told?.all_done()
        })
    }

    fn vouches_for(&self, stamp: &Stamp) -> bool {
        self.0.shards.vouch_for(stamp)
    }

    fn confirm<'a>(
        &'a self,
        namespace: &'a Namespace,
        stamp: &'a Stamp,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.0.confirm(namespace, stamp))
    }

    fn renew<'a>(
        &'a self,
        namespace: &'a Namespace,
        scope: Scope,
        mut captured: Captured,
    ) -> BoxFuture<'a, Result<Option<Captured>, Error>> {
        Box::pin(async move {
            let Shared { shards, limits, .. } = &*self.0;
            let dispatch = shards.begin(Lane::Sure, limits.write);
            let replaced = epochs::replace(&dispatch, namespace, scope).await;
            shards.forget(&[scope]);
            let (ended, new) = replaced?;
            let was_current = ended.is_some() && ended == captured.stamp.get(scope);
            captured.stamp.replace(scope, new);
            Ok(was_current.then_some(captured))
        })
    }

    fn staleness(&self) -> Duration {
        self.0.shards.staleness()
    }

    fn generation(&self) -> u64 {
        self.0.shards.generation()
    }

    fn remove<'a>(&'a self, response: &'a StoredResponse) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.0.remove(response))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.shards.check(self.0.limits.write))
    }

    fn health(&self) -> StoreHealth {
        self.0.shards.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.shards.close())
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
        let dispatch = self.shards.begin(Lane::Short, self.limits.capture);
        let dispatch = dispatch.believing(namespace);
        let (stamp, replies) = epochs::ensure(&dispatch, namespace, scopes, renew, others).await?;
        Ok((stamp.map(|stamp| Captured { stamp, moment }), replies))
    }

    /// Asks which epochs are current: where the servers will tell when that changes, else where all
    /// else is asked.
    async fn confirm(&self, namespace: &Namespace, stamp: &Stamp) -> Result<bool, Error> {
        let scopes: SmallVec<[Scope; 4]> = stamp.iter().map(|(scope, _)| scope).collect();
        let limit = self.limits.read;
        let known = match self.shards.load(namespace, &scopes, limit).await {
            // Nothing is mirrored, or a control connection alone is down.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.ask(namespace, &scopes).await?
            }
            loaded => loaded?,
        };
        Ok(stamp.is_current(|scope| known.get(scope)))
    }

    async fn ask(&self, namespace: &Namespace, scopes: &[Scope]) -> Result<Known, Error> {
        let dispatch = self.shards.begin(Lane::Short, self.limits.read);
        let dispatch = dispatch.believing(namespace);
        let mut names = Names::with_capacity(scopes.len());
        epochs::list(&mut names, namespace, scopes);
        let mut replies = dispatch.read(&names).await?;
        let mut known = Known::new();
        known.read(&mut replies, scopes)?;
        Ok(known)
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
        let dispatch = self.shards.begin(Lane::Short, self.limits.write);
        let Some(entry) = dispatch.send(&commands).await?.bytes()? else {
            return Ok(());
        };
        let held = self.decode(|| name.clone(), &entry, &response.key, &self.clock);
        let is_the_one = |held: StoredResponse| {
            held.stamp == response.stamp
                && held.fields == response.fields
                && held.body == response.body
        };
        if !held.is_some_and(is_the_one) {
            return Ok(());
        }
        let mut commands = Pipeline::new();
        commands.cmd("DEL").arg(&name);
        dispatch.send(&commands).await?.all_done()
    }

    /// Reads what stands under the name of a response; `None` if it is no whole one of this key.
    fn decode(
        &self,
        name: impl FnOnce() -> Name,
        entry: &Bytes,
        key: &PrimaryKey,
        clock: &Clock,
    ) -> Option<StoredResponse> {
        let entry = self.seal.open(name, entry)?;
        let most = self.limits.entry_size;
        codec::decode(&entry, key, most, clock.now(), clock.wall()).ok()
    }

    /// Reads what stands under the name of what varies; `None` if that is no whole list.
    fn decode_list(&self, place: &Place<'_>, list: &Bytes) -> Option<Variants> {
        Variants::decode(&self.seal.open(|| place.variants(), list)?)
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
            .field("shards", &self.shards)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
