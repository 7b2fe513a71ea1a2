//! From "this has changed" to epochs that are gone.
//!
//! An invalidation is a set of scopes whose epochs the store must forget. Until
//! the store has said that it did, the [`Journal`] refuses whatever carries one
//! of them, and keeps trying. So an invalidation holds in this process from the
//! moment it is asked for, whatever the weather at the store.

mod journal;

pub(crate) use self::journal::{Journal, Unconfirmed};

/// What became of an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Invalidated {
    /// The store has forgotten the epochs: no process that asks it can serve the old responses.
    Applied,
    /// The store could not be reached. This process refuses the old responses from now on and keeps
    /// trying to tell the store; until it succeeds, other processes may still serve them. A process
    /// that ends before it succeeded takes the invalidation with it.
    Queued,
}
