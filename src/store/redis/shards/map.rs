//! Which server has what.

use std::cmp::Reverse;
use std::ptr;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::shard::Shard;
use super::slot;
use super::slots::{self, Slots};
use crate::epoch::{Scope, Stamp};
use crate::error::{Error, ErrorKind};
use crate::store::StoreHealth;
use crate::store::redis::connection::Endpoint;
use crate::store::redis::layout;

/// The servers of a store, and who has which slot.
#[derive(Debug)]
pub(super) struct Map {
    shards: Vec<Arc<Shard>>,
    /// In order; `None` where one server has everything and knows of no slots.
    ranges: Option<Vec<Range>>,
}

/// Servers with the scopes whose epochs they have.
type Owners<'a> = SmallVec<[(&'a Shard, SmallVec<[Scope; 4]>); 1]>;

/// Slots in a row that one of the servers has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    shard: usize,
}

impl Map {
    /// Makes the map of one server that is no cluster's.
    pub(super) fn of_one(shard: Shard) -> Self {
        Self {
            shards: vec![Arc::new(shard)],
            ranges: None,
        }
    }

    /// Makes the map of a cluster of which nothing is known.
    pub(super) fn unknown() -> Self {
        Self {
            shards: Vec::new(),
            ranges: Some(Vec::new()),
        }
    }

    /// Makes the map of a cluster, of these primaries. What none of them has, nobody has.
    pub(super) fn of_cluster(slots: &Slots, shards: Vec<Arc<Shard>>) -> Self {
        let range = |range: &slots::Range| {
            let shard = shards
                .iter()
                .position(|shard| shard.is_at(&range.primary))?;
            let slots::Range { first, last, .. } = *range;
            Some(Range { first, last, shard })
        };
        let ranges: Vec<Range> = slots.ranges.iter().filter_map(range).collect();
        let map = Self {
            shards,
            ranges: Some(ranges),
        };
        for shard in &map.shards {
            let has = |tag: &str| {
                let owner = map.owner(slot::of_tag(tag.as_bytes()));
                owner.is_some_and(|owner| ptr::eq(owner, shard.as_ref()))
            };
            // One in a few numbers is a tag of a slot that the server has.
            let tag = (0..u32::MAX)
                .map(|tag| tag.to_string())
                .find(|tag| has(tag));
            shard.beat_with(tag.as_deref().map(layout::pulse));
        }
        map
    }

    /// Whether these are the primaries and their slots.
    pub(super) fn is_of(&self, slots: &Slots) -> bool {
        let ranges = self.ranges.as_deref().unwrap_or_default();
        let same = |(held, told): (&Range, &slots::Range)| {
            let shard = self.shards.get(held.shard);
            (held.first, held.last) == (told.first, told.last)
                && shard.is_some_and(|shard| shard.is_at(&told.primary))
        };
        ranges.len() == slots.ranges.len() && ranges.iter().zip(&slots.ranges).all(same)
    }

    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// Returns the server that has everything, and takes commands that span slots.
    pub(super) fn sole(&self) -> Option<&Shard> {
        match self.ranges {
            None => self.shards.first().map(Arc::as_ref),
            Some(_) => None,
        }
    }

    /// Returns the server at an address.
    pub(super) fn at(&self, endpoint: &Endpoint) -> Option<&Arc<Shard>> {
        self.shards.iter().find(|shard| shard.is_at(endpoint))
    }

    /// Returns the server that has a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Shard> {
        let ranges = self.ranges.as_deref()?;
        let next = ranges.partition_point(|range| range.last < slot);
        let range = ranges.get(next).filter(|range| range.first <= slot)?;
        self.shards.get(range.shard).map(Arc::as_ref)
    }

    /// Returns the server that has the epoch of a scope.
    pub(super) fn owner_of(&self, scope: Scope) -> Option<&Shard> {
        self.sole()
            .or_else(|| self.owner(slot::of_tag(layout::hash_tag(scope).as_bytes())))
    }

    /// Returns scopes by the servers that have their epochs.
    ///
    /// # Errors
    ///
    /// When no server is known to have one of them.
    pub(super) fn by_owner<'a>(&'a self, scopes: &[Scope]) -> Result<Owners<'a>, Error> {
        let mut owners = Owners::new();
        for scope in scopes {
            let owner = self.owner_of(*scope).ok_or_else(|| {
                let message = "no server of the cluster is known to have an epoch";
                Error::new(ErrorKind::Unavailable, message)
            })?;
            match owners.iter_mut().find(|(shard, _)| ptr::eq(*shard, owner)) {
                Some((_, scopes)) => scopes.push(*scope),
                None => owners.push((owner, smallvec![*scope])),
            }
        }
        Ok(owners)
    }

    /// Whether every epoch of a stamp is known to be current, without asking.
    pub(super) fn vouches_for(&self, stamp: &Stamp) -> bool {
        if let Some(shard) = self.sole() {
            return shard.mirror().is_some_and(|mirror| mirror.confirms(stamp));
        }
        stamp.iter().all(|(scope, epoch)| {
            let mirror = self.owner_of(scope).and_then(Shard::mirror);
            mirror.is_some_and(|mirror| mirror.holds(scope, epoch))
        })
    }

    /// Returns the slots of a server, by first and last.
    pub(super) fn slots_of(&self, shard: &Shard) -> impl Iterator<Item = (u16, u16)> {
        let ranges = self.ranges.iter().flatten().filter(move |range| {
            let owner = self.shards.get(range.shard);
            owner.is_some_and(|owner| ptr::eq(owner.as_ref(), shard))
        });
        ranges.map(|range| (range.first, range.last))
    }

    /// Returns how the servers are doing: how the worst of them is, if there are any.
    pub(super) fn health(&self) -> Option<StoreHealth> {
        let all = self.shards.iter().map(|shard| shard.health());
        all.max_by_key(|health| (!health.connected, health.degraded_since.map(Reverse)))
    }
}
