//! The invalidations that the store has not confirmed yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Invalidated;
use crate::epoch::{Scope, Stamp};
use crate::key::Namespace;
use crate::store::Store;

/// More scopes than this wait as one: that of the whole namespace.
const MAX_PENDING: usize = 100_000;
/// How many scopes are told to the store in one call.
const BATCH: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A store that is away fails at once, so asking often costs little, and every moment counts in
/// which another process may still serve what is pending here.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Tells invalidations to a store, and stands in for it until it knows them.
#[derive(Debug)]
pub(crate) struct Journal {
    namespace: Namespace,
    store: Arc<dyn Store>,
    pending: Mutex<Pending>,
    /// How many are pending, so that a hit takes no lock while none is.
    length: AtomicUsize,
}

#[derive(Debug, Default)]
struct Pending {
    /// Each scope with the number of its latest invalidation; copied when it changes under a reader.
    scopes: Arc<HashMap<Scope, u64>>,
    numbers: u64,
    delivering: bool,
}

impl Journal {
    pub(crate) fn new(namespace: Namespace, store: Arc<dyn Store>) -> Self {
        Self {
            namespace,
            store,
            pending: Mutex::default(),
            length: AtomicUsize::new(0),
        }
    }

    /// Returns how many scopes the store has not confirmed.
    pub(crate) fn len(&self) -> usize {
        self.length.load(Ordering::Acquire)
    }

    /// Returns what the store has not confirmed by now.
    pub(crate) fn unconfirmed(&self) -> Unconfirmed {
        let any = self.len() > 0;
        Unconfirmed(any.then(|| Arc::clone(&self.pending.lock().scopes)))
    }

    /// Invalidates `scopes`: here at once, and in the store.
    ///
    /// If the store fails, or the caller goes away in the middle, the scopes stay pending until a
    /// [`Delivery`] has told them.
    pub(crate) async fn invalidate(&self, scopes: &[Scope]) -> Invalidated {
        let entered = self.enter(scopes);
        match self.store.invalidate(&self.namespace, scopes).await {
            Ok(()) => {
                self.confirm(&entered);
                Invalidated::Applied
            }
            Err(error) => {
                tracing::warn!(%error, scopes = scopes.len(), "invalidation queued");
                Invalidated::Queued
            }
        }
    }

    /// Begins to deliver what is pending, unless nothing is or another delivery is under way.
    pub(crate) fn begin_delivery(self: &Arc<Self>) -> Option<Delivery> {
        let mut pending = self.pending.lock();
        if pending.scopes.is_empty() || pending.delivering {
            return None;
        }
        pending.delivering = true;
        Some(Delivery(Arc::clone(self)))
    }

    fn enter(&self, scopes: &[Scope]) -> Vec<(Scope, u64)> {
        let mut pending = self.pending.lock();
        if pending.scopes.len().saturating_add(scopes.len()) > MAX_PENDING {
            pending.scopes = Arc::default();
            pending.enter(Scope::namespace(self.namespace.as_str()));
        }
        let entered = scopes.iter().map(|scope| pending.enter(*scope)).collect();
        self.length.store(pending.scopes.len(), Ordering::Release);
        entered
    }

    /// Takes scopes off, but for those that were invalidated again in the meantime.
    fn confirm(&self, told: &[(Scope, u64)]) {
        let mut pending = self.pending.lock();
        let scopes = Arc::make_mut(&mut pending.scopes);
        for (scope, number) in told {
            if scopes.get(scope) == Some(number) {
                scopes.remove(scope);
            }
        }
        self.length.store(pending.scopes.len(), Ordering::Release);
    }

    /// Returns some of what is pending; when nothing is, ends the delivery in the same breath, so
    /// that whoever enters a scope next can begin another.
    fn next_batch(&self) -> Option<Vec<(Scope, u64)>> {
        let mut pending = self.pending.lock();
        if pending.scopes.is_empty() {
            pending.delivering = false;
            return None;
        }
        let batch = pending.scopes.iter().take(BATCH);
        Some(batch.map(|(scope, number)| (*scope, *number)).collect())
    }
}

impl Pending {
    fn enter(&mut self, scope: Scope) -> (Scope, u64) {
        self.numbers += 1;
        Arc::make_mut(&mut self.scopes).insert(scope, self.numbers);
        (scope, self.numbers)
    }
}

/// What a store had not confirmed at one time; nothing, and free of cost, but in bad weather.
///
/// Taken before the store is asked. What is found there may have been read before a delivery that
/// has come to its end since, so that only this knows of the invalidation.
#[derive(Clone, Debug)]
pub(crate) struct Unconfirmed(Option<Arc<HashMap<Scope, u64>>>);

impl Unconfirmed {
    /// Whether something with this stamp has been invalidated though the store may not know.
    pub(crate) fn blocks(&self, stamp: &Stamp) -> bool {
        let Self(scopes) = self;
        scopes
            .as_ref()
            .is_some_and(|scopes| stamp.iter().any(|(scope, _)| scopes.contains_key(&scope)))
    }
}

/// The one delivery under way; dropped early, it leaves the rest to the next.
#[derive(Debug)]
pub(crate) struct Delivery(Arc<Journal>);

impl Delivery {
    /// Tells the store all that is pending, however long that takes.
    pub(crate) async fn run(self) {
        let journal = &self.0;
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            let Some(batch) = journal.next_batch() else {
                return;
            };
            let scopes: Vec<Scope> = batch.iter().map(|(scope, _)| *scope).collect();
            match journal.store.invalidate(&journal.namespace, &scopes).await {
                Ok(()) => {
                    journal.confirm(&batch);
                    tracing::info!(scopes = scopes.len(), "queued invalidations delivered");
                    pause = Duration::ZERO;
                }
                Err(_) => pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE),
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.0.pending.lock().delivering = false;
    }
}
