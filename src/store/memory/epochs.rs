//! The epochs of a store that lives in one process.
//!
//! Time is counted in invalidations: each one is a *moment*, one after the last. The epoch captured
//! for a scope is the moment of the capture, and it is current until the scope is next invalidated.
//! So a capture reads one number and leaves nothing behind, and what has to be remembered are
//! invalidations: of each scope the latest, of all scopes the latest [`MAX_REMEMBERED`]. An epoch
//! older than what is remembered is not current. Moments are never reused, so neither are epochs.
//!
//! A stored response needs no number: it holds the [`Span`] of each of its scopes, and an
//! invalidation ends that span. A hit asks a few flags, and looks nothing up.
//!
//! # Races
//!
//! * A capture acquires the moment that an invalidation releases. If it reads that moment, all that
//!   happened before the invalidation, above all the change of the data, happened before the
//!   handler runs. If it does not, its epoch is older than the invalidation, and admits nothing.
//! * Admission and invalidation take turns at one lock. A response admitted before an invalidation
//!   holds the span that it ends, no matter when the response gets into the map; one that asks
//!   afterwards is refused.
//! * A span ends once and for good, and its flag guards no other memory: whoever has heard, in any
//!   way, that the invalidation returned can only read the flag as set. Relaxed loads do.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::epoch::{Captured, Epoch, Scope, Stamp};

/// How many invalidated scopes are remembered, in a few megabytes. A response is not stored if this
/// many other scopes are invalidated while the handler makes it.
const MAX_REMEMBERED: usize = 32_768;

/// Knows which epochs are current.
pub(super) struct Epochs {
    /// The moment of the latest invalidation.
    moment: AtomicU64,
    ledger: Mutex<Ledger>,
}

/// The spans of the scopes that a stored response stands under.
///
/// When the last response under a span is gone, so is the span.
pub(super) struct Standing {
    spans: SmallVec<[Arc<Span>; 4]>,
    epochs: Arc<Epochs>,
}

/// The time of a scope between two of its invalidations.
struct Span {
    scope: Scope,
    ended: AtomicBool,
}

#[derive(Default)]
struct Ledger {
    scopes: HashMap<Scope, Record, RandomState>,
    /// The scopes with a remembered invalidation, by its moment.
    remembered: BTreeMap<u64, Scope>,
    /// The moment of the latest invalidation that is not remembered any more.
    forgotten: u64,
}

/// What is known of a scope; one of the two at least.
#[derive(Default)]
struct Record {
    invalidated: Option<u64>,
    /// The span that has not ended, if a response stands under it.
    span: Option<Arc<Span>>,
}

impl Epochs {
    pub(super) fn new() -> Self {
        Self {
            moment: AtomicU64::new(1),
            ledger: Mutex::default(),
        }
    }

    /// Returns the current epochs of `scopes`.
    pub(super) fn capture(&self, scopes: &[Scope]) -> Captured {
        let moment = self.moment();
        Captured {
            stamp: scopes.iter().map(|scope| (*scope, moment)).collect(),
            moment: moment.value(),
        }
    }

    /// Returns the epoch that any scope has at present.
    pub(super) fn moment(&self) -> Epoch {
        Epoch::new(self.moment.load(Ordering::Acquire)).expect("moments begin at 1")
    }

    /// Ends the spans of `scopes`.
    pub(super) fn invalidate(&self, scopes: &[Scope]) {
        let mut ledger = self.ledger.lock();
        for scope in scopes {
            ledger.invalidate(*scope, self.next_moment());
        }
    }

    /// Ends the span of `scope` and returns the epoch of the next one, unless `epoch` was not the
    /// current one until then.
    pub(super) fn renew(&self, scope: Scope, epoch: Epoch) -> Option<Epoch> {
        let mut ledger = self.ledger.lock();
        let was_current = ledger.is_current(scope, epoch);
        let moment = self.next_moment();
        ledger.invalidate(scope, moment);
        Epoch::new(moment).filter(|_| was_current)
    }

    fn next_moment(&self) -> u64 {
        self.moment.fetch_add(1, Ordering::Release) + 1
    }

    /// Lets a response stand under `stamp`, if all its epochs are current.
    pub(super) fn admit(self: &Arc<Self>, stamp: &Stamp) -> Option<Standing> {
        let mut ledger = self.ledger.lock();
        self.confirms(&ledger, stamp).then(|| Standing {
            spans: stamp.iter().map(|(scope, _)| ledger.enter(scope)).collect(),
            epochs: Arc::clone(self),
        })
    }

    /// Whether all epochs of `stamp` are current.
    pub(super) fn are_current(&self, stamp: &Stamp) -> bool {
        self.confirms(&self.ledger.lock(), stamp)
    }

    fn confirms(&self, ledger: &Ledger, stamp: &Stamp) -> bool {
        // Only an epoch that was not captured here is ahead.
        let latest = self.moment.load(Ordering::Relaxed);
        stamp
            .iter()
            .all(|(scope, epoch)| epoch.value() <= latest && ledger.is_current(scope, epoch))
    }
}

impl Standing {
    /// Whether none of the scopes has been invalidated since.
    pub(super) fn is_current(&self) -> bool {
        !self
            .spans
            .iter()
            .any(|span| span.ended.load(Ordering::Relaxed))
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let mut ledger = self.epochs.ledger.lock();
        for span in self.spans.drain(..) {
            ledger.leave(&span);
        }
    }
}

impl Ledger {
    fn is_current(&self, scope: Scope, epoch: Epoch) -> bool {
        let record = self.scopes.get(&scope);
        let invalidated = record.and_then(|record| record.invalidated);
        epoch.value() >= invalidated.unwrap_or(self.forgotten)
    }

    fn invalidate(&mut self, scope: Scope, moment: u64) {
        let record = self.scopes.entry(scope).or_default();
        if let Some(span) = record.span.take() {
            span.ended.store(true, Ordering::Relaxed);
        }
        if let Some(earlier) = record.invalidated.replace(moment) {
            self.remembered.remove(&earlier);
        }
        self.remembered.insert(moment, scope);
        if self.remembered.len() > MAX_REMEMBERED {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((moment, scope)) = self.remembered.pop_first() else {
            return;
        };
        self.forgotten = moment;
        self.update(scope, |record| record.invalidated = None);
    }

    fn enter(&mut self, scope: Scope) -> Arc<Span> {
        let span = || {
            Arc::new(Span {
                scope,
                ended: AtomicBool::new(false),
            })
        };
        let record = self.scopes.entry(scope).or_default();
        Arc::clone(record.span.get_or_insert_with(span))
    }

    fn leave(&mut self, span: &Arc<Span>) {
        // Spans are taken and given back under the lock, so the count is exact: here it is the one
        // that leaves, and the record's own.
        if !span.ended.load(Ordering::Relaxed) && Arc::strong_count(span) == 2 {
            self.update(span.scope, |record| record.span = None);
        }
    }

    /// Changes a record, and drops it when it says nothing any more.
    fn update(&mut self, scope: Scope, change: impl FnOnce(&mut Record)) {
        if let Entry::Occupied(mut entry) = self.scopes.entry(scope) {
            change(entry.get_mut());
            if entry.get().invalidated.is_none() && entry.get().span.is_none() {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::ScopeKind;

    fn path(n: u64) -> Scope {
        Scope::from_parts(ScopeKind::Path, u128::from(n).to_be_bytes())
    }

    fn tag(n: u64) -> Scope {
        Scope::from_parts(ScopeKind::Tag, u128::from(n).to_be_bytes())
    }

    fn epochs() -> Arc<Epochs> {
        Arc::new(Epochs::new())
    }

    #[test]
    fn what_stands_under_an_invalidated_scope_is_not_current() {
        let epochs = epochs();
        let one = epochs
            .admit(&epochs.capture(&[path(1), tag(1)]).stamp)
            .unwrap();
        let other = epochs
            .admit(&epochs.capture(&[path(2), tag(1)]).stamp)
            .unwrap();
        assert!(one.is_current() && other.is_current());
        epochs.invalidate(&[path(1)]);
        assert!(!one.is_current() && other.is_current());
        epochs.invalidate(&[tag(1)]);
        assert!(!one.is_current() && !other.is_current());
    }

    #[test]
    fn an_epoch_is_admitted_until_its_scope_is_invalidated() {
        let epochs = epochs();
        let old = epochs.capture(&[path(1)]).stamp;
        epochs.invalidate(&[path(2)]);
        assert!(epochs.admit(&old).is_some(), "another scope");
        epochs.invalidate(&[path(1)]);
        assert!(epochs.admit(&old).is_none());
        let new = epochs.capture(&[path(1)]).stamp;
        let standing = epochs.admit(&new).unwrap();
        assert!(standing.is_current());
        assert!(
            epochs.admit(&old).is_none(),
            "though the scope has a span again"
        );
    }

    #[test]
    fn a_scope_is_known_while_something_stands_under_it() {
        let epochs = epochs();
        let stamp = epochs.capture(&[path(1), path(1)]).stamp;
        let [one, other] = [0; 2].map(|_| epochs.admit(&stamp).unwrap());
        drop(one);
        assert_eq!(epochs.ledger.lock().scopes.len(), 1);
        drop(other);
        assert!(epochs.ledger.lock().scopes.is_empty());
    }

    #[test]
    fn a_million_scopes_leave_nothing_but_their_invalidations() {
        let epochs = epochs();
        for n in 0..1_000_000 {
            let captured = epochs.capture(&[path(n), tag(n)]);
            let standing = epochs.admit(&captured.stamp).unwrap();
            if n % 1_000 == 0 {
                epochs.invalidate(&[path(n)]);
                assert!(!standing.is_current());
            }
        }
        let ledger = epochs.ledger.lock();
        assert_eq!(
            (ledger.scopes.len(), ledger.remembered.len()),
            (1_000, 1_000)
        );
    }

    #[test]
    fn only_the_latest_invalidations_are_remembered() {
        let epochs = epochs();
        let early = epochs.capture(&[]);
        for n in 0..1_000_000 {
            epochs.invalidate(&[tag(n)]);
        }
        assert_eq!(epochs.ledger.lock().scopes.len(), MAX_REMEMBERED);
        assert_eq!(epochs.ledger.lock().remembered.len(), MAX_REMEMBERED);

        let moment = Epoch::new(early.moment).unwrap();
        let never_invalidated = Stamp::from_iter([(path(1), moment)]);
        assert!(
            epochs.admit(&never_invalidated).is_none(),
            "it cannot be known"
        );
        assert!(
            epochs
                .admit(&epochs.capture(&[path(1), tag(0)]).stamp)
                .is_some()
        );
    }

    #[test]
    fn an_epoch_is_refused_only_from_the_first_forgotten_invalidation_on() {
        let epochs = epochs();
        let before = epochs.capture(&[path(1)]).stamp;
        epochs.invalidate(&[tag(0)]);
        let after = epochs.capture(&[path(1)]).stamp;
        for n in 1..MAX_REMEMBERED as u64 {
            epochs.invalidate(&[tag(n)]);
        }
        assert!(epochs.admit(&before).is_some(), "all is remembered");
        epochs.invalidate(&[tag(u64::MAX)]);
        assert!(epochs.admit(&before).is_none());
        assert!(epochs.admit(&after).is_some());
    }

    #[test]
    fn repeating_an_invalidation_forgets_no_other() {
        let epochs = epochs();
        let early = epochs.capture(&[path(1), tag(1)]);
        epochs.invalidate(&[tag(1)]);
        for _ in 0..2 * MAX_REMEMBERED {
            epochs.invalidate(&[path(2)]);
        }
        let [in_path, in_tag] = [path(1), tag(1)].map(|scope| {
            let epoch = Epoch::new(early.moment).unwrap();
            epochs.admit(&Stamp::from_iter([(scope, epoch)]))
        });
        assert!(in_path.is_some() && in_tag.is_none());
    }

    #[test]
    fn an_epoch_from_elsewhere_is_refused() {
        let epochs = epochs();
        let ahead = Epoch::new(u64::MAX).unwrap();
        assert!(
            epochs
                .admit(&Stamp::from_iter([(path(1), ahead)]))
                .is_none()
        );
    }
}
