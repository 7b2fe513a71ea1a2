//! A second store that is shared, and away when a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use tokio::sync::Semaphore;

use super::*;
use crate::error::ErrorKind;

/// Clones are one store, as the processes' stores of one server are.
#[derive(Clone, Debug)]
pub(super) struct Second(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: MemoryStore,
    /// How many more calls it answers; away is none.
    answers: AtomicUsize,
    /// Whether it has to be asked what is current.
    mute: AtomicBool,
    /// Whether it says that a part of it is away.
    degraded: AtomicBool,
    lookups: AtomicUsize,
    confirms: AtomicUsize,
    /// A look-up's answer is under way until it gets a permit.
    gate: Semaphore,
}

impl Second {
    pub(super) fn new() -> Self {
        Self::of(1 << 20)
    }

    /// Returns one that holds so many bytes.
    pub(super) fn of(capacity: u64) -> Self {
        Self(Arc::new(Inner {
            store: MemoryStore::new(capacity),
            answers: AtomicUsize::new(usize::MAX),
            mute: AtomicBool::new(false),
            degraded: AtomicBool::new(false),
            lookups: AtomicUsize::new(0),
            confirms: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }))
    }

    /// Takes the store away, or brings it back.
    pub(super) fn set_away(&self, away: bool) {
        let answers = if away { 0 } else { usize::MAX };
        self.0.answers.store(answers, Ordering::Relaxed);
    }

    /// Lets the store answer so many calls more before it is away, and vouch for nothing.
    pub(super) fn leave_after(&self, calls: usize) {
        self.mute();
        self.0.answers.store(calls, Ordering::Relaxed);
    }

    /// Lets the store vouch for nothing unless it is asked.
    pub(super) fn mute(&self) {
        self.0.mute.store(true, Ordering::Relaxed);
    }

    /// Lets the store say that a part of it is away, or no longer.
    pub(super) fn set_degraded(&self, degraded: bool) {
        self.0.degraded.store(degraded, Ordering::Relaxed);
    }

    /// Keeps the answers of look-ups under way until [`release`](Self::release).
    pub(super) fn hold_back(&self) {
        self.0.gate.forget_permits(usize::MAX);
    }

    pub(super) fn release(&self) {
        self.0.gate.add_permits(Semaphore::MAX_PERMITS);
    }

    /// Returns how often it was asked for a response, and whether one is current.
    pub(super) fn asked(&self) -> (usize, usize) {
        let Inner {
            lookups, confirms, ..
        } = &*self.0;
        (
            lookups.load(Ordering::Relaxed),
            confirms.load(Ordering::Relaxed),
        )
    }

    fn there(&self) -> Result<&MemoryStore, Error> {
        let one_less = |answers: usize| answers.checked_sub(1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        match self.0.answers.fetch_update(set, fetch, one_less) {
            Ok(_) => Ok(&self.0.store),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "it is away")),
        }
    }
}

impl Store for Second {
    fn name(&self) -> &'static str {
        "second"
    }

    fn lookup<'a>(
        &'a self,
        wanted: Wanted<'a>,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Found, Error>> {
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let found = self.there()?.lookup(wanted, scopes).await;
            let _released = self.0.gate.acquire().await;
            found
        })
    }

    fn capture<'a>(
        &'a self,
        namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Captured, Error>> {
        Box::pin(async move { self.there()?.capture(namespace, scopes).await })
    }

    fn put<'a>(&'a self, fill: Fill) -> BoxFuture<'a, Result<Kept, Error>> {
        Box::pin(async move { self.there()?.put(fill).await })
    }

    fn admit<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Option<Stamp>, Error>> {
        Box::pin(async move { self.there()?.admit(fill).await })
    }

    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.there()?.invalidate(namespace, scopes).await })
    }

    fn vouches_for(&self, stamp: &Stamp) -> bool {
        let mute = self.0.mute.load(Ordering::Relaxed);
        !mute && self.there().is_ok_and(|store| store.vouches_for(stamp))
    }

    fn confirm<'a>(
        &'a self,
        _namespace: &'a Namespace,
        stamp: &'a Stamp,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.0.confirms.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Ok(self.there()?.vouches_for(stamp)) })
    }

    fn renew<'a>(
        &'a self,
        namespace: &'a Namespace,
        scope: Scope,
        captured: Captured,
    ) -> BoxFuture<'a, Result<Option<Captured>, Error>> {
        Box::pin(async move { self.there()?.renew(namespace, scope, captured).await })
    }

    fn remove<'a>(&'a self, response: &'a StoredResponse) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.there()?.remove(response).await })
    }

    fn staleness(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn health(&self) -> StoreHealth {
        let degraded = self.0.degraded.load(Ordering::Relaxed);
        StoreHealth {
            degraded_since: degraded.then_some(SystemTime::UNIX_EPOCH),
            ..StoreHealth::default()
        }
    }
}
