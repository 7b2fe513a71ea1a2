//! Counters: one struct, one method for each event, which also tells `tracing` of it in the same
//! words, and of the key that it is about. A key is only written out if somebody listens.
//!
//! Labels are route patterns, tiers and closed enums of reasons; never a path,
//! a key or a tag, so their number is bounded by the rules.

mod histogram;
mod snapshot;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::histogram::Histogram;
pub use self::snapshot::{Latency, RouteSnapshot, Snapshot, StoreSnapshot};
use crate::reason::{Bypass, Miss, Refusal};

/// The counters of one cache.
#[derive(Debug)]
pub(crate) struct Metrics {
    tier: &'static str,
    tiers: Reasons,
    routes: Box<[Route]>,
    store: StoreCounters,
}

/// The counters of one route pattern; the last one of a cache is for requests without a rule.
#[derive(Debug)]
pub(crate) struct Route {
    pattern: Arc<str>,
    hits: AtomicU64,
    stale_hits: AtomicU64,
    revalidated: AtomicU64,
    collapsed: AtomicU64,
    stored: AtomicU64,
    misses: Reasons,
    bypasses: Reasons,
    refusals: Reasons,
    hit_time: Histogram,
    miss_time: Histogram,
}

#[derive(Debug, Default)]
struct StoreCounters {
    errors: AtomicU64,
    damaged: AtomicU64,
    bytes_stored: AtomicU64,
    bytes_served: AtomicU64,
    invalidations: AtomicU64,
    queued: AtomicU64,
}

/// One counter for each reason of a closed enum, or each name of a few.
#[derive(Debug)]
struct Reasons(Box<[(&'static str, AtomicU64)]>);

impl Metrics {
    /// Makes counters for these patterns and for requests without a rule.
    pub(crate) fn new(tier: &'static str, tiers: &[&'static str], patterns: Vec<Arc<str>>) -> Self {
        let unruled: Arc<str> = Arc::from("(no rule)");
        let routes = patterns
            .into_iter()
            .chain([unruled])
            .map(Route::new)
            .collect();
        Self {
            tier,
            tiers: Reasons::new(tiers.iter().copied()),
            routes,
            store: StoreCounters::default(),
        }
    }

    /// Returns the counters of the route with this index, or those of requests without a rule.
    pub(crate) fn route(&self, index: Option<usize>) -> &Route {
        index
            .and_then(|index| self.routes.get(index))
            .or(self.routes.last())
            .expect("`new` always adds the counters of requests without a rule")
    }

    pub(crate) fn found_in(&self, tier: Option<&'static str>) {
        if let Some(tier) = tier {
            self.tiers.count(tier);
        }
    }

    pub(crate) fn store_failed(&self) {
        count(&self.store.errors);
    }

    pub(crate) fn entry_damaged(&self) {
        count(&self.store.damaged);
    }

    pub(crate) fn invalidated(&self, scopes: usize) {
        add(&self.store.invalidations, scopes);
    }

    pub(crate) fn invalidation_queued(&self) {
        count(&self.store.queued);
    }

    pub(crate) fn body_stored(&self, bytes: usize) {
        add(&self.store.bytes_stored, bytes);
    }

    pub(crate) fn body_served(&self, bytes: u64) {
        self.store.bytes_served.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Reads all counters; each is read once, not all at the same moment.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            routes: self.routes.iter().map(Route::snapshot).collect(),
            store: StoreSnapshot {
                tier: self.tier,
                hits: self.tiers.snapshot(),
                errors: read(&self.store.errors),
                damaged: read(&self.store.damaged),
                bytes_stored: read(&self.store.bytes_stored),
                bytes_served: read(&self.store.bytes_served),
                invalidations: read(&self.store.invalidations),
                invalidations_queued: read(&self.store.queued),
                ..StoreSnapshot::default()
            },
        }
    }
}

impl Route {
    fn new(pattern: Arc<str>) -> Self {
        Self {
            pattern,
            hits: AtomicU64::default(),
            stale_hits: AtomicU64::default(),
            revalidated: AtomicU64::default(),
            collapsed: AtomicU64::default(),
            stored: AtomicU64::default(),
            misses: Reasons::new(Miss::ALL.iter().map(|reason| reason.as_str())),
            bypasses: Reasons::new(Bypass::ALL.iter().map(|reason| reason.as_str())),
            refusals: Reasons::new(Refusal::ALL.iter().map(|reason| reason.as_str())),
            hit_time: Histogram::default(),
            miss_time: Histogram::default(),
        }
    }

    /// Counts a hit, and times one in 16: reading the clock is a good part of a hit's cost.
    pub(crate) fn hit(&self, stale: bool, key: &dyn Debug, took: impl FnOnce() -> Duration) {
        /// One hit in so many is timed, the first being one.
        const TIMED: u64 = 16;

        tracing::trace!(route = %self.pattern, stale, ?key, "hit");
        let hits = if stale { &self.stale_hits } else { &self.hits };
        if hits.fetch_add(1, Ordering::Relaxed) % TIMED == 0 {
            self.hit_time.record(took());
        }
    }

    pub(crate) fn missed(&self, reason: Miss, key: &dyn Debug) {
        tracing::debug!(route = %self.pattern, %reason, ?key, "miss");
        self.misses.count(reason.as_str());
    }

    pub(crate) fn forwarded(&self, took: Duration) {
        self.miss_time.record(took);
    }

    /// Counts a request that passes by; most have no key, so their path is told in its place.
    pub(crate) fn bypassed(&self, reason: Bypass, path: &dyn Debug) {
        tracing::debug!(route = %self.pattern, %reason, key = ?path, "bypass");
        self.bypasses.count(reason.as_str());
    }

    pub(crate) fn revalidated(&self) {
        count(&self.revalidated);
    }

    pub(crate) fn collapsed(&self, key: &dyn Debug) {
        tracing::debug!(route = %self.pattern, ?key, "collapsed");
        count(&self.collapsed);
    }

    pub(crate) fn stored(&self, key: &dyn Debug) {
        tracing::debug!(route = %self.pattern, ?key, "stored");
        count(&self.stored);
    }

    pub(crate) fn refused(&self, reason: Refusal, key: &dyn Debug) {
        tracing::debug!(route = %self.pattern, %reason, ?key, "not stored");
        self.refusals.count(reason.as_str());
    }

    fn snapshot(&self) -> RouteSnapshot {
        RouteSnapshot {
            pattern: Arc::clone(&self.pattern),
            hits: read(&self.hits),
            stale_hits: read(&self.stale_hits),
            revalidated: read(&self.revalidated),
            collapsed: read(&self.collapsed),
            stored: read(&self.stored),
            misses: self.misses.snapshot(),
            bypasses: self.bypasses.snapshot(),
            refusals: self.refusals.snapshot(),
            hit_time: self.hit_time.snapshot(),
            miss_time: self.miss_time.snapshot(),
        }
    }
}

impl Reasons {
    fn new(words: impl Iterator<Item = &'static str>) -> Self {
        Self(words.map(|word| (word, AtomicU64::default())).collect())
    }

    fn count(&self, word: &'static str) {
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == word) {
            count(counter);
        }
    }

    fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        self.0
            .iter()
            .map(|(word, counter)| (*word, read(counter)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

// Counters order nothing: relaxed is enough everywhere.

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_counted_under_its_route_and_reason() {
        let metrics = Metrics::new(
            "tiered",
            &["memory", "redis"],
            vec!["/a".into(), "/b/{id}".into()],
        );
        metrics
            .route(Some(1))
            .hit(false, &"k", || Duration::from_micros(3));
        metrics
            .route(Some(1))
            .hit(true, &"k", || Duration::from_micros(5));
        metrics.found_in(Some("redis"));
        metrics.found_in(None);
        metrics.route(Some(0)).missed(Miss::Stale, &"k");
        metrics.route(None).bypassed(Bypass::Grpc, &"/");
        metrics.route(Some(7)).refused(Refusal::SetCookie, &"k");

        let snapshot = metrics.snapshot();
        assert_eq!(snapshot.route("/b/{id}").unwrap().hits, 1);
        assert_eq!(snapshot.route("/b/{id}").unwrap().stale_hits, 1);
        assert_eq!(snapshot.route("/a").unwrap().misses["stale"], 1);
        let unruled = snapshot.route("(no rule)").unwrap();
        assert_eq!(unruled.bypasses["grpc"], 1);
        assert_eq!(
            unruled.refusals["set-cookie"], 1,
            "an unknown index counts as no rule"
        );
        assert_eq!(snapshot.hits(), 2);
        assert_eq!(snapshot.store.hits, BTreeMap::from([("redis", 1)]));
    }
}
