//! The store within the process.
//!
//! The [`shelf`] holds what is stored, as [`group`]s of variants, within its bounds of bytes and
//! time. The [`epochs`] know what has been invalidated. They meet in the standing of each stored
//! response, which a hit asks and an invalidation ends; neither waits for the other.

mod epochs;
mod group;
mod shelf;

use std::fmt;
use std::future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use self::epochs::Epochs;
use self::group::MAX_VARIANTS;
pub(super) use self::group::Resident;
use self::shelf::Shelf;
use super::{BoxFuture, Fill, Found, Kept, Outcome, Store, Usage, Wanted};
use crate::clock::Clock;
use crate::entry::StoredResponse;
use crate::epoch::{Captured, Epoch, Scope, Stamp};
use crate::error::Error;
use crate::key::Namespace;

/// Longer than this nothing is retained; what is not used is evicted long before.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Keeps stored responses in the memory of this process.
///
/// It holds the given number of bytes and never more: bodies, fields and keys, with an allowance
/// for the rest. What is used least makes way, and what has expired goes by itself. The responses
/// under one key may take an eighth of the capacity, at most 16 MiB; a larger one is not stored.
///
/// Clones share what is stored. Nothing here waits: each future is ready when it is first polled.
///
/// # Examples
///
/// ```
/// use tower_response_cache::store::{MemoryStore, Store};
///
/// let store = MemoryStore::new(64 << 20);
/// assert_eq!(store.usage().capacity, 64 << 20);
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    shelf: Arc<Shelf>,
    epochs: Arc<Epochs>,
}

impl MemoryStore {
    /// Makes a store that holds at most this many bytes.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        Self {
            shelf: Arc::new(Shelf::new(capacity_bytes)),
            epochs: Arc::new(Epochs::new()),
        }
    }

    fn find(&self, wanted: &Wanted<'_>) -> Outcome {
        let response = |resident: &Arc<Resident>| Arc::clone(&resident.response);
        match self.read(wanted, response) {
            Ok(response) => Outcome::Response(response),
            Err(outcome) => outcome,
        }
    }

    /// Returns what is to be known of the wanted response, or why there is none.
    pub(super) fn read<T>(
        &self,
        wanted: &Wanted<'_>,
        known: impl FnOnce(&Arc<Resident>) -> T,
    ) -> Result<T, Outcome> {
        let Some(group) = self.shelf.get(wanted.key) else {
            return Err(Outcome::Absent);
        };
        if let [only] = group.variants.as_slice()
            && only.response.answers_all()
            && only.standing.is_current()
        {
            return Ok(known(only));
        }
        // Each standing is read once: it may end at any time, and places must not shift.
        let current: SmallVec<[&Arc<Resident>; MAX_VARIANTS]> = group
            .variants
            .iter()
            .filter(|variant| variant.standing.is_current())
            .collect();
        if current.len() < group.variants.len() {
            self.shelf.tidy(wanted.key);
        }
        if current.is_empty() {
            return Err(Outcome::Invalidated);
        }
        let responses = current.iter().map(|variant| &variant.response);
        let candidates = responses.clone().map(|response| &**response);
        let selected = StoredResponse::select(candidates, wanted.fields);
        match selected.and_then(|place| current.get(place)) {
            Some(resident) => Ok(known(resident)),
            None => Err(Outcome::OtherVariants(responses.cloned().collect())),
        }
    }

    pub(super) fn keep(&self, fill: Fill) -> Kept {
        let Some(stamp) = stamp_of(fill.captured, &fill.late) else {
            return Kept::Invalidated;
        };
        let Some(standing) = self.epochs.admit(&stamp) else {
            return Kept::Invalidated;
        };
        let now = fill.clock.now();
        let expires = now + fill.retain.min(LONGEST);
        let response = fill.response.stamped(stamp);
        let resident = Resident::new(response, standing, expires, expires);
        self.shelve(resident, now, fill.clock)
    }

    /// Returns the present by this store's reckoning, for [`hold`](Self::hold).
    pub(super) fn moment(&self) -> Epoch {
        self.epochs.moment()
    }

    /// Keeps what another store keeps, under the stamp that it has there, unless one of its scopes
    /// has been invalidated here since `moment`.
    ///
    /// Until `trusted` it may be served though the other store cannot say that it is current.
    pub(super) fn hold(
        &self,
        response: Arc<StoredResponse>,
        moment: Epoch,
        expires: Instant,
        trusted: Instant,
        clock: &Clock,
    ) -> Kept {
        let scopes = response.stamp().iter().map(|(scope, _)| scope);
        let stamp = scopes.map(|scope| (scope, moment)).collect();
        let Some(standing) = self.epochs.admit(&stamp) else {
            return Kept::Invalidated;
        };
        let resident = Resident::new(response, standing, expires, trusted);
        self.shelve(resident, clock.now(), clock.clone())
    }

    /// Ends the use of all that stands under one of `scopes`.
    pub(super) fn forget(&self, scopes: &[Scope]) {
        self.epochs.invalidate(scopes);
    }

    /// Drops this response, if a newer one has not taken its place.
    pub(super) fn discard(&self, response: &StoredResponse) {
        // Not the same place in memory: another store may hold a copy.
        let is_it = |held: &StoredResponse| {
            held.received == response.received && held.is_same_variant(response)
        };
        self.shelf.remove(response.key(), is_it);
    }

    /// Drops the response that answers the same requests.
    pub(super) fn supersede(&self, response: &StoredResponse) {
        let is_older = |held: &StoredResponse| held.is_same_variant(response);
        self.shelf.remove(response.key(), is_older);
    }

    fn shelve(&self, resident: Resident, now: Instant, clock: Clock) -> Kept {
        if resident.weight > self.shelf.limit() {
            return Kept::TooLarge;
        }
        self.shelf.put(resident, now, clock);
        Kept::Stored
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn peek(&self, wanted: &Wanted<'_>) -> Option<Found> {
        Some(Found {
            outcome: self.find(wanted),
            ..Found::default()
        })
    }

    fn lookup<'a>(
        &'a self,
        wanted: Wanted<'a>,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Found, Error>> {
        ready(Found {
            captured: Some(self.epochs.capture(scopes)),
            outcome: self.find(&wanted),
            tier: None,
        })
    }

    fn capture<'a>(
        &'a self,
        _namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Captured, Error>> {
        ready(self.epochs.capture(scopes))
    }

    fn put<'a>(&'a self, fill: Fill) -> BoxFuture<'a, Result<Kept, Error>> {
        ready(self.keep(fill))
    }

    fn admit<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Option<Stamp>, Error>> {
        let stamp = stamp_of(fill.captured.clone(), &fill.late);
        ready(stamp.filter(|stamp| self.epochs.are_current(stamp)))
    }

    fn invalidate<'a>(
        &'a self,
        _namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.forget(scopes);
        ready(())
    }

    fn vouches_for(&self, stamp: &Stamp) -> bool {
        self.epochs.are_current(stamp)
    }

    fn renew<'a>(
        &'a self,
        _namespace: &'a Namespace,
        scope: Scope,
        mut captured: Captured,
    ) -> BoxFuture<'a, Result<Option<Captured>, Error>> {
        let renewed = captured
            .stamp
            .get(scope)
            .and_then(|epoch| self.epochs.renew(scope, epoch));
        ready(renewed.map(|epoch| {
            captured.stamp.replace(scope, epoch);
            captured
        }))
    }

    fn remove<'a>(&'a self, response: &'a StoredResponse) -> BoxFuture<'a, Result<(), Error>> {
        self.discard(response);
        ready(())
    }

    fn usage(&self) -> Usage {
        self.shelf.usage()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// Returns the stamp of a response that names further scopes itself: they are as they were when the
/// others were captured.
fn stamp_of(captured: Captured, late: &[Scope]) -> Option<Stamp> {
    let moment = Epoch::new(captured.moment)?;
    let mut stamp = captured.stamp;
    for scope in late {
        stamp.push(*scope, moment);
    }
    Some(stamp)
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, Result<T, Error>> {
    Box::pin(future::ready(Ok(value)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::thread;

    use bytes::Bytes;

    use super::*;
    use crate::clock::ManualClock;
    use crate::store::conformance;
    use crate::store::conformance::sample::Sample;

    /// A store, and how the tests speak to it: by the trait, without a runtime.
    #[derive(Clone)]
    struct Desk {
        store: MemoryStore,
        namespace: Namespace,
        clock: Clock,
        retain: Duration,
    }

    impl Desk {
        fn new(capacity: u64) -> Self {
            Self {
                store: MemoryStore::new(capacity),
                namespace: Namespace::default(),
                clock: Clock::system(),
                retain: Duration::from_secs(60),
            }
        }

        fn sample(&self, path: &str) -> Sample {
            Sample::new(&self.namespace, path)
        }

        fn capture(&self, scopes: &[Scope]) -> Captured {
            now(self.store.capture(&self.namespace, scopes))
        }

        fn put(&self, sample: &Sample, captured: Captured, late: &[Scope]) -> Kept {
            now(self.store.put(Fill {
                namespace: self.namespace.clone(),
                response: Arc::new(sample.response(&self.clock)),
                captured,
                late: late.into(),
                retain: self.retain,
                tier: None,
                clock: self.clock.clone(),
            }))
        }

        fn fill(&self, sample: &Sample) -> Kept {
            self.put(sample, self.capture(&sample.scopes()), &[])
        }

        fn invalidate(&self, scopes: &[Scope]) {
            now(self.store.invalidate(&self.namespace, scopes));
        }

        fn find(&self, sample: &Sample) -> Outcome {
            let wanted = Wanted {
                namespace: &self.namespace,
                key: &sample.key,
                fields: &sample.request,
                tier: None,
                clock: &self.clock,
            };
            self.store.peek(&wanted).expect("a peek tells all").outcome
        }

        fn body(&self, sample: &Sample) -> Option<Bytes> {
            match self.find(sample) {
                Outcome::Response(response) => Some(response.body().clone()),
                _ => None,
            }
        }

        fn responses(&self) -> u64 {
            self.store.usage().responses
        }
    }

    /// Takes the value of a future that is ready at once.
    fn now<T>(mut call: BoxFuture<'_, Result<T, Error>>) -> T {
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value.expect("memory does not fail"),
            Poll::Pending => panic!("nothing here waits"),
        }
    }

    /// Pseudo-random numbers, the same in each run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_store_conforms() {
        conformance::run(Arc::new(MemoryStore::new(64 << 20))).await;
    }

    #[test]
    fn what_was_invalidated_is_dropped_when_it_is_asked_for() {
        let desk = Desk::new(1 << 20);
        let sample = desk.sample("/");
        desk.fill(&sample);
        desk.invalidate(&sample.scopes());
        assert_eq!(desk.responses(), 1);
        assert!(matches!(desk.find(&sample), Outcome::Invalidated));
        assert_eq!(desk.responses(), 0);
        assert!(matches!(desk.find(&sample), Outcome::Absent));
    }

    #[test]
    fn an_invalidated_variant_leaves_the_others_in_their_places() {
        let desk = Desk::new(1 << 20);
        let variant = |language: &'static str| {
            desk.sample("/")
                .asked_with("accept-language", language)
                .field("vary", b"accept-language")
                .body(language)
        };
        let tag = Scope::tag("default", b"t");
        let [english, german] = ["en", "de"].map(variant);
        desk.put(&english, desk.capture(&english.scopes()), &[tag]);
        desk.fill(&german);
        desk.invalidate(&[tag]);
        match desk.find(&english) {
            Outcome::OtherVariants(others) => {
                assert_eq!(others.len(), 1);
                assert_eq!(others[0].body(), "de");
            }
            outcome => panic!("the English one is invalidated: {outcome:?}"),
        }
        assert_eq!(desk.body(&german), Some("de".into()));
        assert_eq!(desk.responses(), 1);
    }

    #[test]
    fn of_33_variants_the_oldest_makes_way() {
        let desk = Desk::new(1 << 20);
        let variants: Vec<_> = (0..33)
            .map(|n| {
                let value = n.to_string();
                desk.sample("/")
                    .asked_with("x-n", &value)
                    .field("vary", b"x-n")
                    .body(value)
            })
            .collect();
        for variant in &variants {
            assert_eq!(desk.fill(variant), Kept::Stored);
        }
        assert_eq!(desk.responses(), 32);
        match desk.find(&variants[0]) {
            Outcome::OtherVariants(others) => assert_eq!(others.len(), 32),
            outcome => panic!("the first is gone: {outcome:?}"),
        }
        for (n, variant) in variants.iter().enumerate().skip(1) {
            assert_eq!(desk.body(variant), Some(n.to_string().into()));
        }
    }

    #[test]
    fn a_response_over_an_eighth_of_the_capacity_is_too_large() {
        let desk = Desk::new(80_000);
        let of = |length| desk.sample("/").body(vec![0; length]);
        assert_eq!(desk.fill(&of(10_000)), Kept::TooLarge);
        assert_eq!(desk.fill(&of(8_000)), Kept::Stored);
        assert_eq!(desk.body(&of(0)).map(|body| body.len()), Some(8_000));
        assert_eq!(Desk::new(0).fill(&of(0)), Kept::TooLarge);
    }

    #[test]
    fn memory_stays_within_its_bound_under_100_000_puts() {
        let desk = Desk::new(4 << 20);
        let mut random = Random(1);
        for n in 0..100_000 {
            let magnitude = random.below(19);
            let length = random.below(1 << magnitude) as usize;
            let path = format!("/{}", random.below(2_000));
            desk.fill(&desk.sample(&path).body(vec![0; length]));
            if n % 100 == 0 {
                let usage = desk.store.usage();
                assert!(usage.bytes <= usage.capacity, "{usage:?}");
            }
        }
        let usage = desk.store.usage();
        assert!(usage.bytes > usage.capacity / 2, "and uses it: {usage:?}");
    }

    #[test]
    fn what_has_expired_is_freed() {
        let hands = ManualClock::new();
        let mut desk = Desk::new(16 << 20);
        desk.clock = hands.clock();
        for n in 0..1_000 {
            desk.retain = Duration::from_secs(if n % 2 == 0 { 10 } else { 100 });
            desk.fill(&desk.sample(&format!("/{n}")));
        }
        let full = desk.store.usage();
        assert_eq!(full.responses, 1_000);

        hands.advance(Duration::from_secs(10));
        let left: Vec<_> = (0..40).map(|_| desk.responses()).collect();
        assert!(
            left[0] > 900 && left[39] == 500,
            "usage frees a little at a time: {left:?}"
        );
        assert!(desk.store.usage().bytes <= full.bytes / 2);

        hands.advance(Duration::from_secs(90));
        for n in 0..40 {
            desk.fill(&desk.sample(&format!("/new/{n}")));
        }
        assert_eq!(desk.responses(), 40, "so does each put");
    }

    #[test]
    fn a_replaced_response_expires_when_its_successor_does() {
        let hands = ManualClock::new();
        let mut desk = Desk::new(1 << 20);
        desk.clock = hands.clock();
        let sample = desk.sample("/");
        desk.retain = Duration::from_secs(1);
        desk.fill(&sample);
        desk.retain = Duration::MAX;
        desk.fill(&sample);
        hands.advance(Duration::from_secs(1_000));
        assert_eq!(desk.responses(), 1);
    }

    #[test]
    fn what_is_popular_survives_a_flood() {
        let desk = Desk::new(4 << 20);
        let popular: Vec<_> = (0..20)
            .map(|n| desk.sample(&format!("/popular/{n}")))
            .collect();
        for sample in &popular {
            desk.fill(sample);
        }
        for n in 0..20_000 {
            desk.fill(&desk.sample(&format!("/once/{n}")).body(vec![0; 1_000]));
            desk.find(&popular[n % popular.len()]);
        }
        assert!(popular.iter().all(|sample| desk.body(sample).is_some()));
    }

    #[test]
    fn nothing_invalidated_is_returned_in_100_000_random_steps() {
        const PATHS: u64 = 20;
        const TAGS: u64 = 10;
        let desk = Desk::new(1 << 20);
        let samples: Vec<_> = (0..PATHS).map(|n| desk.sample(&format!("/{n}"))).collect();
        let tags: Vec<_> = (0..TAGS)
            .map(|n| Scope::tag("default", &[n as u8]))
            .collect();
        let mut random = Random(7);
        // The step of each scope's last invalidation; a body tells the step of its capture.
        let mut invalidated = std::collections::HashMap::<Scope, u64>::new();
        let mut flying = Vec::new();
        let mut hits = 0;
        for step in 1..=100_000_u64 {
            let sample = &samples[random.below(PATHS) as usize];
            let tag = tags[random.below(TAGS) as usize];
            match random.below(8) {
                0..3 => {
                    let known: Vec<_> = sample.scopes().into_iter().chain([tag]).collect();
                    flying.push((sample, step, desk.capture(&known)));
                }
                3..6 if !flying.is_empty() => {
                    let place = random.below(flying.len() as u64) as usize;
                    let (sample, captured_at, captured) = flying.swap_remove(place);
                    let sample = sample.clone().body(captured_at.to_string());
                    desk.put(&sample, captured, &[tag]);
                }
                6 => {
                    let kind = [
                        sample.scopes()[2],
                        tag,
                        tag,
                        sample.scopes()[step as usize % 2],
                    ];
                    // Rarely the widest, or little would ever be found.
                    let kinds = if random.below(50) == 0 { 4 } else { 2 };
                    let scope = kind[random.below(kinds) as usize];
                    desk.invalidate(&[scope]);
                    invalidated.insert(scope, step);
                }
                _ => {}
            }
            if let Outcome::Response(response) = desk.find(sample) {
                let captured_at: u64 = std::str::from_utf8(response.body())
                    .unwrap()
                    .parse()
                    .unwrap();
                for (scope, _) in response.stamp().iter() {
                    let last = invalidated.get(&scope).copied().unwrap_or(0);
                    assert!(
                        last < captured_at,
                        "{scope:?} at {last}, captured at {captured_at}"
                    );
                }
                hits += 1;
            }
        }
        assert!(hits > 10_000, "the test finds something: {hits}");
    }

    #[test]
    fn after_an_invalidation_no_thread_reads_an_older_version() {
        let desk = Desk::new(1 << 20);
        let version = AtomicU64::new(1);
        let tag = Scope::tag("default", b"late");
        let hits = AtomicU64::new(0);
        thread::scope(|threads| {
            for n in 0..8 {
                let (desk, version, hits) = (desk.clone(), &version, &hits);
                threads.spawn(move || {
                    let sample = desk.sample("/shared");
                    let mut random = Random(n + 1);
                    let mut newest = 0;
                    for _ in 0..20_000 {
                        match random.below(8) {
                            0 => {
                                newest = version.fetch_add(1, Ordering::Relaxed) + 1;
                                let scope = [tag, sample.scopes()[random.below(3) as usize]];
                                desk.invalidate(&scope[random.below(2) as usize..][..1]);
                            }
                            1..4 => {
                                let captured = desk.capture(&sample.scopes());
                                let read = version.load(Ordering::Relaxed);
                                if random.below(4) == 0 {
                                    thread::yield_now();
                                }
                                desk.put(&sample.clone().body(read.to_string()), captured, &[tag]);
                            }
                            _ => {}
                        }
                        if let Some(body) = desk.body(&sample) {
                            let seen = std::str::from_utf8(&body).unwrap().parse().unwrap();
                            assert!(newest <= seen, "{seen} after {newest} was announced");
                            hits.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(hits.into_inner() > 1_000, "the test finds something");
    }
}
