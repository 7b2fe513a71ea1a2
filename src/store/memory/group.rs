//! What is stored under one key.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::epochs::Standing;
use crate::entry::StoredResponse;

/// More variants than this are not kept under one key.
pub(super) const MAX_VARIANTS: usize = 32;

/// The variants under one key, the oldest first. Most keys have one.
pub(super) type Variants = SmallVec<[Arc<Resident>; 1]>;

/// A stored response, and what the store adds to it.
pub(in crate::store) struct Resident {
    pub(in crate::store) response: Arc<StoredResponse>,
    pub(super) standing: Standing,
    pub(in crate::store) expires: Instant,
    /// Until when it may be served though the store that it is from cannot be asked.
    pub(in crate::store) trusted: Mutex<Instant>,
    /// Its size in bytes.
    pub(super) weight: u64,
}

impl Resident {
    pub(super) fn new(
        response: Arc<StoredResponse>,
        standing: Standing,
        expires: Instant,
        trusted: Instant,
    ) -> Self {
        /// What a response takes beside itself, in bytes: its place in the map, its turn to expire,
        /// its spans.
        const BOOKKEEPING: usize = 512;
        let weight = response.size().saturating_add(BOOKKEEPING);
        Self {
            weight: u64::try_from(weight).unwrap_or(u64::MAX),
            trusted: Mutex::new(trusted),
            response,
            standing,
            expires,
        }
    }
}

/// The variants under one key; replaced as a whole when one of them changes.
pub(super) struct Group {
    pub(super) variants: Variants,
    /// The size of all variants in bytes.
    pub(super) weight: u64,
    pub(super) turn: Turn,
}

/// When the first variant of a group expires. The number tells groups apart: no two have the same.
pub(super) type Turn = (Instant, u64);

impl Group {
    /// Makes the group of these variants, if there are any.
    pub(super) fn new(variants: Variants, number: u64) -> Option<Self> {
        let first = variants.iter().map(|variant| variant.expires).min()?;
        Some(Self {
            weight: weight(&variants),
            turn: (first, number),
            variants,
        })
    }
}

/// Adds a variant in place of the one that answered the same requests.
///
/// The invalidated go too, and the oldest where there are more than [`MAX_VARIANTS`] or they weigh
/// more than `limit`.
pub(super) fn add(variants: &mut Variants, newcomer: Arc<Resident>, limit: u64) {
    variants.retain(|held| {
        held.standing.is_current() && !held.response.is_same_variant(&newcomer.response)
    });
    variants.push(newcomer);
    while variants.len() > MAX_VARIANTS || weight(variants) > limit {
        variants.remove(0);
    }
}

fn weight(variants: &[Arc<Resident>]) -> u64 {
    variants.iter().map(|variant| variant.weight).sum()
}
