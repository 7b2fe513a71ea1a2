//! From "this has changed" to epochs that are gone.
//!
//! An invalidation is a set of scopes whose epochs the store must forget. Until
//! the store has said that it did, the [`Journal`] refuses whatever carries one
//! of them, and keeps trying. So an invalidation holds in this process from the
//! moment it is asked for, whatever the weather at the store.
//!
//! A store that says so may lose it again: a server that crashes, or hands over
//! to a replica, forgets what it was told last. So the journal keeps what was
//! confirmed for a while and tells it again when the store may have lost it.

mod dated;
mod journal;
mod pending;
mod told;

pub(crate) use self::journal::{Journal, Moment};

/// More scopes than this wait as one: that of the whole namespace.
const MAX_SCOPES: usize = 100_000;

/// What became of an invalidation.
///
/// Either way, this process serves nothing older from when it is returned. What is said of other
/// processes has limits that no store can do away with, each of them bounded by the lifetime of the
/// response:
///
/// * A Redis that fails over to a replica may lose what it has acknowledged. This process notices
///   and invalidates the last minute's again, so it takes that it ends, or is cut off, before it
///   can. [`wait_replicas`](crate::RedisStoreBuilder::wait_replicas) makes it less likely. While
///   two servers both take themselves for the primary, those who ask the other one hear nothing;
///   behind Sentinels, for little more than two seconds, and in a cluster for its
///   `cluster-node-timeout` and two seconds.
/// * A tag that only the response names is known to have been invalidated while the handler ran by
///   a note of two minutes. A Redis short of memory may evict it, which
///   [`strict_tags`](crate::RedisStoreBuilder::strict_tags) guards against.
/// * A handler that reads from a database's replica may read, after the invalidation, what was
///   there before the change. Invalidate when the replica has it, or
///   [repeatedly](crate::CacheLayer::repeat_invalidations).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Invalidated {
    /// The store has forgotten the epochs: no process that asks it can serve the old responses. One
    /// that has memory over it stops as soon as it has heard; for Redis that is a moment, and at most
    /// the two seconds of a lease where the network fails (see [`Mirroring`](crate::Mirroring)). One
    /// that is cut off from the store may serve from memory for the time that it
    /// [allows itself then](crate::WhenAway), which with `Serve` begins at the end of that lease.
    Applied,
    /// The store could not be reached. This process refuses the old responses from now on and keeps
    /// trying to tell the store; until it succeeds, other processes may still serve them. A process
    /// that ends before it succeeded takes the invalidation with it.
    Queued,
}
