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
use crate::store::redis::control::Mirror;
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
        shard.set_tag(Some("n".to_owned()));
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
            shard.set_tag(tag);
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
    ///
    /// # Errors
    ///
    /// When none is known.
    pub(super) fn owner_of(&self, scope: Scope) -> Result<&Shard, Error> {
        if let Some(shard) = self.sole() {
            return Ok(shard);
        }
        let slot = slot::of_tag(layout::hash_tag(scope).as_bytes());
        self.owner(slot).ok_or_else(|| unowned(slot))
    }

    /// Returns scopes by the servers that have their epochs.
    ///
    /// # Errors
    ///
    /// When none is known that has one of them.
    pub(super) fn by_owner<'a>(&'a self, scopes: &[Scope]) -> Result<Owners<'a>, Error> {
        let mut owners = Owners::new();
        for scope in scopes {
            let owner = self.owner_of(*scope)?;
            match owners.iter_mut().find(|(shard, _)| ptr::eq(*shard, owner)) {
                Some((_, scopes)) => scopes.push(*scope),
                None => owners.push((owner, smallvec![*scope])),
            }
        }
        Ok(owners)
    }

    /// Holds the epochs of scopes for current no longer.
    pub(super) fn forget(&self, scopes: &[Scope]) {
        for scope in scopes {
            if let Some(mirror) = self.owner_of(*scope).ok().and_then(Shard::mirror) {
                mirror.forget(layout::slot(*scope));
            }
        }
    }

    /// Whether every epoch of a stamp is known to be current, without asking.
    pub(super) fn vouches_for(&self, stamp: &Stamp) -> bool {
        if let Some(shard) = self.sole() {
            return shard.mirror().is_some_and(|mirror| mirror.confirms(stamp));
        }
        stamp.iter().all(|(scope, epoch)| {
            let mirror = self.owner_of(scope).ok().and_then(Shard::mirror);
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

    /// Returns how the servers are doing: how the worst of them is, and how the worst of the mirrors,
    /// if there are any.
    pub(super) fn health(&self) -> Option<StoreHealth> {
        let all = self.shards.iter().map(|shard| shard.health());
        let worst =
            all.max_by_key(|health| (!health.connected, health.degraded_since.map(Reverse)))?;
        let mirrors = self.shards.iter().filter_map(|shard| shard.mirror());
        let mirror = mirrors
            .map(Mirror::health)
            .min_by_key(|mirror| mirror.lease);
        Some(StoreHealth { mirror, ..worst })
    }
}

/// Says that nobody is known to have a slot.
pub(super) fn unowned(slot: u16) -> Error {
    let message = format!("no server of the cluster is known to have slot {slot}");
    Error::new(ErrorKind::Unavailable, message)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::redis::RedisStore;
    use crate::store::redis::connection::Target;

    /// Makes a map of slots by first, last and port, whose servers are not there.
    pub(in super::super) fn map(ranges: &[(u16, u16, u16)]) -> (Map, Slots) {
        let url = "redis+cluster://127.0.0.1:1";
        let Ok(Target::Cluster(one, seeds)) = Target::parse(url, &Default::default()) else {
            panic!("{url} is a cluster");
        };
        let ranges = ranges.iter().map(|(first, last, port)| slots::Range {
            first: *first,
            last: *last,
            primary: seeds[0].beside("", *port).unwrap(),
        });
        let slots = Slots {
            ranges: ranges.collect(),
            replicas: Vec::new(),
        };
        let plan = RedisStore::builder(url).plan().unwrap();
        let open = |at: &Endpoint| Shard::open_lazily(one.with(at.clone()), &plan).unwrap();
        let shards = slots.primaries().map(|at| Arc::new(open(at))).collect();
        (Map::of_cluster(&slots, shards), slots)
    }

    fn port(shard: &Shard) -> u16 {
        match shard.endpoint() {
            Some(Endpoint::Tcp { port, .. }) => *port,
            at => panic!("{at:?}"),
        }
    }

    #[tokio::test]
    async fn a_slot_has_one_owner_or_none() {
        let (map, slots) = map(&[(0, 99, 1), (100, 100, 2), (200, 16_383, 1)]);
        for (slot, owner) in [
            (0, Some(1)),
            (99, Some(1)),
            (100, Some(2)),
            (101, None),
            (199, None),
            (200, Some(1)),
            (16_383, Some(1)),
        ] {
            assert_eq!(map.owner(slot).map(port), owner, "{slot}");
        }
        assert_eq!(map.shards().len(), 2);
        let own: Vec<_> = map.slots_of(&map.shards()[0]).collect();
        assert_eq!(own, [(0, 99), (200, 16_383)]);
        assert!(map.is_of(&slots) && map.sole().is_none());
        assert!(!Map::unknown().is_of(&slots));
        assert!(Map::unknown().owner(0).is_none());
    }

    #[tokio::test]
    async fn scopes_are_with_those_who_have_their_epochs() {
        let (map, _) = map(&[(0, 8191, 1), (8192, 16_383, 2)]);
        let scopes: Vec<_> = (0..50_u8).map(|n| Scope::tag("a", &[n])).collect();
        let owners = map.by_owner(&scopes).unwrap();
        assert_eq!(owners.len(), 2);
        for (shard, scopes) in &owners {
            for scope in scopes {
                let name = layout::epoch(&Default::default(), *scope);
                let owner = map.owner(slot::of(name.as_bytes())).unwrap();
                assert!(ptr::eq(owner, *shard), "the tag stands for the name");
            }
        }
        let all: usize = owners.iter().map(|(_, scopes)| scopes.len()).sum();
        assert_eq!(all, scopes.len());
        let error = Map::unknown().by_owner(&scopes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
