//! The servers that a store is spread over.
//!
//! One server has everything. In a cluster each primary has some of 16,384 slots, and the name of a
//! thing decides about its slot ([`slot`]). What is kept under one primary key shares a slot, and so
//! do the epoch of a tag and its mark; the epochs that a response stands under may be anywhere.
//!
//! Whatever asks or tells does so through a [`Dispatch`], as if there were one server. With several,
//! it takes the commands apart ([`split`]), so that none spans slots, and sends each server its own
//! in one piece, all at the same time: that takes as long as one round trip to the slowest of them.
//! A server that is away fails what needs it, and nothing else.
//!
//! Which primary has a slot is known from the servers ([`map`]), and asked again when something
//! points to a change ([`cluster`]).
//!
//! The epoch of a namespace is in one place, whoever holds what stands under it. So it is the one to
//! delete when any of them turns out to have been restored from a dump
//! ([`incarnation`](super::incarnation)).

mod cluster;
mod dispatch;
mod map;
mod shard;
mod slot;
mod slots;
mod split;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use self::cluster::Cluster;
pub(crate) use self::dispatch::Dispatch;
use self::map::Map;
use self::shard::Shard;
pub(crate) use self::shard::{Lane, Plan};
use super::connection::Target;
use super::control::Watch;
use super::epochs::Known;
use super::layout::Name;
use crate::epoch::{Scope, Stamp};
use crate::error::{Error, ErrorKind};
use crate::key::Namespace;
use crate::store::StoreHealth;

/// The servers of a store, and which of them has what.
pub(crate) struct Shards {
    servers: Servers,
    plan: Plan,
}

#[derive(Debug)]
enum Servers {
    One(Arc<Map>),
    Cluster(Cluster),
}

impl Shards {
    /// Connects to a server, or to the primaries of a cluster.
    ///
    /// # Errors
    ///
    /// When the server does not answer in time, or refuses; of a cluster, when all that the target
    /// names do.
    pub(crate) async fn open(target: Target, plan: Plan) -> Result<Self, Error> {
        let servers = match target {
            Target::Server(address) => Servers::one(Shard::open(address, &plan).await?),
            Target::Cluster(one, seeds) => {
                Servers::Cluster(Cluster::open(one, seeds, plan.clone()).await?)
            }
        };
        Ok(Self { servers, plan })
    }

    /// Connects in the background, trying until it succeeds.
    ///
    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub(crate) fn open_lazily(target: Target, plan: Plan) -> Result<Self, Error> {
        let servers = match target {
            Target::Server(address) => Servers::one(Shard::open_lazily(address, &plan)?),
            Target::Cluster(one, seeds) => {
                Servers::Cluster(Cluster::open_lazily(one, seeds, plan.clone())?)
            }
        };
        Ok(Self { servers, plan })
    }

    /// Begins to ask and tell, all of it within `limit`.
    pub(crate) fn begin(&self, lane: Lane, limit: Duration) -> Dispatch<'_> {
        let deadline = self.plan.clock.now() + limit;
        Dispatch::new(self.map(), lane, deadline, self.generation())
    }

    /// Reads epochs on the connections on which the servers tell when they change, and remembers them
    /// for as long as they may be believed.
    ///
    /// # Errors
    ///
    /// When a server cannot be asked, or not within `limit`, and where nothing is mirrored.
    pub(crate) async fn load(
        &self,
        namespace: &Namespace,
        scopes: &[Scope],
        limit: Duration,
    ) -> Result<Known, Error> {
        let dispatch = self.begin(Lane::Short, limit);
        dispatch.load(namespace, scopes).await
    }

    /// Reads a lock, and returns with it what ends when something becomes of it.
    ///
    /// # Errors
    ///
    /// When its server cannot be asked, or not within `limit`, or does not tell.
    pub(crate) async fn watch(
        &self,
        name: &Name,
        limit: Duration,
    ) -> Result<(Option<Bytes>, Watch), Error> {
        let map = self.map();
        let slot = slot::of(name.as_bytes());
        let owner = map.sole().or_else(|| map.owner(slot));
        owner
            .ok_or_else(|| map::unowned(slot))?
            .watch(name, limit)
            .await
    }

    /// Whether every epoch of a stamp is known to be current, without asking.
    pub(crate) fn vouch_for(&self, stamp: &Stamp) -> bool {
        self.with_map(|map| map.vouches_for(stamp))
    }

    /// Holds the epochs of scopes for current no longer. The servers tell as well, but perhaps later
    /// than the caller tells others.
    pub(crate) fn forget(&self, scopes: &[Scope]) {
        self.with_map(|map| map.forget(scopes));
    }

    /// Returns how long a process that shares the servers may go on believing what it has read.
    pub(crate) fn staleness(&self) -> Duration {
        let moves = self.with_map(|map| map.sole().is_some_and(|shard| shard.moves()));
        self.plan.mirroring.staleness(moves)
    }

    /// Counts, from one, how often a server may have lost what it was told.
    pub(crate) fn generation(&self) -> u64 {
        self.plan.bulletin.generation()
    }

    /// Makes sure that all servers answer within `limit`.
    ///
    /// # Errors
    ///
    /// When one of them does not, or none is known.
    pub(crate) async fn check(&self, limit: Duration) -> Result<(), Error> {
        let map = self.map();
        let deadline = self.plan.clock.now() + limit;
        let checks = map.shards().iter().map(|shard| shard.check(deadline));
        let checks = join_all(checks).await;
        if checks.is_empty() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "no server of the cluster is known",
            ));
        }
        checks.into_iter().collect()
    }

    /// Returns how the servers are doing: how the worst of them is.
    pub(crate) fn health(&self) -> StoreHealth {
        let worst = self.with_map(Map::health);
        match (worst, &self.servers) {
            (Some(worst), _) => worst,
            (None, Servers::Cluster(cluster)) => cluster.health(),
            (None, Servers::One(_)) => StoreHealth::default(),
        }
    }

    /// Ends all connections for good, once the commands under way are answered or out of time.
    pub(crate) async fn close(&self) {
        if let Servers::Cluster(cluster) = &self.servers {
            cluster.stop();
        }
        join_all(self.map().shards().iter().map(|shard| shard.close())).await;
    }

    fn map(&self) -> Arc<Map> {
        match &self.servers {
            Servers::One(map) => Arc::clone(map),
            Servers::Cluster(cluster) => cluster.map().load_full(),
        }
    }

    fn with_map<T>(&self, look: impl FnOnce(&Map) -> T) -> T {
        match &self.servers {
            Servers::One(map) => look(map),
            Servers::Cluster(cluster) => look(&cluster.map().load()),
        }
    }
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.servers.fmt(f)
    }
}

impl Servers {
    fn one(shard: Shard) -> Self {
        Self::One(Arc::new(Map::of_one(shard)))
    }
}
