//! One flight: of all who want the same thing at the same time, one fetches it and the rest follow.
//!
//! Who wants something [boards](Flights::board). It is told to [lead](Leader): fetch, and then
//! either [land](Leader::land), which gives the others what was fetched, or
//! [ground](Leader::ground) them, when it is of no use to anybody else. Or it is told to
//! [follow](Follower), a future of what the leader came to; or to go alone.
//!
//! Nobody waits without an end: a leader that is lost is replaced once, a follower has a limit of
//! time, a flight too old is joined by nobody, and beyond the limits of number all go alone. All
//! that is held for one is let go when its leader or its follower is dropped, at whatever point.
//!
//! This room knows nothing of what is fetched, or why. A body that those aboard read together is in
//! [`along`].

pub(crate) mod along;
mod course;
mod follower;
mod leader;
mod marks;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;

use self::course::{Flight, Stage};
pub(crate) use self::follower::{Boarded, Follower};
pub(crate) use self::leader::Leader;
use self::marks::Marks;
use self::sync::{AtomicUsize, Mutex};

/// The flights of a cache, at most one that can be joined for each key `K`.
///
/// A flight goes under the circumstances `G` of who began it, and those aboard get clones of one `T`:
/// cheap ones, as they are made under a lock.
pub(crate) struct Flights<K, G, T> {
    limits: Limits,
    table: Mutex<Table<K, G, T>>,
    /// Over all flights, also those that can no longer be joined.
    followers: AtomicUsize,
}

/// What flights are kept within; beyond it all go alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Flights that can be joined at a time.
    pub(crate) flights: usize,
    /// Followers at a time, over all flights.
    pub(crate) followers: usize,
    /// How long a follower waits.
    pub(crate) wait: Duration,
    /// How long after its departure a flight that has not landed is joined and waited for,
    /// whoever leads it.
    pub(crate) age: Duration,
    /// About how many keys can be grounded at a time.
    pub(crate) grounded: usize,
}

/// What one does who has boarded.
#[derive(Debug)]
pub(crate) enum Boarding<K: Hash + Eq, G, T> {
    /// Fetch, for everybody.
    Lead(Leader<K, G, T>),
    /// Wait for what the leader fetches.
    Follow(Follower<K, G, T>),
    /// Fetch, for oneself.
    Alone(Why),
}

/// Why one goes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// What is fetched for this key is of no use to others, or was not a moment ago.
    Grounded,
    /// There are too many flights, or followers.
    Full,
    /// The leader took too long.
    Late,
    /// Two leaders have failed.
    Failed,
}

/// A flight's lock may be taken while the table is locked, never the other way round.
struct Table<K, G, T> {
    /// The flights that can be joined.
    open: HashMap<K, Arc<Flight<K, G, T>>, RandomState>,
    grounded: Marks,
}

impl<K: Hash + Eq + Clone, G, T> Flights<K, G, T> {
    /// Makes a table without flights.
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            table: Mutex::new(Table {
                open: HashMap::default(),
                grounded: Marks::new(limits.grounded),
            }),
            followers: AtomicUsize::new(0),
        })
    }

    /// Joins the flight for `key`, or begins one under `circumstances`.
    ///
    /// A flight under circumstances that do not suit, or too old to be waited for, or with a landing
    /// that serves no longer, goes on with those aboard; the new one takes its place. `now` is that
    /// of the caller's clock: here no time is read, but by the timers of followers.
    ///
    /// `suits`, given those circumstances and the flight's, and `serves`, given its landing, are
    /// asked under the lock: they must be quick.
    pub(crate) fn board(
        self: &Arc<Self>,
        key: K,
        circumstances: G,
        suits: impl FnOnce(&G, &G) -> bool,
        serves: impl Fn(&T) -> bool,
        now: Instant,
    ) -> Boarding<K, G, T> {
        let mut table = self.table.lock();
        if table.grounded.holds(&key, now) {
            return Boarding::Alone(Why::Grounded);
        }
        if let Some(flight) = table.open.get(&key)
            && suits(&circumstances, &flight.circumstances)
            && let Some(boarding) = self.join(flight, serves, now)
        {
            return boarding;
        }
        let room = table.open.len() < self.limits.flights;
        let flight = Arc::new(Flight::new(key.clone(), circumstances, now));
        let replaced = match table.open.entry(key) {
            Entry::Occupied(mut held) => Some(held.insert(Arc::clone(&flight))),
            Entry::Vacant(place) if room => {
                place.insert(Arc::clone(&flight));
                None
            }
            Entry::Vacant(_) => return Boarding::Alone(Why::Full),
        };
        drop(table);
        drop(replaced);
        Boarding::Lead(Leader::new(self, &flight))
    }

    /// Boards a flight that suits; `None` if nobody joins it any more.
    fn join(
        self: &Arc<Self>,
        flight: &Arc<Flight<K, G, T>>,
        serves: impl Fn(&T) -> bool,
        now: Instant,
    ) -> Option<Boarding<K, G, T>> {
        let age = now.saturating_duration_since(flight.departed);
        let rest = self.limits.age.saturating_sub(age);
        let mut course = flight.course.lock();
        match &course.stage {
            Stage::Over(_) => return None,
            Stage::Led | Stage::Leaderless if rest.is_zero() => return None,
            Stage::Landed(landing) if !serves(landing) => return None,
            Stage::Led | Stage::Landed(_) => {}
            Stage::Leaderless => {
                course.stage = Stage::Led;
                return Some(Boarding::Lead(Leader::new(self, flight)));
            }
        }
        if !self.count_follower() {
            return Some(Boarding::Alone(Why::Full));
        }
        let limit = self.limits.wait.min(rest);
        let follower = Follower::new(self, flight, course.enter(), limit);
        Some(Boarding::Follow(follower))
    }

    /// Counts a follower more, unless there are too many.
    fn count_follower(&self) -> bool {
        let more = |followers: usize| {
            (followers < self.limits.followers).then(|| followers.saturating_add(1))
        };
        self.followers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Lets nobody join from now on the flights for which `affected` is true. Those aboard stay.
    ///
    /// `affected` is asked about each flight under the lock: it must be quick. There are as many as
    /// keys that are being fetched at this moment, no more than [`Limits::flights`].
    pub(crate) fn retire(&self, affected: impl Fn(&K, &G) -> bool) {
        let mut table = self.table.lock();
        let retired = table
            .open
            .extract_if(|key, flight| affected(key, &flight.circumstances));
        let retired: Vec<_> = retired.collect();
        drop(table);
        drop(retired);
    }
}

impl<K: Hash + Eq, G, T> Flights<K, G, T> {
    /// Lets nobody join `flight` from now on.
    fn close(&self, flight: &Arc<Flight<K, G, T>>) {
        let mut table = self.table.lock();
        // Another flight may have taken its place.
        let closed = table
            .open
            .get(&flight.key)
            .is_some_and(|open| Arc::ptr_eq(open, flight))
            .then(|| table.open.remove(&flight.key));
        drop(table);
        drop(closed);
    }
}

impl<K, G, T> fmt::Debug for Flights<K, G, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever prints it may hold the lock.
        let open = self.table.try_lock().map(|table| table.open.len());
        f.debug_struct("Flights")
            .field("limits", &self.limits)
            .field("open", &open)
            .field("followers", &self.followers.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
