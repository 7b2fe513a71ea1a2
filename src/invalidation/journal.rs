//! The invalidations that the store has not confirmed yet, or may have lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::RwLock;
use tokio::time::sleep;

use super::dated::Dated;
use super::pending::{BATCH, Pending};
use super::told::Told;
use super::{Invalidated, MAX_SCOPES};
use crate::clock::Clock;
use crate::epoch::{Scope, Stamp};
use crate::error::Error;
use crate::key::Namespace;
use crate::store::Store;

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
    state: RwLock<State>,
    /// How many are pending, and how many have ended to be, so that a hit takes no lock while none is
    /// and none has.
    length: AtomicUsize,
    endings: AtomicU64,
    /// The generation of the store to which all was told that is not pending.
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    pending: Pending,
    delivering: bool,
    /// What the store has confirmed lately.
    confirmed: Told,
    /// What it may have lost of that, and is to be pending once more.
    recalled: Told,
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
            state: RwLock::default(),
            length: AtomicUsize::new(0),
            endings: AtomicU64::new(0),
        }
    }

    /// Returns how many scopes the store has not confirmed.
    pub(crate) fn len(&self) -> usize {
        self.length.load(Ordering::Acquire)
    }

    /// Returns the present moment, for when the store has been asked.
    pub(crate) fn moment(&self) -> Moment {
        self.recall_lost();
        Moment {
            generation: self.generation.load(Ordering::Acquire),
            endings: self.endings.load(Ordering::Acquire),
        }
    }

    /// Whether something with this stamp, which the store has found since a moment, has been
    /// invalidated though the store may not have known.
    ///
    /// What is pending now tells, and what was pending then: what is found may have been read before
    /// a delivery that has come to its end since. What was pending only in between tells too.
    pub(crate) fn blocks(&self, since: Moment, stamp: &Stamp) -> bool {
        self.recall_lost();
        if self.generation.load(Ordering::Acquire) != since.generation {
            // What the store lost may have been lost, found missing and told again all in between.
            return true;
        }
        // In this order: what ends is counted among the endings first.
        if self.len() == 0 && self.endings.load(Ordering::Acquire) == since.endings {
            return false;
        }
        let state = self.state.read();
        state.concerns(stamp, since)
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
        self.recall_lost();
        // What is recalled has no number yet.
        while self.state.read().recalled.len() > 0 {
            sleep(FIRST_PAUSE).await;
        }
        let latest = self.state.read().pending.latest();
        let everything = self.everything();
        let is_pending = || {
            let pending = &self.state.read().pending;
            // What has become everything may have been pending before.
            pending.contains(everything) || pending.waits_since(latest)
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
        let mut state = self.state.write();
        if state.is_done() || state.delivering {
            return None;
        }
        state.delivering = true;
        Some(Delivery(Arc::clone(self)))
    }

    fn enter(&self, scopes: &[Scope]) -> Vec<(Scope, u64)> {
        let everything = self.everything();
        // Dropped when the lock is free again.
        let _crowd;
        let mut state = self.state.write();
        if let Some(pause) = self.repeat {
            let time = self.clock.now() + pause;
            let scopes = scopes.iter().copied();
            state.repeats.push(time, scopes, everything);
        }
        let pending = &mut state.pending;
        if pending.len().saturating_add(scopes.len()) > MAX_SCOPES {
            _crowd = pending.become_one(everything);
        }
        let entered = scopes.iter().map(|scope| pending.enter(*scope)).collect();
        self.publish(&state);
        entered
    }

    /// Takes scopes off, but for those that were invalidated again in the meantime. Returns `false`
    /// if the store may have lost them since it was of this `generation`; then they stay.
    fn confirm(&self, told: &[(Scope, u64)], generation: u64) -> bool {
        self.recall_lost();
        let mut state = self.state.write();
        if generation != self.generation.load(Ordering::Acquire) {
            return false;
        }
        if generation != 0 {
            let time = self.clock.now() + REMEMBERED;
            let scopes = told.iter().map(|(scope, _)| *scope);
            state.confirmed.push(time, scopes, self.everything());
        }
        for invalidation in told {
            state.pending.end(*invalidation);
        }
        self.publish(&state);
        true
    }

    /// Makes pending again what the store has confirmed lately, if it may have lost it since.
    fn recall_lost(&self) {
        let generation = self.store.generation();
        if generation == self.generation.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state.write();
        let State {
            confirmed,
            recalled,
            ..
        } = &mut *state;
        recalled.take_over(confirmed);
        self.publish(&state);
        self.generation.store(generation, Ordering::Release);
    }

    /// Lets those who take no lock know.
    fn publish(&self, state: &State) {
        let endings = state.pending.endings();
        self.endings.store(endings, Ordering::Release);
        self.length.store(state.len(), Ordering::Release);
    }

    /// Returns what a delivery has to do next; when nothing is, ends it in the same breath, so that
    /// whoever enters a scope next can begin another.
    fn next_step(&self) -> Step {
        self.recall_lost();
        let now = self.clock.now();
        let mut state = self.state.write();
        let State {
            pending,
            confirmed,
            recalled,
            repeats,
            ..
        } = &mut *state;
        confirmed.forget_due(now);
        let recalled = std::iter::from_fn(|| recalled.pop()).take(BATCH);
        for scope in recalled.chain(repeats.take_due(now)) {
            pending.enter(scope);
        }
        self.publish(&state);
        if state.is_done() {
            state.delivering = false;
            return Step::End;
        }
        let batch = state.pending.next_batch();
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

impl State {
    /// Returns how many scopes the store has not confirmed.
    fn len(&self) -> usize {
        self.pending.len().saturating_add(self.recalled.len())
    }

    fn is_done(&self) -> bool {
        self.len() == 0 && self.confirmed.len() == 0 && self.repeats.is_empty()
    }

    /// Whether something with this stamp has been invalidated though the store may not have known at
    /// some time since then.
    fn concerns(&self, stamp: &Stamp, since: Moment) -> bool {
        self.pending.concerns(stamp, since.endings)
            || stamp.iter().any(|(scope, _)| self.recalled.contains(scope))
    }
}

/// A moment in the life of a journal, by what it knew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Of the store.
    generation: u64,
    endings: u64,
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
pub(crate) struct Delivery(Arc<Journal>);

impl Delivery {
    /// Tells the store all that is pending, however long that takes, and what becomes pending while
    /// anything is remembered.
    pub(crate) async fn run(self) {
        let Self(journal) = &self;
        let mut pause = FIRST_PAUSE;
        loop {
            sleep(pause).await;
            pause = match journal.next_step() {
                Step::End => return,
                // Nobody else is left who could make anything pending.
                Step::Wait if Arc::strong_count(journal) == 1 => return,
                Step::Wait => LONGEST_PAUSE,
                Step::Tell(batch) => match journal.tell(&batch).await {
                    true => Duration::ZERO,
                    false => (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE),
                },
            };
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.0.state.write().delivering = false;
    }
}
