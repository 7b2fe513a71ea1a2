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

pub(crate) use self::journal::{Journal, Unconfirmed};

/// More scopes than this wait as one: that of the whole namespace.
const MAX_SCOPES: usize = 100_000;

/// What became of an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Invalidated {
    /// The store has forgotten the epochs: no process that asks it can serve the old responses.
    ///
    /// Two things can bring them back, until they expire. A server may lose what it confirmed: when
    /// it fails over to a replica that had not heard of it, or is restored from a dump. Then this
    /// process tells it again as soon as it has noticed, if that is within a minute and it still
    /// lives. And a handler may read old data after the invalidation, from a database replica that
    /// lags, and the response to that is new to the cache.
    Applied,
    /// The store could not be reached. This process refuses the old responses from now on and keeps
    /// trying to tell the store; until it succeeds, other processes may still serve them. A process
    /// that ends before it succeeded takes the invalidation with it.
    Queued,
}
