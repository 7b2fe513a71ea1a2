//! The one that fetches.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use super::course::{Flight, Stage};
use super::{Flights, Why};

/// The duty to fetch what everybody aboard waits for.
///
/// Until it is dropped a flight that has [landed](Self::land) is still joined, by who then gets its
/// landing at once. Dropped without landing or [grounding](Self::ground) it has failed, or panicked.
/// Then a follower leads in its place; the second time all go alone.
#[must_use = "dropped, it has failed, or the landing is given to nobody else"]
pub(crate) struct Leader<K: Hash + Eq, G, T> {
    flights: Arc<Flights<K, G, T>>,
    flight: Arc<Flight<K, G, T>>,
}

impl<K: Hash + Eq, G, T> Leader<K, G, T> {
    pub(super) fn new(flights: &Arc<Flights<K, G, T>>, flight: &Arc<Flight<K, G, T>>) -> Self {
        Self {
            flights: Arc::clone(flights),
            flight: Arc::clone(flight),
        }
    }

    /// Returns the circumstances of who began the flight.
    pub(crate) fn circumstances(&self) -> &G {
        &self.flight.circumstances
    }

    /// Gives `landing` to everybody aboard, unless it has landed, or is grounded.
    pub(crate) fn land(&self, landing: T) {
        self.flight.end(Stage::Landed(landing));
    }

    /// Whether it has landed, or is grounded.
    pub(crate) fn has_ended(&self) -> bool {
        self.flight.has_ended()
    }

    /// Sends everybody alone for whom it has not landed, and whoever comes for the same key until
    /// then, if that is given.
    pub(crate) fn ground(&self, until: Option<Instant>) {
        if let Some(until) = until {
            let mut table = self.flights.table.lock();
            table.grounded.set(&self.flight.key, until);
        }
        self.flights.close(&self.flight);
        self.flight.end(Stage::Over(Why::Grounded));
    }
}

impl<K: Hash + Eq, G, T> Drop for Leader<K, G, T> {
    fn drop(&mut self) {
        if self.flight.fail() {
            self.flights.close(&self.flight);
        }
    }
}

impl<K: Hash + Eq + fmt::Debug, G, T> fmt::Debug for Leader<K, G, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leader").field(&self.flight.key).finish()
    }
}
