//! Scopes, epochs and stamps: what invalidation compares.
//!
//! An *epoch* is a value that stands for "everything of this *scope* so far".
//! A stored response carries the epochs of its scopes, its *stamp*, captured
//! before the handler ran, and is usable only while each of them is the current
//! one. To invalidate a scope is to forget its epoch: whatever carries it,
//! stored or still being produced, can never be read again. An epoch that is
//! lost costs misses, never a stale answer.

use std::fmt;
use std::num::NonZeroU64;

use smallvec::SmallVec;

/// What an invalidation reaches: everything, a route, a path or a tag.
///
/// A scope is a fixed-size digest, so no byte that a client chose reaches a
/// store's own keys, and any number of scopes costs the same to compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    kind: ScopeKind,
    digest: [u8; 16],
}

/// The kinds of [`Scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum ScopeKind {
    /// Everything that the caches of one namespace hold.
    Namespace = b'n',
    /// Everything that one route pattern's rule stored.
    Route = b'r',
    /// One path: on all hosts, with all its queries and variants.
    Path = b'p',
    /// Everything that carries one tag.
    Tag = b't',
}

impl ScopeKind {
    /// Returns the kind that `byte` stands for in a stored entry.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Namespace, Self::Route, Self::Path, Self::Tag]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }

    /// Returns the byte that stands for this kind in stored entries and store keys.
    pub fn byte(self) -> u8 {
        match self {
            Self::Namespace => b'n',
            Self::Route => b'r',
            Self::Path => b'p',
            Self::Tag => b't',
        }
    }
}

impl Scope {
    /// The scope of everything in `namespace`.
    pub fn namespace(namespace: &str) -> Self {
        Self::digest_of(ScopeKind::Namespace, namespace, b"")
    }

    /// The scope of the route with this pattern, as its rule spells it.
    pub fn route(namespace: &str, pattern: &str) -> Self {
        Self::digest_of(ScopeKind::Route, namespace, pattern.as_bytes())
    }

    /// The scope of one path; `path` is percent-decoded, so that all spellings of it share the scope.
    pub fn path(namespace: &str, path: &[u8]) -> Self {
        Self::digest_of(ScopeKind::Path, namespace, path)
    }

    /// The scope of one tag.
    pub fn tag(namespace: &str, tag: &[u8]) -> Self {
        Self::digest_of(ScopeKind::Tag, namespace, tag)
    }

    /// The scope of one group of an origin (RFC 9875), which no tag names. The origin is a scheme
    /// and an authority, which is empty for what all hosts share.
    pub(crate) fn group(namespace: &str, origin: (&[u8], &[u8]), group: &str) -> Self {
        let mut name = Vec::new();
        for part in [origin.0, origin.1] {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            name.extend_from_slice(&length.to_be_bytes());
            name.extend(part.to_ascii_lowercase());
        }
        name.extend_from_slice(group.as_bytes());
        Self::hashed(ScopeKind::Tag, b'g', namespace, &name)
    }

    /// Returns the scope with this digest, as read back from a stored entry.
    pub(crate) fn from_parts(kind: ScopeKind, digest: [u8; 16]) -> Self {
        Self { kind, digest }
    }

    /// Returns what kind of scope this is.
    pub fn kind(&self) -> ScopeKind {
        self.kind
    }

    /// Returns the 128-bit digest that tells this scope from others.
    pub fn digest(&self) -> [u8; 16] {
        self.digest
    }

    fn digest_of(kind: ScopeKind, namespace: &str, name: &[u8]) -> Self {
        Self::hashed(kind, kind.byte(), namespace, name)
    }

    // The namespace is length-prefixed so that no two scopes share an input.
    fn hashed(kind: ScopeKind, first: u8, namespace: &str, name: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[first]);
        hasher.update(
            &u64::try_from(namespace.len())
                .unwrap_or(u64::MAX)
                .to_be_bytes(),
        );
        hasher.update(namespace.as_bytes());
        hasher.update(name);
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Self { kind, digest }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}({:032x})",
            self.kind,
            u128::from_be_bytes(self.digest)
        )
    }
}

/// A value that stands for everything of one scope so far; never reused for another span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(NonZeroU64);

impl Epoch {
    /// Makes an epoch of a non-zero value.
    pub fn new(value: u64) -> Option<Self> {
        NonZeroU64::new(value).map(Self)
    }

    /// Returns the value.
    pub fn value(self) -> u64 {
        self.0.get()
    }
}

/// The epochs that a stored response depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(SmallVec<[(Scope, Epoch); 4]>);

impl Stamp {
    /// Adds the epoch of a scope.
    pub fn push(&mut self, scope: Scope, epoch: Epoch) {
        self.0.push((scope, epoch));
    }

    /// Returns the scopes and their epochs, in the order they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Scope, Epoch)> + '_ {
        self.0.iter().copied()
    }

    /// Returns the epoch that it holds of `scope`.
    pub fn get(&self, scope: Scope) -> Option<Epoch> {
        let (_, epoch) = self.iter().find(|(held, _)| *held == scope)?;
        Some(epoch)
    }

    /// Puts another epoch of `scope` in place of the one that it holds.
    pub fn replace(&mut self, scope: Scope, epoch: Epoch) {
        for (_, held) in self.0.iter_mut().filter(|(held, _)| *held == scope) {
            *held = epoch;
        }
    }

    /// Returns the number of scopes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the stamp names no scope at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every epoch is the one that `current` knows; an unknown one is not.
    pub fn is_current(&self, mut current: impl FnMut(Scope) -> Option<Epoch>) -> bool {
        self.iter()
            .all(|(scope, epoch)| current(scope) == Some(epoch))
    }

    /// Whether the stamp depends on `scope`.
    pub fn contains(&self, scope: Scope) -> bool {
        self.get(scope).is_some()
    }
}

impl FromIterator<(Scope, Epoch)> for Stamp {
    fn from_iter<I: IntoIterator<Item = (Scope, Epoch)>>(epochs: I) -> Self {
        Self(epochs.into_iter().collect())
    }
}

/// What a store knew before the handler ran: the epochs of the scopes known
/// from the request, and the moment by the store's own reckoning.
///
/// The moment decides about tags that only the response names: such a tag may
/// join the stamp only if it was not invalidated since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The epochs of the scopes that the request determines.
    pub stamp: Stamp,
    /// When they were captured; what the number means is the store's own affair.
    pub moment: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_different_kind_namespace_or_name_differ() {
        let scopes = [
            Scope::namespace("a"),
            Scope::namespace("ab"),
            Scope::route("a", "b"),
            Scope::route("a", "/b"),
            Scope::path("a", b"/b"),
            Scope::path("a/", b"b"),
            Scope::tag("a", b"/b"),
        ];
        for (i, left) in scopes.iter().enumerate() {
            for right in &scopes[i + 1..] {
                assert_ne!(left, right);
            }
        }
    }

    #[test]
    fn the_digest_of_a_scope_never_changes() {
        // Processes of different builds share epochs in one Redis.
        assert_eq!(
            format!("{:?}", Scope::tag("default", b"product:42")),
            "Tag(0bdd2f52c59c93d164ec302ea3021713)"
        );
    }

    #[test]
    fn a_stamp_is_current_only_while_every_epoch_is() {
        let route = Scope::route("n", "/a");
        let tag = Scope::tag("n", b"t");
        let [one, two] = [1, 2].map(|value| Epoch::new(value).unwrap());
        let stamp: Stamp = [(route, one), (tag, two)].into_iter().collect();

        assert!(stamp.is_current(|scope| Some(if scope == route { one } else { two })));
        assert!(!stamp.is_current(|_| Some(one)), "a replaced epoch");
        assert!(
            !stamp.is_current(|scope| (scope == route).then_some(one)),
            "a lost epoch"
        );
        assert!(
            Stamp::default().is_current(|_| None),
            "nothing to depend on"
        );
    }
}
