//! Where law, policy and storage meet.
//!
//! A request is [received](request): passed by, answered from memory at once,
//! [read](reading) first if its content is part of its key, or taken up as an
//! [`Exchange`]. An exchange [looks it up](lookup), has it
//! [decided](decide) what to do, and either [responds](respond) or forwards;
//! requests for the same [collapse](collapse) into one; what comes back is
//! [admitted](admit) or refused, and if admitted
//! [filled](fill) into the store while the client reads it. Unsafe requests are
//! [writes](write), which invalidate.
//!
//! Nothing here knows of services, futures of services or handlers' bodies:
//! that is the middleware's part.

mod admit;
mod ahead;
mod budget;
mod claim;
mod collapse;
mod decide;
mod exchange;
mod fill;
mod forward;
mod interim;
mod lookup;
mod partial;
mod patience;
mod reading;
mod refresh;
mod request;
mod respond;
mod searches;
mod storing;
mod tasks;
mod write;

use std::sync::{Arc, Once};
use std::time::Duration;

use http::Extensions;

use self::collapse::Flights;
pub(crate) use self::collapse::Following;
pub(crate) use self::exchange::{Exchange, Step};
pub(crate) use self::fill::{LONGEST_FETCH, Recorder};
pub(crate) use self::forward::{Arrived, Forward};
pub(crate) use self::reading::Reading;
use self::refresh::Refreshes;
pub(crate) use self::request::{Passage, Reception};
pub(crate) use self::respond::Content;
use self::searches::Searches;
use self::storing::Storing;
use self::tasks::Tasks;
pub(crate) use self::write::Write;
use crate::clock::Clock;
use crate::entry::StoredResponse;
use crate::epoch::{Captured, Scope};
pub(crate) use crate::flight::along::{BoxError, Source};
use crate::invalidation::{Invalidated, Journal};
use crate::key::{KeySpec, Namespace};
use crate::metrics::{self, Metrics, Snapshot};
use crate::rules::{Route, Rules};
use crate::semantics::cache_status::Signature;
use crate::store::Store;

/// One cache: a store, the rules of its use, and what is going on.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) options: Options,
    store: Arc<dyn Store>,
    journal: Arc<Journal>,
    metrics: Metrics,
    pub(crate) tasks: Tasks,
    flights: Arc<Flights>,
    refreshes: Arc<Refreshes>,
    searches: Searches,
    storing: Arc<Storing>,
    /// Done when it has been told that a rule needs a layer that reads content.
    unread: Once,
    /// The scope of the whole namespace, which every stamp holds.
    everything: Scope,
    /// The scope of each route, in their order.
    routes: Box<[Scope]>,
    /// What enters the key of a request without a rule.
    unruled_key: KeySpec,
}

/// What a cache can be told.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) rules: Rules,
    pub(crate) namespace: Namespace,
    pub(crate) clock: Clock,
    /// The longest body that is stored.
    pub(crate) max_body: u64,
    /// The longest header section that is stored.
    pub(crate) max_fields: usize,
    /// The longest content of a request that is part of a key.
    pub(crate) max_content: u64,
    /// Up to this length a body at hand is hashed before its first answer leaves.
    pub(crate) hash_ahead: u64,
    /// How this cache signs `Cache-Status`. No two share one that sign otherwise.
    pub(crate) signature: Arc<Signature>,
    pub(crate) enabled: bool,
    /// How long a request waits for the answer to another.
    pub(crate) collapse_wait: Duration,
    /// How long a request waits for the store before its handler is called or its answer given.
    pub(crate) store_wait: Duration,
    /// How long the answer to a write waits for what it invalidates.
    pub(crate) invalidation_wait: Duration,
    /// How long after an invalidation it is repeated.
    pub(crate) repeat_invalidations: Option<Duration>,
    /// The lifetime of responses without a rule that state none.
    pub(crate) default_ttl: Option<Duration>,
    /// Take out of a request's extensions what a refresh must not have.
    pub(crate) refresh_without: Vec<fn(&mut Extensions)>,
}

impl Options {
    /// 1 MiB, as Redis answers well (values beyond are better kept elsewhere).
    pub(crate) const MAX_BODY: u64 = 1 << 20;
    pub(crate) const MAX_FIELDS: usize = 64 << 10;
    pub(crate) const MAX_CONTENT: u64 = 64 << 10;
    pub(crate) const HASH_AHEAD: u64 = 64 << 10;
    pub(crate) const COLLAPSE_WAIT: Duration = Duration::from_secs(5);
    pub(crate) const STORE_WAIT: Duration = Duration::from_millis(150);
    pub(crate) const INVALIDATION_WAIT: Duration = Duration::from_secs(1);
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            namespace: Namespace::default(),
            clock: Clock::system(),
            max_body: Self::MAX_BODY,
            max_fields: Self::MAX_FIELDS,
            max_content: Self::MAX_CONTENT,
            hash_ahead: Self::HASH_AHEAD,
            collapse_wait: Self::COLLAPSE_WAIT,
            store_wait: Self::STORE_WAIT,
            invalidation_wait: Self::INVALIDATION_WAIT,
            signature: Arc::default(),
            enabled: true,
            repeat_invalidations: None,
            default_ttl: None,
            refresh_without: Vec::new(),
        }
    }
}

impl Engine {
    pub(crate) fn new(store: Arc<dyn Store>, options: Options) -> Self {
        let journal = Journal::new(
            options.namespace.clone(),
            Arc::clone(&store),
            options.clock.clone(),
            options.repeat_invalidations,
        );
        let namespace = options.namespace.as_str();
        let patterns = options.rules.patterns();
        let routes = patterns.iter().map(|text| Scope::route(namespace, text));
        Self {
            routes: routes.collect(),
            metrics: Metrics::new(store.name(), store.tiers(), patterns),
            unruled_key: KeySpec::default(),
            everything: Scope::namespace(options.namespace.as_str()),
            journal: Arc::new(journal),
            tasks: Tasks::default(),
            flights: Flights::new(collapse::limits(options.collapse_wait)),
            refreshes: Refreshes::new(options.clock.clone()),
            searches: Searches::default(),
            storing: Arc::default(),
            unread: Once::new(),
            options,
            store,
        }
    }

    /// Returns the cache with other options, and with no memory of what it counted.
    pub(crate) fn reconfigured(&self, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = self.options.clone();
        change(&mut options);
        Self::new(Arc::clone(&self.store), options)
    }

    /// Returns the store.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Invalidates `scopes`, here at once and in the store as soon as it can be reached.
    ///
    /// When the caller goes away in the middle, the rest happens in the background.
    pub(crate) async fn invalidate(&self, scopes: &[Scope]) -> Invalidated {
        /// Sees to it that nothing that is pending is forgotten, and that whoever comes from here on
        /// does not get what was asked for before.
        struct Invalidating<'a>(&'a Engine, &'a [Scope]);

        impl Drop for Invalidating<'_> {
            fn drop(&mut self) {
                let Self(engine, scopes) = self;
                engine.part_ways(scopes);
                engine.deliver();
            }
        }

        self.metrics.invalidated(scopes.len());
        let told = self.journal.invalidate(scopes);
        self.part_ways(scopes);
        let _invalidating = Invalidating(self, scopes);
        let outcome = told.await;
        if outcome == Invalidated::Queued {
            self.metrics.invalidation_queued();
        }
        outcome
    }

    /// Invalidates `scope`, and returns what was captured before with its next epoch, unless another
    /// invalidation has come between.
    ///
    /// When the caller goes away in the middle, nothing is certain.
    async fn renew(&self, scope: Scope, captured: Captured) -> Option<Captured> {
        let namespace = &self.options.namespace;
        let generation = self.journal.generation();
        match self.store.renew(namespace, scope, captured).await {
            Ok(renewed) => {
                self.journal.note_told(scope, generation);
                self.deliver();
                self.metrics.invalidated(1);
                self.part_ways(&[scope]);
                renewed
            }
            Err(error) => {
                tracing::debug!(%error, operation = "renew", "store failed");
                let _ = self.invalidate(&[scope]).await;
                None
            }
        }
    }

    /// Waits until what has been invalidated so far is served by no process any more.
    pub(crate) async fn barrier(&self) {
        self.journal.delivered().await;
        let staleness = self.store.staleness();
        if staleness > Duration::ZERO {
            tokio::time::sleep(staleness).await;
        }
    }

    /// Returns the counters of a route, or of requests without a rule.
    fn counters(&self, route: Option<&Route>) -> &metrics::Route {
        self.metrics.route(route.map(|route| route.index))
    }

    /// Reads all counters.
    pub(crate) fn stats(&self) -> Snapshot {
        let mut snapshot = self.metrics.snapshot();
        let usage = self.store.usage();
        snapshot.store.responses = usage.responses;
        snapshot.store.bytes = usage.bytes;
        snapshot.store.capacity = usage.capacity;
        snapshot.store.invalidations_pending =
            u64::try_from(self.invalidations_pending()).unwrap_or(u64::MAX);
        snapshot
    }

    /// Returns how many scopes the store has not been told of yet.
    pub(crate) fn invalidations_pending(&self) -> usize {
        self.journal.len()
    }

    /// Finishes what is being stored, within `limit`, and closes the store.
    ///
    /// Returns whether everything was finished.
    pub(crate) async fn shutdown(&self, limit: Duration) -> bool {
        let finished = self.tasks.drain(limit).await;
        self.store.close().await;
        finished
    }

    /// Drops a stored response that has been shown to be of no more use.
    fn discard(self: &Arc<Self>, stored: &Arc<StoredResponse>) {
        let (engine, stored) = (Arc::clone(self), Arc::clone(stored));
        self.tasks.finish(async move {
            if engine.store.remove(&stored).await.is_err() {
                engine.metrics.store_failed();
            }
        });
    }

    fn deliver(&self) {
        if let Some(delivery) = self.journal.begin_delivery() {
            self.tasks.spawn_aside(delivery.run());
        }
    }
}
