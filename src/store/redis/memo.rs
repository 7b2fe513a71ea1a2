//! What a process remembers of its look-ups, to need one round trip instead of two.

use std::fmt;

use parking_lot::Mutex;

use super::layout::Digest;

/// A bounded map from digests to hints.
///
/// A digest has one place, which it shares with others: whoever comes last stays. What is
/// forgotten, or wrong by now, costs a round trip.
pub(super) struct Memo<T>(Box<[Place<T>]>);

type Place<T> = Mutex<Option<(Digest, T)>>;

impl<T: Clone> Memo<T> {
    const PLACES: usize = 8192;

    pub(super) fn new() -> Self {
        Self((0..Self::PLACES).map(|_| Mutex::new(None)).collect())
    }

    pub(super) fn recall(&self, digest: &Digest) -> Option<T> {
        let place = self.place(digest)?.lock();
        let (held, hint) = place.as_ref()?;
        (held == digest).then(|| hint.clone())
    }

    /// Remembers a hint, or with `None` forgets what was known.
    pub(super) fn note(&self, digest: &Digest, hint: Option<T>) {
        let Some(place) = self.place(digest) else {
            return;
        };
        let mut place = place.lock();
        match hint {
            Some(hint) => *place = Some((*digest, hint)),
            None if place.as_ref().is_some_and(|(held, _)| held == digest) => *place = None,
            None => {}
        }
    }

    fn place(&self, digest: &Digest) -> Option<&Place<T>> {
        let (low, _) = digest.split_first_chunk()?;
        self.0
            .get(usize::from(u16::from_be_bytes(*low)) % Self::PLACES)
    }
}

impl<T> fmt::Debug for Memo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_recalled_until_another_takes_its_place() {
        let memo = Memo::new();
        let (one, mut other) = ([1; 16], [1; 16]);
        other[15] = 2;
        memo.note(&one, Some("one"));
        assert_eq!(memo.recall(&one), Some("one"));
        assert_eq!(memo.recall(&other), None);
        memo.note(&other, None);
        assert_eq!(memo.recall(&one), Some("one"));
        memo.note(&other, Some("other"));
        assert_eq!(memo.recall(&one), None);
        memo.note(&other, None);
        assert_eq!(memo.recall(&other), None);
    }
}
