//! Keys that go without a flight for a while.

use std::hash::{BuildHasher, Hash};
use std::time::Instant;

use foldhash::quality::RandomState;

/// A bounded set of keys, each until a moment of its own.
///
/// Each key has one slot, which the last one to take it keeps. A mark that is lost to another costs
/// one flight more, so nothing is searched for, sorted or thrown out. Nor are keys kept, which may be
/// long, but their hashes: two keys that have the same share a mark, and go alone without need.
pub(super) struct Marks {
    slots: Box<[Option<Mark>]>,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Mark {
    hash: u64,
    until: Instant,
}

impl Marks {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: vec![None; slots].into(),
            hasher: RandomState::default(),
        }
    }

    pub(super) fn set(&mut self, key: &impl Hash, until: Instant) {
        let hash = self.hasher.hash_one(key);
        let slot = self.slot(hash);
        if let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot)) {
            *slot = Some(Mark { hash, until });
        }
    }

    pub(super) fn holds(&self, key: &impl Hash, now: Instant) -> bool {
        let hash = self.hasher.hash_one(key);
        let slot = self.slot(hash);
        let mark = slot.and_then(|slot| self.slots.get(slot).copied().flatten());
        mark.is_some_and(|mark| mark.hash == hash && now < mark.until)
    }

    fn slot(&self, hash: u64) -> Option<usize> {
        let slots = u64::try_from(self.slots.len()).ok()?;
        usize::try_from(hash.checked_rem(slots)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_mark_holds_until_its_moment() {
        let (mut marks, now) = (Marks::new(8), Instant::now());
        marks.set(&"a", now + Duration::from_secs(1));
        assert!(marks.holds(&"a", now));
        assert!(!marks.holds(&"b", now));
        assert!(!marks.holds(&"a", now + Duration::from_secs(1)));
    }

    #[test]
    fn the_last_marks_are_kept_whatever_their_number() {
        let (mut marks, now) = (Marks::new(16), Instant::now());
        for key in 0..10_000 {
            marks.set(&key, now + Duration::from_secs(1));
            assert!(marks.holds(&key, now));
        }
        let held = (0..10_000).filter(|key| marks.holds(key, now)).count();
        assert!(held <= 16, "{held}");
    }

    #[test]
    fn a_mark_keeps_nothing_of_its_key() {
        let (mut marks, now) = (Marks::new(8), Instant::now());
        let key: Arc<str> = "a long one".into();
        marks.set(&key, now + Duration::from_secs(1));
        assert!(marks.holds(&key, now));
        assert_eq!(Arc::strong_count(&key), 1);
        assert!(size_of::<Option<Mark>>() <= 24);
    }

    #[test]
    fn without_slots_nothing_is_marked() {
        let (mut marks, now) = (Marks::new(0), Instant::now());
        marks.set(&"a", now + Duration::from_secs(1));
        assert!(!marks.holds(&"a", now));
    }
}
