//! The invalidations that the store has not confirmed yet, or may have lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::dated::Dated;
use super::{Invalidated, MAX_SCOPES};
use crate::clock::Clock;
use crate::epoch::{Scope, Stamp};
use crate::error::Error;
use crate::key::Namespace;
use crate::store::Store;

/// How many scopes are told to the store in one call.
const BATCH: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A store that is away fails at once, so asking often costs little, and every moment counts in
/// which another process may still serve what is pending here.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How long it is remembered what the store has confirmed. A server that hands over to another has
/// lost no more than the last seconds.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Tells invalidations to a store, and stands in for it until it knows them.
#[derive(Debug)]
pub(crate) struct Journal {
    namespace: Namespace,
    store: Arc<dyn Store>,
    clock: Clock,
    /// How long after an invalidation it is repeated.
    repeat: Option<Duration>,
    pending: Mutex<Pending>,
    /// How many are pending, so that a hit takes no lock while none is.
    length: AtomicUsize,
    /// The generation of the store to which all was told that is not pending.
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    /// Each scope with the number of its latest invalidation; copied when it changes under a reader.
    scopes: Arc<HashMap<Scope, u64>>,
    numbers: u64,
    /// Where among them the next batch begins, so that what cannot be told holds nothing up.
    turn: usize,
    delivering: bool,
    /// What the store has confirmed lately, with the time to forget it.
    confirmed: Dated,
    /// What is to be invalidated again.
    repeats: Dated,
}

impl Journal {
    /// Makes an empty journal; with `repeat`, each invalidation is repeated after so long.
    pub(crate) fn new(
        namespace: Namespace,
        store: Arc<dyn Store>,
        clock: Clock,
        repeat: Option<Duration>,
    ) -> Self {
        Self {
            generation: AtomicU64::new(store.generation()),
            namespace,
            store,
            clock,
            repeat,
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
        self.recall_lost();
        // Before the scopes: what is recalled in between is then taken for lost.
        let generation = self.generation.load(Ordering::Acquire);
        let any = self.len() > 0;
        Unconfirmed {
            generation,
            scopes: any.then(|| Arc::clone(&self.pending.lock().scopes)),
        }
    }

    /// Invalidates `scopes`: here before this returns, in the store when what it returns is awaited.
    ///
    /// If the store fails, or the caller goes away in the middle, the scopes stay pending until a
    /// [`Delivery`] has told them.
    pub(crate) fn invalidate(&self, scopes: &[Scope]) -> impl Future<Output = Invalidated> + Send {
        let entered = self.enter(scopes);
        async move {
            let generation = self.store.generation();
            match self.store.invalidate(&self.namespace, scopes).await {
                Ok(()) if self.confirm(&entered, generation) => Invalidated::Applied,
                Ok(()) => Invalidated::Queued,
                Err(error) => {
                    tracing::warn!(%error, scopes = scopes.len(), "invalidation queued");
                    Invalidated::Queued
                }
            }
        }
    }

    /// Waits until the store has confirmed all that is pending now.
    pub(crate) async fn delivered(&self) {
        let latest = self.pending.lock().numbers;
        let everything = self.everything();
        let is_pending = || {
            // What has become everything may have been pending before.
            let scopes = &self.pending.lock().scopes;
            scopes.contains_key(&everything) || scopes.values().any(|number| *number <= latest)
        };
        while is_pending() {
            sleep(FIRST_PAUSE).await;
        }
    }

    /// Returns which life of the store is told what is told from now on.
    pub(crate) fn generation(&self) -> u64 {
        self.store.generation()
    }

    /// Notes what the store has been told of by another way since it was of this `generation`.
    pub(crate) fn note_told(&self, scope: Scope, generation: u64) {
        let entered = self.enter(&[scope]);
        self.confirm(&entered, generation);
    }

    /// Begins to deliver what is pending, or will be, unless nothing is or another delivery is under
    /// way.
    pub(crate) fn begin_delivery(self: &Arc<Self>) -> Option<Delivery> {
        let mut pending = self.pending.lock();
        if pending.is_done() || pending.delivering {
            return None;
        }
        pending.delivering = true;
        Some(Delivery(Arc::downgrade(self)))
    }

    fn enter(&self, scopes: &[Scope]) -> Vec<(Scope, u64)> {
        let everything = self.everything();
        let mut pending = self.pending.lock();
        if let Some(pause) = self.repeat {
            let time = self.clock.now() + pause;
            let scopes = scopes.iter().copied();
            pending.repeats.push(time, scopes, everything);
        }
        if pending.scopes.len().saturating_add(scopes.len()) > MAX_SCOPES {
            pending.scopes = Arc::default();
            pending.enter(everything);
        }
        let entered = scopes.iter().map(|scope| pending.enter(*scope)).collect();
        self.length.store(pending.scopes.len(), Ordering::Release);
        entered
    }

    /// Takes scopes off, but for those that were invalidated again in the meantime. Returns `false`
    /// if the store may have lost them since it was of this `generation`; then they stay.
    fn confirm(&self, told: &[(Scope, u64)], generation: u64) -> bool {
        self.recall_lost();
        let mut pending = self.pending.lock();
        if generation != self.generation.load(Ordering::Acquire) {
            return false;
        }
        if generation != 0 {
            let time = self.clock.now() + REMEMBERED;
            let scopes = told.iter().map(|(scope, _)| *scope);
            pending.confirmed.push(time, scopes, self.everything());
        }
        let scopes = Arc::make_mut(&mut pending.scopes);
        for (scope, number) in told {
            if scopes.get(scope) == Some(number) {
                scopes.remove(scope);
            }
        }
        self.length.store(pending.scopes.len(), Ordering::Release);
        true
    }

    /// Makes pending again what the store has confirmed lately, if it may have lost it since.
    fn recall_lost(&self) {
        let generation = self.store.generation();
        if generation == self.generation.load(Ordering::Acquire) {
            return;
        }
        let mut pending = self.pending.lock();
        for scope in pending.confirmed.take() {
            pending.enter(scope);
        }
        self.length.store(pending.scopes.len(), Ordering::Release);
        self.generation.store(generation, Ordering::Release);
    }

    /// Returns what a delivery has to do next; when nothing is, ends it in the same breath, so that
    /// whoever enters a scope next can begin another.
    fn next_step(&self) -> Step {
        self.recall_lost();
        let now = self.clock.now();
        let mut pending = self.pending.lock();
        drop(pending.confirmed.take_due(now));
        for scope in pending.repeats.take_due(now) {
            pending.enter(scope);
        }
        self.length.store(pending.scopes.len(), Ordering::Release);
        if pending.is_done() {
            pending.delivering = false;
            return Step::End;
        }
        let batch = pending.next_batch();
        match batch.is_empty() {
            true => Step::Wait,
            false => Step::Tell(batch),
        }
    }

    /// Tells the store scopes at once, or each alone if that fails, as a part of it may be away,
    /// refuse, or be slow to say; says whether all of them are done.
    async fn tell(&self, batch: &[(Scope, u64)]) -> bool {
        match self.tell_at_once(batch).await {
            Err(_) if batch.len() > 1 => {
                // What fails stays pending.
                join_all(batch.chunks(1).map(|one| self.tell_at_once(one))).await;
                false
            }
            told => told.unwrap_or(false),
        }
    }

    async fn tell_at_once(&self, batch: &[(Scope, u64)]) -> Result<bool, Error> {
        let generation = self.store.generation();
        let scopes: Vec<Scope> = batch.iter().map(|(scope, _)| *scope).collect();
        self.store.invalidate(&self.namespace, &scopes).await?;
        let done = self.confirm(batch, generation);
        if done {
            tracing::info!(scopes = scopes.len(), "queued invalidations delivered");
        }
        Ok(done)
    }

    fn everything(&self) -> Scope {
        Scope::namespace(self.namespace.as_str())
    }
}

impl Pending {
    fn is_done(&self) -> bool {
        self.scopes.is_empty() && self.confirmed.is_empty() && self.repeats.is_empty()
    }

    fn next_batch(&mut self) -> Vec<(Scope, u64)> {
        let count = self.scopes.len().min(BATCH);
        let from = self.turn.checked_rem(self.scopes.len()).unwrap_or_default();
        self.turn = from.saturating_add(count);
        let batch = self.scopes.iter().cycle().skip(from).take(count);
        batch.map(|(scope, number)| (*scope, *number)).collect()
    }

    fn enter(&mut self, scope: Scope) -> (Scope, u64) {
        self.numbers += 1;
        Arc::make_mut(&mut self.scopes).insert(scope, self.numbers);
        (scope, self.numbers)
    }
}

/// What a store had not confirmed at one time; nothing, and free of cost, but in bad weather.
///
/// Taken before the store is asked and again behind that. What is found there may have been read
/// before a delivery that has come to its end since, so that only the first knows of the
/// invalidation.
#[derive(Clone, Debug)]
pub(crate) struct Unconfirmed {
    /// Of the store, when it was taken.
    generation: u64,
    scopes: Option<Arc<HashMap<Scope, u64>>>,
}

impl Unconfirmed {
    /// Whether something with this stamp, which was found between this and `now`, has been
    /// invalidated though the store may not have known.
    pub(crate) fn blocks(&self, now: &Self, stamp: &Stamp) -> bool {
        // What the store lost may have been lost, found missing and told again all in between.
        self.generation != now.generation || self.has(stamp) || now.has(stamp)
    }

    fn has(&self, stamp: &Stamp) -> bool {
        self.scopes
            .as_ref()
            .is_some_and(|scopes| stamp.iter().any(|(scope, _)| scopes.contains_key(&scope)))
    }
}

/// What a delivery has to do.
#[derive(Debug)]
enum Step {
    Tell(Vec<(Scope, u64)>),
    /// Something may become pending without being asked for.
    Wait,
    End,
}

/// The one delivery under way; dropped early, it leaves the rest to the next.
///
/// What is pending keeps the journal alive, and the store with it. What is only remembered does not.
#[derive(Debug)]
pub(crate) struct Delivery(Weak<Journal>);

impl Delivery {
    /// Tells the store all that is pending, however long that takes, and what becomes pending while
    /// anything is remembered.
    pub(crate) async fn run(self) {
        let mut held = self.0.upgrade();
        let mut pause = FIRST_PAUSE;
        loop {
            sleep(pause).await;
            let Some(journal) = held.take().or_else(|| self.0.upgrade()) else {
                return;
            };
            pause = match journal.next_step() {
                Step::End => return,
                Step::Wait => LONGEST_PAUSE,
                Step::Tell(batch) => {
                    let told = journal.tell(&batch).await;
                    held = Some(journal);
                    match told {
                        true => Duration::ZERO,
                        false => (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE),
                    }
                }
            };
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(journal) = self.0.upgrade() {
            journal.pending.lock().delivering = false;
        }
    }
}
