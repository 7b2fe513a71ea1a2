//! What the counters said at one time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// All counters of a cache, as the handle returns them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Snapshot {
    /// One for each route pattern of the rules, and last one for requests that no rule matched.
    pub routes: Vec<RouteSnapshot>,
    /// What concerns the store and not one route.
    pub store: StoreSnapshot,
}

/// The counters of one route pattern.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RouteSnapshot {
    /// The pattern, or `(no rule)`.
    pub pattern: Arc<str>,
    /// Fresh answers from the store.
    pub hits: u64,
    /// Stale answers from the store.
    pub stale_hits: u64,
    /// Stored responses that the handler confirmed with a 304.
    pub revalidated: u64,
    /// Misses that were answered by what the handler said to another request.
    pub collapsed: u64,
    /// Responses stored.
    pub stored: u64,
    /// Requests that were forwarded after the store was asked, by [`Miss`](crate::reason::Miss).
    pub misses: BTreeMap<&'static str, u64>,
    /// Requests for which the store was not asked, by [`Bypass`](crate::reason::Bypass).
    pub bypasses: BTreeMap<&'static str, u64>,
    /// Responses that were not stored, by [`Refusal`](crate::reason::Refusal).
    pub refusals: BTreeMap<&'static str, u64>,
    /// Time from the request's arrival to the answer's head, on one hit in 16.
    pub hit_time: Latency,
    /// The same on misses, the handler's time included.
    pub miss_time: Latency,
}

/// The counters of the store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreSnapshot {
    /// The store's name: `memory`, `redis`, `tiered`.
    pub tier: &'static str,
    /// Answers from the store by the tier that had them, where it has several.
    pub hits: BTreeMap<&'static str, u64>,
    /// Calls that failed or came too late.
    pub errors: u64,
    /// Stored responses that were found damaged.
    pub damaged: u64,
    /// Bytes of bodies stored.
    pub bytes_stored: u64,
    /// Bytes of bodies served from the store.
    pub bytes_served: u64,
    /// Scopes invalidated.
    pub invalidations: u64,
    /// Invalidations that could not be delivered at once.
    pub invalidations_queued: u64,
    /// Invalidations that are still waiting to be delivered.
    pub invalidations_pending: u64,
    /// Stored responses held in this process.
    pub responses: u64,
    /// Bytes held in this process.
    pub bytes: u64,
    /// The most bytes that this process will hold.
    pub capacity: u64,
}

/// How long something took, as counts by powers of two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// `buckets[i]` counts durations under 2^i µs that the bucket before does not count.
    pub buckets: Vec<u64>,
    /// The sum of all durations.
    pub total: Duration,
}

impl Snapshot {
    /// Returns the counters of a route pattern.
    pub fn route(&self, pattern: &str) -> Option<&RouteSnapshot> {
        self.routes.iter().find(|route| &*route.pattern == pattern)
    }

    /// Returns the answers from the store on all routes, fresh and stale.
    pub fn hits(&self) -> u64 {
        self.routes
            .iter()
            .map(|route| route.hits + route.stale_hits)
            .sum()
    }

    /// Returns the misses on all routes, for all reasons.
    pub fn misses(&self) -> u64 {
        self.routes
            .iter()
            .flat_map(|route| route.misses.values())
            .sum()
    }

    /// Returns the bypasses on all routes, for all reasons.
    pub fn bypasses(&self) -> u64 {
        self.routes
            .iter()
            .flat_map(|route| route.bypasses.values())
            .sum()
    }

    /// Returns the responses stored on all routes.
    pub fn stored(&self) -> u64 {
        self.routes.iter().map(|route| route.stored).sum()
    }
}

impl Latency {
    /// Returns how many durations were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the mean duration; zero if nothing was recorded.
    pub fn mean(&self) -> Duration {
        u32::try_from(self.count())
            .ok()
            .and_then(|count| self.total.checked_div(count))
            .unwrap_or_default()
    }

    /// Returns a duration that the fraction `q` (0.0 to 1.0) of all stayed under, to the next
    /// power of two; zero if nothing was recorded.
    pub fn quantile(&self, q: f64) -> Duration {
        let count = self.count();
        let mut seen = 0;
        for (power, bucket) in self.buckets.iter().enumerate() {
            seen += bucket;
            if *bucket > 0 && seen as f64 >= q.clamp(0.0, 1.0) * count as f64 {
                return Duration::from_micros(1 << power);
            }
        }
        Duration::ZERO
    }
}
