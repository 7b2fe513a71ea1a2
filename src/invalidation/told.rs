//! What the store has been told of lately, and may lose.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::MAX_SCOPES;
use crate::epoch::Scope;

/// Scopes with the time to forget each, the earliest first; a bounded number of them.
///
/// All that one of these holds passes to another in one step: hits wait while it does.
#[derive(Debug, Default)]
pub(super) struct Told {
    queue: VecDeque<(Instant, Scope)>,
    /// How often each of them is in the queue.
    counts: BTreeMap<Scope, usize>,
}

impl Told {
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    pub(super) fn contains(&self, scope: Scope) -> bool {
        self.counts.contains_key(&scope)
    }

    /// Adds scopes, for a time no earlier than those before. Too many become `everything`.
    pub(super) fn push(
        &mut self,
        time: Instant,
        scopes: impl ExactSizeIterator<Item = Scope>,
        everything: Scope,
    ) {
        if self.queue.len().saturating_add(scopes.len()) > MAX_SCOPES {
            *self = Self::default();
            self.add(time, everything);
        } else {
            scopes.for_each(|scope| self.add(time, scope));
        }
    }

    fn add(&mut self, time: Instant, scope: Scope) {
        self.queue.push_back((time, scope));
        let count = self.counts.entry(scope).or_default();
        *count = count.saturating_add(1);
    }

    /// Takes out what is the first to be forgotten.
    pub(super) fn pop(&mut self) -> Option<Scope> {
        let (_, scope) = self.queue.pop_front()?;
        match self.counts.get_mut(&scope) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.counts.remove(&scope)),
        }
        Some(scope)
    }

    /// Forgets what it is time to forget.
    pub(super) fn forget_due(&mut self, now: Instant) {
        while self.queue.front().is_some_and(|(time, _)| *time <= now) {
            self.pop();
        }
    }

    /// Takes over all that another one holds.
    pub(super) fn take_over(&mut self, other: &mut Self) {
        if self.queue.is_empty() {
            std::mem::swap(self, other);
        }
        for (time, scope) in std::mem::take(other).queue {
            self.add(time, scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tag(number: usize) -> Scope {
        Scope::tag("n", &number.to_be_bytes())
    }

    #[test]
    fn what_was_told_twice_is_held_until_both_are_forgotten() {
        let (start, everything) = (Instant::now(), Scope::namespace("n"));
        let second = |n| start + Duration::from_secs(n);
        let mut told = Told::default();
        told.push(second(1), [tag(1), tag(2)].into_iter(), everything);
        told.push(second(2), [tag(1)].into_iter(), everything);
        assert_eq!(told.len(), 2);
        told.forget_due(second(1));
        assert!(told.contains(tag(1)) && !told.contains(tag(2)));
        told.forget_due(second(2));
        assert_eq!((told.len(), told.pop()), (0, None));
    }

    #[test]
    fn what_is_taken_over_comes_behind_what_is_there() {
        let (now, everything) = (Instant::now(), Scope::namespace("n"));
        let mut recalled = Told::default();
        for tags in [[tag(1), tag(2)], [tag(2), tag(3)]] {
            let mut told = Told::default();
            told.push(now, tags.into_iter(), everything);
            recalled.take_over(&mut told);
            assert_eq!(told.len(), 0);
        }
        assert_eq!(recalled.len(), 3);
        let taken: Vec<_> = std::iter::from_fn(|| recalled.pop()).collect();
        assert_eq!(taken, [tag(1), tag(2), tag(2), tag(3)]);
    }

    #[test]
    fn too_many_become_everything() {
        let (now, everything) = (Instant::now(), Scope::namespace("n"));
        let many: Vec<_> = (0..MAX_SCOPES).map(tag).collect();
        let mut told = Told::default();
        told.push(now, many.into_iter(), everything);
        assert_eq!(told.len(), MAX_SCOPES);
        told.push(now, [tag(0)].into_iter(), everything);
        assert_eq!((told.len(), told.pop()), (1, Some(everything)));
    }
}
