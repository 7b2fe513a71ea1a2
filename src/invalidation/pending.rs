//! What the store has still to be told of, and what it has been told of last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use crate::epoch::{Scope, Stamp};

/// How many scopes are told to the store in one call.
pub(super) const BATCH: usize = 256;
/// So many of those that were told last are remembered: several batches may be told while the store
/// looks something up.
const MAX_ENDED: usize = 4 * BATCH;

/// Scopes to be told, each with the numbers of its invalidations.
///
/// Nothing here takes longer, the more of them there are, but for the depth of a tree: hits look at
/// it under the lock that invalidations take. Nor is it ever copied for them: who asks the store
/// notes how many had ended by then, and which have ended since is known afterwards.
#[derive(Debug, Default)]
pub(super) struct Pending {
    numbers: BTreeMap<Scope, Numbers>,
    /// The same by since when each is pending.
    order: BTreeSet<(u64, Scope)>,
    latest: u64,
    /// Behind which one the next batch begins, so that what cannot be told holds nothing up.
    turn: Option<(u64, Scope)>,
    /// Those that have ended last, the latest at the back.
    ended: VecDeque<Scope>,
    endings: u64,
}

/// Those of a scope's invalidations that the store has not been told of.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    /// None is earlier.
    since: u64,
    latest: u64,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Returns the number of the latest invalidation.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Returns how often a scope has ended to be pending.
    pub(super) fn endings(&self) -> u64 {
        self.endings
    }

    pub(super) fn contains(&self, scope: Scope) -> bool {
        self.numbers.contains_key(&scope)
    }

    /// Whether anything is pending since the invalidation of this number or an earlier one, whether or
    /// not it has been invalidated again.
    pub(super) fn waits_since(&self, number: u64) -> bool {
        let first = self.order.first();
        first.is_some_and(|(since, _)| *since <= number)
    }

    /// Whether something with this stamp is pending, or may have been when so many had ended.
    pub(super) fn concerns(&self, stamp: &Stamp, endings: u64) -> bool {
        let since = usize::try_from(self.endings.saturating_sub(endings)).unwrap_or(usize::MAX);
        // Which they were that are not remembered nobody knows.
        since > self.ended.len()
            || stamp.iter().any(|(scope, _)| self.contains(scope))
            || self
                .ended
                .iter()
                .rev()
                .take(since)
                .any(|ended| stamp.contains(*ended))
    }

    /// Adds an invalidation; returns it with its number.
    pub(super) fn enter(&mut self, scope: Scope) -> (Scope, u64) {
        self.latest = self.latest.saturating_add(1);
        let latest = self.latest;
        let only = Numbers {
            since: latest,
            latest,
        };
        let numbers = self.numbers.entry(scope).or_insert(only);
        numbers.latest = latest;
        self.order.insert((numbers.since, scope));
        (scope, latest)
    }

    /// Takes an invalidation off that the store has been told of, and with it those before; another one
    /// that has followed leaves the scope pending.
    pub(super) fn end(&mut self, (scope, number): (Scope, u64)) {
        let Some(numbers) = self.numbers.get_mut(&scope) else {
            return;
        };
        if number < numbers.since {
            return;
        }
        self.order.remove(&(numbers.since, scope));
        if number < numbers.latest {
            numbers.since = number.saturating_add(1);
            self.order.insert((numbers.since, scope));
            return;
        }
        self.numbers.remove(&scope);
        if self.ended.len() == MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(scope);
        self.endings = self.endings.saturating_add(1);
    }

    /// Puts one scope in place of all, which whatever holds one of them holds too. Returns those, of
    /// which there are so many that to drop them takes time.
    pub(super) fn become_one(&mut self, everything: Scope) -> Self {
        let one = Self {
            latest: self.latest,
            ended: std::mem::take(&mut self.ended),
            endings: self.endings,
            ..Self::default()
        };
        let crowd = std::mem::replace(self, one);
        self.enter(everything);
        crowd
    }

    /// Returns what is to be told next.
    pub(super) fn next_batch(&mut self) -> Vec<(Scope, u64)> {
        let behind = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let ahead = self.order.range((behind, Bound::Unbounded));
        let batch = ahead.chain(&self.order).take(BATCH.min(self.len()));
        let turn = batch.clone().last().copied();
        let numbers = |(_, scope): &_| Some((*scope, self.numbers.get(scope)?.latest));
        let batch = batch.filter_map(numbers).collect();
        self.turn = turn;
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::epoch::Epoch;

    fn scope(number: usize) -> Scope {
        Scope::tag("n", &number.to_be_bytes())
    }

    fn stamp(number: usize) -> Stamp {
        let epoch = Epoch::new(1).unwrap();
        [(scope(number), epoch)].into_iter().collect()
    }

    #[derive(Clone, Debug)]
    enum Act {
        Enter(usize),
        /// Confirm the invalidation that was entered so many acts ago, if one was.
        End(usize),
        Become(usize),
        /// Ask the store.
        Ask,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => (0..6_usize).prop_map(Act::Enter),
            4 => (0..8_usize).prop_map(Act::End),
            1 => (0..6_usize).prop_map(Act::Become),
            2 => Just(Act::Ask),
        ];
        prop::collection::vec(act, 0..60)
    }

    proptest! {
        /// What was pending when the store was asked, or is when it has answered, is refused; what was
        /// not pending at any time in between is not.
        #[test]
        fn what_was_pending_when_the_store_was_asked_is_known_afterwards(acts in acts()) {
            let mut pending = Pending::default();
            let mut entered = Vec::new();
            // Of each question: how many had ended, what was pending then, or the one that all have
            // become since, and what was pending at any time since.
            let mut questions: Vec<(u64, HashSet<Scope>, HashSet<Scope>)> = Vec::new();
            let mut untold: Vec<(Scope, u64)> = Vec::new();
            for act in acts {
                match act {
                    Act::Enter(number) => {
                        entered.push(pending.enter(scope(number)));
                        untold.extend(entered.last());
                    }
                    Act::End(ago) => {
                        if let Some(place) = entered.len().checked_sub(ago + 1) {
                            let (told, until) = entered[place];
                            pending.end((told, until));
                            untold.retain(|(scope, number)| *scope != told || *number > until);
                        }
                    }
                    Act::Become(number) => {
                        let one = scope(number);
                        for (_, then, _) in &mut questions {
                            let count = then.len();
                            then.retain(|scope| !pending.contains(*scope));
                            if then.len() < count {
                                then.insert(one);
                            }
                        }
                        drop(pending.become_one(one));
                        untold = vec![(one, pending.latest())];
                    }
                    Act::Ask => {
                        let now: HashSet<_> = pending.numbers.keys().copied().collect();
                        questions.push((pending.endings(), now.clone(), now));
                    }
                }
                let now: HashSet<_> = pending.numbers.keys().copied().collect();
                prop_assert!(pending.order.iter().all(|(n, s)| pending.numbers[s].since == *n));
                prop_assert_eq!(pending.order.len(), now.len());
                prop_assert_eq!(now.len(), untold.iter().map(|(s, _)| s).collect::<HashSet<_>>().len());
                prop_assert!(untold.iter().all(|(_, number)| pending.waits_since(*number)));
                for (endings, then, ever) in &mut questions {
                    ever.extend(&now);
                    for number in 0..6 {
                        let concerned = pending.concerns(&stamp(number), *endings);
                        let scope = scope(number);
                        prop_assert!(concerned || !now.contains(&scope));
                        prop_assert!(concerned || !then.contains(&scope));
                        prop_assert!(!concerned || ever.contains(&scope));
                    }
                }
            }
        }
    }

    #[test]
    fn what_has_ended_too_long_ago_may_have_been_anything() {
        let mut pending = Pending::default();
        let before = pending.endings();
        for number in 1..=MAX_ENDED {
            let entered = pending.enter(scope(number));
            pending.end(entered);
        }
        assert!(pending.concerns(&stamp(1), before));
        assert!(!pending.concerns(&stamp(0), before));
        let entered = pending.enter(scope(1));
        pending.end(entered);
        assert!(pending.concerns(&stamp(0), before));
        assert!(!pending.concerns(&stamp(0), pending.endings()));
    }

    #[test]
    fn what_is_invalidated_again_stays_until_that_is_told() {
        let mut pending = Pending::default();
        let first = pending.enter(scope(1));
        let second = pending.enter(scope(1));
        assert!(pending.waits_since(first.1));
        pending.end(first);
        assert!(pending.contains(scope(1)) && pending.waits_since(second.1));
        assert!(!pending.waits_since(first.1));
        pending.end(second);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn each_has_its_turn_though_none_can_be_told() {
        let mut pending = Pending::default();
        let count = 2 * BATCH + 10;
        for number in 0..count {
            pending.enter(scope(number));
        }
        let mut told = HashSet::new();
        for _ in 0..3 {
            let batch = pending.next_batch();
            assert_eq!(batch.len(), BATCH);
            told.extend(batch);
            pending.enter(scope(0));
        }
        assert!((1..count).all(|number| told.iter().any(|(s, _)| *s == scope(number))));
    }
}
