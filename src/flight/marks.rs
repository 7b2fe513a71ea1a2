//! Keys that go without a flight for a while.

use std::hash::{BuildHasher, Hash};
use std::time::Instant;

use foldhash::quality::RandomState;

/// A bounded set of keys, each until a moment of its own.
///
/// Each key has one slot, which the last one to take it keeps. A mark that is lost to another costs
/// one flight more, so nothing is searched for, sorted or thrown out.
pub(super) struct Marks<K> {
    slots: Box<[Option<(K, Instant)>]>,
    hasher: RandomState,
}

impl<K: Hash + Eq> Marks<K> {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: std::iter::repeat_with(|| None).take(slots).collect(),
            hasher: RandomState::default(),
        }
    }

    pub(super) fn set(&mut self, key: K, until: Instant) {
        if let Some(slot) = self.slot(&key).and_then(|slot| self.slots.get_mut(slot)) {
            *slot = Some((key, until));
        }
    }

    pub(super) fn holds(&self, key: &K, now: Instant) -> bool {
        let slot = self.slot(key).and_then(|slot| self.slots.get(slot));
        matches!(slot, Some(Some((marked, until))) if marked == key && now < *until)
    }

    fn slot(&self, key: &K) -> Option<usize> {
        let slots = u64::try_from(self.slots.len()).ok()?;
        let slot = self.hasher.hash_one(key).checked_rem(slots)?;
        usize::try_from(slot).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_mark_holds_until_its_moment() {
        let (mut marks, now) = (Marks::new(8), Instant::now());
        marks.set("a", now + Duration::from_secs(1));
        assert!(marks.holds(&"a", now));
        assert!(!marks.holds(&"b", now));
        assert!(!marks.holds(&"a", now + Duration::from_secs(1)));
    }

    #[test]
    fn the_last_marks_are_kept_whatever_their_number() {
        let (mut marks, now) = (Marks::new(16), Instant::now());
        for key in 0..10_000 {
            marks.set(key, now + Duration::from_secs(1));
            assert!(marks.holds(&key, now));
        }
        let held = (0..10_000).filter(|key| marks.holds(key, now)).count();
        assert!(held <= 16, "{held}");
    }

    #[test]
    fn without_slots_nothing_is_marked() {
        let (mut marks, now) = (Marks::new(0), Instant::now());
        marks.set("a", now + Duration::from_secs(1));
        assert!(!marks.holds(&"a", now));
    }
}
