//! The map of groups: bounded by bytes, and emptied in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::group::{self, Group, Resident, Turn, Variants};
use crate::clock::Clock;
use crate::entry::StoredResponse;
use crate::key::PrimaryKey;
use crate::store::Usage;

/// A guess; it bounds how many evicted keys the map remembers, to know them again.
const TYPICAL_WEIGHT: u64 = 4096;
/// The share of the whole that one key may have, and the most that this comes to.
const LARGEST_SHARE: u64 = 8;
const LARGEST: u64 = 16 << 20;
const MAX_SHARDS: u64 = 64;
/// How many groups lose their expired variants in one call.
const SWEEP: usize = 16;

/// All groups by their keys.
///
/// A reader takes the read lock of one shard of the map, and waits for nothing else. Writers take
/// turns, so that the books always agree with the map; a turn lasts a few microseconds.
pub(super) struct Shelf {
    map: Cache<Arc<PrimaryKey>, Arc<Group>, Weight, RandomState, Departures>,
    /// The most that a group may weigh.
    limit: u64,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// The groups in the map, in the order in which they expire.
    due: BTreeMap<Turn, Arc<PrimaryKey>>,
    /// How many groups have been made.
    made: u64,
    /// How many responses are in the map.
    responses: usize,
    /// Where the time was read last.
    clock: Clock,
}

/// Groups that have left the map; dropped when no lock is held.
type Departed = Vec<Arc<Group>>;

impl Shelf {
    /// Makes an empty shelf for this many bytes.
    pub(super) fn new(capacity: u64) -> Self {
        let limit = LARGEST.min(capacity / LARGEST_SHARE);
        // A power of two, for which each shard's part of the capacity is twice the limit or more.
        let shards = capacity.checked_div(2 * limit).unwrap_or(1).min(MAX_SHARDS);
        let log_shards = shards.checked_ilog2().unwrap_or(0);
        let options = OptionsBuilder::new()
            .shards(1 << log_shards)
            .weight_capacity(capacity >> log_shards << log_shards)
            .estimated_items_capacity(
                usize::try_from(capacity / TYPICAL_WEIGHT).unwrap_or(usize::MAX),
            )
            .build()
            .expect("both capacities are set");
        Self {
            map: Cache::with_options(options, Weight, RandomState::default(), Departures),
            limit,
            books: Mutex::default(),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn get(&self, key: &PrimaryKey) -> Option<Arc<Group>> {
        self.map.get(key)
    }

    /// Stores a response in place of its older self.
    pub(super) fn put(&self, resident: Resident, now: Instant, clock: Clock) {
        let resident = Arc::new(resident);
        let _departed = {
            let books = &mut *self.books.lock();
            books.clock = clock;
            let mut departed = self.sweep(books, now);
            departed.extend(self.edit(books, resident.response.key(), |variants| {
                group::add(variants, Arc::clone(&resident), self.limit);
            }));
            departed
        };
    }

    /// Drops what has been invalidated under this key; later, if another writes just now.
    pub(super) fn tidy(&self, key: &PrimaryKey) {
        let _departed = self.books.try_lock().map(|mut books| {
            self.edit(&mut books, key, |variants| {
                variants.retain(|variant| variant.standing.is_current());
            })
        });
    }

    /// Drops of the responses under this key the one that is meant.
    pub(super) fn remove(&self, key: &PrimaryKey, is_it: impl Fn(&StoredResponse) -> bool) {
        let _departed = self.edit(&mut self.books.lock(), key, |variants| {
            variants.retain(|variant| !is_it(&variant.response));
        });
    }

    pub(super) fn usage(&self) -> Usage {
        let (responses, _departed) = {
            let books = &mut *self.books.lock();
            let now = books.clock.now();
            let departed = self.sweep(books, now);
            (books.responses, departed)
        };
        Usage {
            responses: u64::try_from(responses).unwrap_or(u64::MAX),
            bytes: self.map.weight(),
            capacity: self.map.capacity(),
        }
    }

    /// Drops what has expired: a little at each call, yet more than a put brings.
    fn sweep(&self, books: &mut Books, now: Instant) -> Departed {
        let mut departed = Departed::new();
        for _ in 0..SWEEP {
            let Some(first) = books.due.first_entry().filter(|first| first.key().0 <= now) else {
                break;
            };
            let key = first.remove();
            departed.extend(self.edit(books, &key, |variants| {
                variants.retain(|variant| variant.expires > now);
            }));
        }
        departed
    }

    /// Changes the variants under a key, and returns what left the map thereby: the group as it was
    /// before, and what had to make way.
    fn edit(
        &self,
        books: &mut Books,
        key: &PrimaryKey,
        change: impl FnOnce(&mut Variants),
    ) -> Departed {
        let mut departed = Departed::new();
        let held = self.map.peek(key);
        let mut variants = held.map_or_else(Variants::new, |group| group.variants.clone());
        change(&mut variants);
        match books.open(variants) {
            Some((key, group)) => self.map.insert_with_lifecycle(key, group, &mut departed),
            None => departed.extend(self.map.remove(key).map(|(_, group)| group)),
        }
        departed.iter().for_each(|group| books.close(group));
        departed
    }
}

impl Books {
    /// Enters a group that goes into the map.
    fn open(&mut self, variants: Variants) -> Option<(Arc<PrimaryKey>, Arc<Group>)> {
        self.made += 1;
        let group = Arc::new(Group::new(variants, self.made)?);
        let key = Arc::new(group.variants.last()?.response.key().clone());
        self.due.insert(group.turn, Arc::clone(&key));
        self.responses += group.variants.len();
        Some((key, group))
    }

    fn close(&mut self, group: &Group) {
        self.due.remove(&group.turn);
        self.responses -= group.variants.len();
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Arc<PrimaryKey>, Arc<Group>> for Weight {
    fn weight(&self, _key: &Arc<PrimaryKey>, group: &Arc<Group>) -> u64 {
        group.weight
    }
}

/// Collects all that an insertion takes out of the map: what it replaces, what it evicts and, if
/// that is not admitted, what it brings.
#[derive(Clone)]
struct Departures;

impl Lifecycle<Arc<PrimaryKey>, Arc<Group>> for Departures {
    type RequestState = Departed;

    fn on_evict(&self, departed: &mut Departed, _key: Arc<PrimaryKey>, group: Arc<Group>) {
        departed.push(group);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::epoch::Stamp;
    use crate::key::Namespace;
    use crate::store::conformance::sample::Sample;
    use crate::store::memory::epochs::Epochs;

    fn resident(sample: &Sample, expires: Instant, weight: u64) -> Resident {
        Resident {
            response: Arc::new(sample.response(&Clock::system())),
            standing: Arc::new(Epochs::new()).admit(&Stamp::default()).unwrap(),
            expires,
            trusted: Mutex::new(expires),
            weight,
        }
    }

    fn sample(path: &str) -> Sample {
        Sample::new(&Namespace::default(), path)
    }

    /// Asserts that the books agree with the map.
    fn audit(shelf: &Shelf) {
        let books = shelf.books.lock();
        let mut groups: Vec<_> = shelf.map.iter().collect();
        groups.sort_by_key(|(_, group)| group.turn);
        let due: Vec<_> = groups
            .iter()
            .map(|(key, group)| (group.turn, Arc::clone(key)))
            .collect();
        assert_eq!(books.due.clone().into_iter().collect::<Vec<_>>(), due);
        let variants = groups.iter().map(|(_, group)| group.variants.len());
        assert_eq!(books.responses, variants.sum::<usize>());
        let weights = groups.iter().map(|(_, group)| group.weight);
        assert_eq!(shelf.map.weight(), weights.sum::<u64>());
        assert!(shelf.map.weight() <= shelf.map.capacity());
    }

    #[test]
    fn the_parts_of_the_capacity_never_exceed_the_whole() {
        for capacity in [
            0,
            1,
            7,
            8,
            100,
            4096,
            1 << 20,
            (64 << 20) + 7,
            (1 << 30) + 63,
            1 << 40,
        ] {
            let shelf = Shelf::new(capacity);
            assert!(shelf.map.capacity() <= capacity, "{capacity}");
            assert!(
                shelf.map.capacity() >= capacity - capacity % MAX_SHARDS,
                "{capacity}"
            );
            assert!(
                shelf.limit() <= shelf.map.shard_capacity() / 2,
                "{capacity}"
            );
            assert_eq!(shelf.limit(), LARGEST.min(capacity / 8), "{capacity}");
        }
    }

    #[test]
    fn the_largest_group_is_admitted() {
        for capacity in [8 << 10, 1 << 20, 200 << 20, 5 << 30] {
            let shelf = Shelf::new(capacity);
            let now = Instant::now();
            let sample = sample("/");
            shelf.put(resident(&sample, now, shelf.limit()), now, Clock::system());
            assert!(shelf.get(&sample.key).is_some(), "{capacity}");
        }
    }

    #[test]
    fn the_books_agree_with_the_map_whatever_is_put_replaced_evicted_and_expires() {
        let shelf = Shelf::new(1 << 20);
        let start = Instant::now();
        let clock = Clock::system();
        let mut random = 1_u64;
        for n in 0..100_000_u64 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let [path, language, lasts, weight] = [33, 41, 47, 53].map(|shift| random >> shift);
            let sample = sample(&format!("/{}", path % 500))
                .asked_with("accept-language", ["en", "de", "fr"][language as usize % 3])
                .field("vary", b"accept-language");
            let now = start + Duration::from_millis(n);
            let expires = now + Duration::from_millis(lasts % 2_000);
            let newcomer = resident(&sample, expires, 1 + weight % shelf.limit());
            let response = Arc::clone(&newcomer.response);
            shelf.put(newcomer, now, clock.clone());
            if n % 7 == 0 {
                shelf.remove(response.key(), |held| std::ptr::eq(held, &*response));
            }
            assert!(shelf.map.weight() <= shelf.map.capacity());
            if n % 1_000 == 0 {
                audit(&shelf);
            }
        }
        audit(&shelf);
    }

    #[test]
    fn what_the_map_does_not_admit_is_not_in_the_books() {
        let shelf = Shelf::new(1 << 20);
        let sample = sample("/");
        let large = Arc::new(resident(&sample, Instant::now(), 1 << 30));
        let departed = shelf.edit(&mut shelf.books.lock(), &sample.key, |variants| {
            variants.push(large);
        });
        assert_eq!(departed.len(), 1);
        audit(&shelf);
    }

    #[test]
    fn only_the_response_given_is_removed() {
        let shelf = Shelf::new(1 << 20);
        let now = Instant::now();
        let sample = sample("/");
        let older = resident(&sample, now, 1);
        let response = Arc::clone(&older.response);
        shelf.put(older, now, Clock::system());
        shelf.put(resident(&sample, now, 1), now, Clock::system());
        shelf.remove(response.key(), |held| std::ptr::eq(held, &*response));
        assert!(shelf.get(&sample.key).is_some(), "the newer stays");
        audit(&shelf);
    }
}
