//! One suite of checks for every [`Store`].
//!
//! Each duty of the trait's documentation is checked but one, that every wait is bounded while the
//! store is away: only the store's own tests can take its server from it. While the server is there,
//! a call that takes longer than ten seconds fails the suite.
//!
//! A store runs the suite in a test of its own, on a Tokio runtime with several threads, so that
//! calls meet:
//!
//! ```
//! use std::sync::Arc;
//! use tower_response_cache::store::{MemoryStore, conformance};
//!
//! let runtime = tokio::runtime::Runtime::new()?;
//! runtime.block_on(conformance::run(Arc::new(MemoryStore::new(64 << 20))));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Each run works in namespaces of its own, so the store need not be empty, and may be one that
//! others use. It needs room for a few megabytes.

mod claims;
mod concurrency;
mod content;
mod epochs;
mod keys;
pub(crate) mod sample;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::sample::Sample;
use super::{Claim, Fill, Kept, Outcome, Store, Wanted};
use crate::clock::Clock;
use crate::entry::StoredResponse;
use crate::epoch::{Captured, Scope, Stamp};
use crate::error::Error;
use crate::key::Namespace;
use crate::rules::Tier;

/// Checks that a store does what [`Store`] demands.
///
/// # Panics
///
/// When it does not, or a call fails or takes longer than ten seconds; the message says what was
/// expected. Also outside of a Tokio runtime with time.
pub async fn run(store: Arc<dyn Store>) {
    run_in(store, None).await;
}

/// Checks that a store does so for responses that are confined to one of its tiers.
pub(super) async fn run_in(store: Arc<dyn Store>, tier: Option<Tier>) {
    let trial = || Trial::new(Arc::clone(&store), tier);

    keys::a_response_is_found_under_an_equal_key_only(trial()).await;
    keys::keys_that_share_much_are_kept_apart(trial()).await;
    keys::namespaces_are_kept_apart(trial()).await;
    keys::variants_are_selected_by_nominated_fields(trial()).await;
    keys::a_variant_is_replaced_by_its_newer_self_alone(trial()).await;
    keys::of_a_thousand_variants_few_are_kept(trial()).await;
    keys::remove_drops_the_one_response_if_it_is_held(trial()).await;

    content::bodies_come_back_byte_for_byte(trial()).await;
    content::fields_come_back_as_they_were(trial()).await;
    content::trailers_come_back(trial()).await;
    content::the_terms_and_the_age_come_back(trial()).await;

    epochs::what_is_stored_stands_under_all_its_scopes(trial()).await;
    epochs::an_invalidated_scope_hides_what_was_stored(trial()).await;
    epochs::an_invalidation_hides_nothing_else(trial()).await;
    epochs::a_fill_overtaken_by_an_invalidation_is_never_read(trial()).await;
    epochs::an_invalidated_epoch_never_comes_back(trial()).await;
    epochs::what_a_look_up_captured_is_as_good(trial()).await;
    epochs::an_epoch_the_store_never_gave_is_not_current(trial()).await;
    epochs::invalidation_may_be_repeated_and_may_find_nothing(trial()).await;
    epochs::renewing_hides_what_was_stored_and_what_was_under_way(trial()).await;
    epochs::what_a_renewal_returns_is_overtaken_by_nothing(trial()).await;
    epochs::a_late_tag_joins_if_it_was_not_invalidated_since(trial()).await;
    epochs::a_late_tag_invalidated_meanwhile_is_never_read(trial()).await;
    epochs::what_is_admitted_stands_under_all_its_scopes(trial()).await;

    claims::a_claim_captures_as_well_as_a_capture(trial()).await;
    claims::a_released_claim_ends_the_wait_for_it(trial()).await;
    claims::nobody_waits_for_what_is_uncacheable(trial()).await;

    concurrency::a_dropped_future_leaves_a_readable_store(trial()).await;
    concurrency::an_invalidation_that_was_dropped_can_be_repeated(trial()).await;
    concurrency::tasks_do_not_disturb_each_other(trial()).await;
    concurrency::no_reader_sees_what_is_older_than_an_invalidation(trial()).await;

    store
        .check()
        .await
        .expect("a store that served answers its check");
}

/// A store and a namespace in it that nothing else uses.
#[derive(Clone, Debug)]
struct Trial {
    store: Arc<dyn Store>,
    namespace: Namespace,
    tier: Option<Tier>,
    clock: Clock,
}

impl Trial {
    fn new(store: Arc<dyn Store>, tier: Option<Tier>) -> Self {
        let number = getrandom::u64().expect("the system has random numbers");
        Self {
            store,
            namespace: format!("conformance-{number:016x}")
                .parse()
                .expect("the name is within the grammar"),
            tier,
            clock: Clock::system(),
        }
    }

    fn sample(&self, path: &str) -> Sample {
        Sample::new(&self.namespace, path)
    }

    fn tag(&self, name: &str) -> Scope {
        Scope::tag(self.namespace.as_str(), name.as_bytes())
    }

    async fn capture(&self, scopes: &[Scope]) -> Captured {
        within_limits(self.store.capture(&self.namespace, scopes)).await
    }

    async fn claim(&self, sample: &Sample, captured: Option<Captured>) -> (Captured, Claim) {
        let scopes = sample.scopes();
        within_limits(self.store.claim(self.wanted(sample), &scopes, captured)).await
    }

    async fn invalidate(&self, scopes: &[Scope]) {
        within_limits(self.store.invalidate(&self.namespace, scopes)).await;
    }

    async fn renew(&self, scope: Scope, captured: Captured) -> Option<Captured> {
        within_limits(self.store.renew(&self.namespace, scope, captured)).await
    }

    async fn put(&self, sample: &Sample, captured: Captured, late: &[Scope]) -> Kept {
        within_limits(self.store.put(self.fill_of(sample, captured, late))).await
    }

    async fn admit(&self, fill: &Fill) -> Option<Stamp> {
        within_limits(self.store.admit(fill)).await
    }

    /// Stores a sample under its own scopes and these tags, as nothing hinders.
    async fn fill(&self, sample: &Sample, tags: &[Scope]) {
        let scopes: Vec<_> = sample
            .scopes()
            .into_iter()
            .chain(tags.iter().copied())
            .collect();
        let captured = self.capture(&scopes).await;
        let kept = self.put(sample, captured, &[]).await;
        assert_eq!(
            kept,
            Kept::Stored,
            "nothing hinders this response: {sample:?}"
        );
    }

    fn fill_of(&self, sample: &Sample, captured: Captured, late: &[Scope]) -> Fill {
        Fill {
            namespace: self.namespace.clone(),
            response: Arc::new(sample.response(&self.clock)),
            captured,
            late: late.into(),
            retain: Duration::from_secs(60),
            tier: self.tier,
            clock: self.clock.clone(),
        }
    }

    fn wanted<'a>(&'a self, sample: &'a Sample) -> Wanted<'a> {
        Wanted {
            namespace: &self.namespace,
            key: &sample.key,
            fields: &sample.request,
            tier: self.tier,
            clock: &self.clock,
        }
    }

    async fn look_up(&self, sample: &Sample) -> Outcome {
        let scopes = sample.scopes();
        let found = within_limits(self.store.lookup(self.wanted(sample), &scopes)).await;
        if let Outcome::Unreachable(error) = found.outcome {
            panic!("no part of the store is away while it is well: {error}");
        }
        found.outcome
    }

    /// Looks a sample up in both ways, for the body of the response found.
    async fn body(&self, sample: &Sample) -> Option<Bytes> {
        let found = body_of(&self.look_up(sample).await);
        if let Some(peeked) = self.store.peek(&self.wanted(sample)) {
            let peeked = body_of(&peeked.outcome);
            assert_eq!(peeked, found, "peek and lookup agree: {sample:?}");
        }
        found
    }

    async fn response(&self, sample: &Sample) -> Arc<StoredResponse> {
        match self.look_up(sample).await {
            Outcome::Response(response) => response,
            other => panic!("{sample:?} is stored, and yet the outcome is {other:?}"),
        }
    }
}

fn body_of(outcome: &Outcome) -> Option<Bytes> {
    match outcome {
        Outcome::Response(response) => Some(response.body().clone()),
        _ => None,
    }
}

async fn within_limits<T>(call: impl Future<Output = Result<T, Error>>) -> T {
    tokio::time::timeout(Duration::from_secs(10), call)
        .await
        .expect("no call takes longer than ten seconds")
        .expect("no call fails while the store is well")
}
