//! Scopes of which something has to be done, or can be forgotten, at a time.

use std::collections::VecDeque;
use std::time::Instant;

use super::MAX_SCOPES;
use crate::epoch::Scope;

/// Scopes with a time each, the earliest first; a bounded number of them.
#[derive(Debug, Default)]
pub(super) struct Dated(VecDeque<(Instant, Scope)>);

impl Dated {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds scopes, for a time no earlier than those before. Too many become `everything`.
    pub(super) fn push(
        &mut self,
        time: Instant,
        scopes: impl ExactSizeIterator<Item = Scope>,
        everything: Scope,
    ) {
        if self.0.len().saturating_add(scopes.len()) > MAX_SCOPES {
            self.0.clear();
            self.0.push_back((time, everything));
        } else {
            self.0.extend(scopes.map(|scope| (time, scope)));
        }
    }

    /// Takes the scopes out whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> impl Iterator<Item = Scope> {
        let due = self.0.partition_point(|(time, _)| *time <= now);
        self.0.drain(..due).map(|(_, scope)| scope)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_due_comes_out_once_and_too_many_become_everything() {
        let everything = Scope::namespace("n");
        let tag = |n: usize| Scope::tag("n", &n.to_be_bytes());
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        let mut dated = Dated::default();
        dated.push(second(1), [tag(1)].into_iter(), everything);
        dated.push(second(2), [tag(2), tag(3)].into_iter(), everything);
        assert_eq!(dated.take_due(start).count(), 0);
        assert!(dated.take_due(second(1)).eq([tag(1)]));
        assert!(dated.take_due(second(2)).eq([tag(2), tag(3)]));
        assert!(dated.is_empty());

        let many: Vec<_> = (0..MAX_SCOPES).map(tag).collect();
        dated.push(second(3), many.iter().copied(), everything);
        assert_eq!(dated.0.len(), MAX_SCOPES);
        dated.push(second(4), [tag(0)].into_iter(), everything);
        assert!(dated.take_due(second(4)).eq([everything]));
        assert!(dated.is_empty());
    }
}
