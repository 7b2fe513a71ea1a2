//! Where stored responses are kept: the [`Store`] contract and the stores.
//!
//! A store keeps what it is given and judges nothing but one thing: whether the
//! epochs of what it holds are still current. Freshness, policy and HTTP are
//! decided above it.

mod claim;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "memory")]
mod tiered;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use smallvec::SmallVec;

pub use self::claim::{Claim, FillLock, FillWait, Settled};
#[cfg(feature = "memory")]
pub use self::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use self::redis::{Mirroring, RedisStore, RedisStoreBuilder};
#[cfg(feature = "redis")]
pub(crate) use self::redis::{SHORTEST_SECRET, WAITS};
#[cfg(feature = "memory")]
pub use self::tiered::{TieredStore, WhenAway};
use crate::clock::Clock;
use crate::entry::StoredResponse;
use crate::epoch::{Captured, Scope, Stamp};
use crate::error::Error;
use crate::key::{Namespace, PrimaryKey};
use crate::rules::Tier;

/// A boxed future, as the methods of [`Store`] return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps stored responses and the epochs they depend on.
///
/// The cache shares one store among all its clones and calls it from many
/// tasks at once.
///
/// # What a store must do
///
/// * **Never return a response of which any epoch is not the current one.** An
///   epoch that the store no longer knows is not current.
/// * **Never let an epoch come back.** After [`invalidate`](Self::invalidate)
///   returned `Ok`, what was captured before it can never become current
///   again, in this process or another.
/// * **Return a response only under its own key.** The whole
///   [`PrimaryKey`] is compared, not a hash of it.
/// * **Keep the variants of a key apart** and choose among them with
///   [`StoredResponse::select`].
/// * **Keep 64 variants of a key at most.** What clients may choose, they may
///   choose without end.
/// * **Bound every wait.** No method may take longer than a deadline of the
///   store's own; while the store is away, it fails at once.
/// * **Survive being dropped.** The future of any method may be dropped at any
///   await; what it leaves behind must be readable, or a miss.
///
/// # What a store may rely on
///
/// * [`capture`](Self::capture) is called before the handler runs and its value
///   is given back, unchanged, with the response that the handler made.
/// * Bodies and fields given to [`put`](Self::put) are complete and within the
///   limits of the layer.
/// * Losing anything, at any time, costs misses and is never an error.
///
/// The suite in the module `conformance` (feature
/// `test-util`) checks all this for any store.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Returns a short name for this store, used as the label of its tier: `memory`, `redis`.
    fn name(&self) -> &'static str;

    /// Returns the names of the stores that this one consists of, where it does.
    fn tiers(&self) -> &[&'static str] {
        &[]
    }

    /// Looks the wanted response up without waiting.
    ///
    /// `Some` is the whole answer, be it a response or a miss; `None` means that only
    /// [`lookup`](Self::lookup) can tell. This is the path of a memory hit: it must not block.
    fn peek(&self, wanted: &Wanted<'_>) -> Option<Found> {
        let _ = wanted;
        None
    }

    /// Looks the wanted response up.
    ///
    /// `scopes` are those the request determines. A store that learns their epochs along the
    /// way returns them in [`Found::captured`] and saves the call of [`capture`](Self::capture).
    ///
    /// # Errors
    ///
    /// When the store cannot be asked, or not in time. To the request that is a miss.
    fn lookup<'a>(
        &'a self,
        wanted: Wanted<'a>,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Found, Error>>;

    /// Returns within what time [`lookup`](Self::lookup) ends by itself, if the store knows.
    ///
    /// The cache then sets no timer for a look-up that can keep a request waiting for no longer than
    /// [it may](crate::CacheLayer::store_wait).
    fn longest_lookup(&self) -> Duration {
        Duration::MAX
    }

    /// Returns the current epochs of `scopes`, making those that are missing.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked, or not in time. The response is then not stored.
    fn capture<'a>(
        &'a self,
        namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Captured, Error>>;

    /// Asks to be the only one of all processes to fetch what is wanted and was not found, and
    /// captures the epochs of `scopes` in the same breath, unless they are `captured` already.
    ///
    /// `scopes` are those of the look-up. Whoever is [granted](Claim::Granted) the claim fetches,
    /// holds the lock until the response is stored, and drops it then. Correctness does not depend
    /// on it: a store may forget a lock at any time, and one that knows of no other process grants
    /// every claim, as this does unless it is overridden.
    ///
    /// # Errors
    ///
    /// When epochs were to be captured and [`capture`](Self::capture) would fail. That the lock
    /// cannot be had is no error: the claim is granted then.
    fn claim<'a>(
        &'a self,
        wanted: Wanted<'a>,
        scopes: &'a [Scope],
        captured: Option<Captured>,
    ) -> BoxFuture<'a, Result<(Captured, Claim), Error>> {
        Box::pin(async move {
            let captured = match captured {
                Some(captured) => captured,
                None => self.capture(wanted.namespace, scopes).await?,
            };
            Ok((captured, Claim::Granted(FillLock::none())))
        })
    }

    /// Stores a response under its key and variant, in place of one it held there.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached, is full or refuses.
    fn put<'a>(&'a self, fill: Fill) -> BoxFuture<'a, Result<Kept, Error>>;

    /// Returns the stamp that [`put`](Self::put) would store a response under, and stores nothing;
    /// `None` where it would find it invalidated.
    ///
    /// A store above this one asks, which is to keep the response alone. One that knows nothing of
    /// scopes that only the response names returns `None` for them, as this does unless it is
    /// overridden.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked, or not in time.
    fn admit<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Option<Stamp>, Error>> {
        Box::pin(async move {
            let stamp = &fill.captured.stamp;
            let is_current = fill.late.is_empty() && self.confirm(&fill.namespace, stamp).await?;
            Ok(is_current.then(|| stamp.clone()))
        })
    }

    /// Forgets the epochs of `scopes`, so that nothing that carries them is ever read again.
    ///
    /// Costs the same whatever the number of stored responses, and may be repeated.
    ///
    /// # Errors
    ///
    /// When it is not certain that every epoch is gone. The caller then repeats it until it is.
    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Whether this process knows, without asking anyone, that every epoch of a stamp is current.
    ///
    /// `false` says nothing: [`confirm`](Self::confirm) may find out. On this a store above this
    /// one, which keeps responses with their stamps, answers without waiting. So it must not block;
    /// and it must be `false` at once for what was invalidated here, and within a bounded time,
    /// that the store states, for what was invalidated in another process.
    fn vouches_for(&self, stamp: &Stamp) -> bool {
        let _ = stamp;
        false
    }

    /// Finds out whether every epoch of a stamp is current, without reading a response.
    ///
    /// What it finds it may remember, to [vouch](Self::vouches_for) for it.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked, or not in time.
    fn confirm<'a>(
        &'a self,
        namespace: &'a Namespace,
        stamp: &'a Stamp,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        let _ = namespace;
        Box::pin(async { Ok(self.vouches_for(stamp)) })
    }

    /// Invalidates `scope`, and returns `captured` with the epoch that it has from now on.
    ///
    /// `None` if the epoch captured for it was not the current one until then: what was made under
    /// it has been overtaken by another invalidation. So the response to a write can be stored
    /// though the write itself invalidates its path. A store that cannot tell invalidates and
    /// returns `None`, as this does unless it is overridden.
    ///
    /// # Errors
    ///
    /// When it is not certain that the old epoch is gone. The caller then invalidates the scope.
    fn renew<'a>(
        &'a self,
        namespace: &'a Namespace,
        scope: Scope,
        captured: Captured,
    ) -> BoxFuture<'a, Result<Option<Captured>, Error>> {
        Box::pin(async move {
            drop(captured);
            self.invalidate(namespace, &[scope]).await?;
            Ok(None)
        })
    }

    /// Returns a number that changes whenever the store may have lost what it was told, be it with
    /// a new connection to its server or a new server; zero for a store that never does.
    ///
    /// What was invalidated within the last minute is then invalidated again. It must not block.
    fn generation(&self) -> u64 {
        0
    }

    /// Returns how long another process may go on serving what it has read, from memory over this
    /// store or from where the store was, after [`invalidate`](Self::invalidate) has returned here.
    fn staleness(&self) -> Duration {
        Duration::ZERO
    }

    /// Drops one stored response, if it is still the one held.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached; the response then stays until it expires.
    fn remove<'a>(&'a self, response: &'a StoredResponse) -> BoxFuture<'a, Result<(), Error>>;

    /// Makes sure that the store answers.
    ///
    /// # Errors
    ///
    /// When it does not, saying why.
    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    /// Returns how much this process holds, as far as the store knows without asking anyone.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Returns how the store is doing, as far as it knows without asking anyone.
    fn health(&self) -> StoreHealth {
        StoreHealth::default()
    }

    /// Ends background work and closes connections. Later calls fail, or miss.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// What a request wants from a store.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The namespace of the layer that asks.
    pub namespace: &'a Namespace,
    /// The primary key; the response must have been stored under an equal one.
    pub key: &'a PrimaryKey,
    /// The request's header fields, of which `Vary` nominates some.
    pub fields: &'a HeaderMap,
    /// The only tier to be asked, by the rule; a store without tiers does not care.
    pub tier: Option<Tier>,
    /// Where the time is read.
    pub clock: &'a Clock,
}

/// What a store found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The response, or why there is none.
    pub outcome: Outcome,
    /// The epochs of the scopes asked for, where the look-up learned all of them.
    pub captured: Option<Captured>,
    /// Which of its [tiers](Store::tiers) the store found it in, where it has several.
    pub tier: Option<&'static str>,
}

/// The outcome of a look-up.
#[derive(Clone, Debug, Default)]
pub enum Outcome {
    /// A stored response whose epochs are all current; it need not be fresh.
    Response(Arc<StoredResponse>),
    /// Responses are stored under this key, but none for these nominated fields;
    /// those that are at hand, to be offered to the origin (RFC 9111 §4.1).
    OtherVariants(Vec<Arc<StoredResponse>>),
    /// There was a response, and it has been invalidated.
    Invalidated,
    /// There was something that is not a whole response of this key; it has been dropped.
    Damaged,
    /// The part of the store that would know cannot be asked, for this reason. What the handler
    /// makes may still be kept, under what was captured.
    Unreachable(Error),
    /// Nothing is stored under this key.
    #[default]
    Absent,
}

/// A response to be stored, with all that storing needs to know.
#[derive(Debug)]
pub struct Fill {
    /// The namespace of the layer that stores.
    pub namespace: Namespace,
    /// The response. Its stamp is empty: the store completes it from the two fields below.
    pub response: Arc<StoredResponse>,
    /// What [`Store::capture`] or [`Store::lookup`] returned before the handler ran.
    pub captured: Captured,
    /// Scopes that only the response names: its tags.
    pub late: SmallVec<[Scope; 2]>,
    /// How long from now the response can be of any use, which may be for years; a store may keep it
    /// for less.
    pub retain: Duration,
    /// The only tier to keep it, by the rule; a store without tiers does not care.
    pub tier: Option<Tier>,
    /// Where the time is read.
    pub clock: Clock,
}

/// What became of a [`Fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is stored.
    Stored,
    /// It was not stored: one of its scopes was invalidated while the handler ran,
    /// or the store cannot rule that out.
    Invalidated,
    /// It was not stored: it is larger than the store takes.
    TooLarge,
}

/// How a store is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreHealth {
    /// Whether there is a connection to the server, if the store has one.
    pub connected: bool,
    /// Since when requests do without the store, because it is away or does not answer.
    pub degraded_since: Option<SystemTime>,
    /// What failed last, however long ago; without passwords.
    pub last_error: Option<String>,
    /// Name and version of the server, if the store has one and it says so.
    pub server: Option<String>,
    /// How what is held in memory over the store is kept current, once something is and unless the
    /// store is asked each time.
    pub mirror: Option<MirrorHealth>,
}

/// How a store knows, without asking, what has not been invalidated elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MirrorHealth {
    /// Whether the server tells of invalidations; otherwise it is polled.
    pub told: bool,
    /// For how long yet what is known is believed without another word of the server. It is zero
    /// while the server is silent: each look-up in memory then waits for it.
    pub lease: Duration,
}

impl Default for StoreHealth {
    /// A store that needs nobody is well.
    fn default() -> Self {
        Self {
            connected: true,
            degraded_since: None,
            last_error: None,
            server: None,
            mirror: None,
        }
    }
}

/// How much a store holds in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Stored responses.
    pub responses: u64,
    /// Their size in bytes, with keys, fields and bookkeeping.
    pub bytes: u64,
    /// The most bytes that it will hold.
    pub capacity: u64,
}
