//! Knowing which primary of a cluster has what.
//!
//! All primaries that are known are asked, now and then and whenever something points to a change;
//! what most of them say is so. Which of them has a slot is taken from nowhere else: a command that
//! a server answers with `MOVED` fails, which to a request is a miss, and the next one finds its way
//! by the new map. Who followed it at once would read from a server that may have taken over from
//! another, before what that one may have forgotten is invalidated again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use parking_lot::Mutex;
use redis::{Cmd, Pipeline};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::map::Map;
use super::shard::{Lane, Plan, Shard};
use super::slots::Slots;
use crate::error::{Error, ErrorKind};
use crate::store::StoreHealth;
use crate::store::redis::connection::{Address, Endpoint, runtime};
use crate::store::redis::control::Mirror;

/// How often the primaries are asked while nothing is wrong.
const CALM: Duration = Duration::from_secs(10);
/// How often while one of them is away: another may take its place.
const TROUBLED: Duration = Duration::from_millis(250);
/// How many who are no primaries are asked at the same time.
const AT_ONCE: usize = 8;
/// The least time between two questions.
const BREATH: Duration = Duration::from_millis(20);

/// A cluster, whose map is kept up by a task that ends when this value is dropped.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    plan: Plan,
    /// How its servers are spoken to.
    one: Address,
    seeds: Vec<Endpoint>,
    map: ArcSwap<Map>,
    found: Mutex<Found>,
}

/// What has been found out beside the map.
#[derive(Default)]
struct Found {
    replicas: Vec<Endpoint>,
    /// Why the servers could not be asked the last time, and since when.
    failure: Option<(SystemTime, String)>,
}

impl Cluster {
    /// Asks the servers for the cluster's primaries and connects to them. One that cannot be reached
    /// is tried again in the background.
    ///
    /// # Errors
    ///
    /// When none of the servers answers in time, or all refuse.
    pub(super) async fn open(
        one: Address,
        seeds: Vec<Endpoint>,
        plan: Plan,
    ) -> Result<Self, Error> {
        runtime()?;
        let shared = Shared::new(one, seeds, plan);
        shared.refresh().await?;
        Self::start(shared)
    }

    /// Does all that in the background, trying until it succeeds.
    ///
    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub(super) fn open_lazily(
        one: Address,
        seeds: Vec<Endpoint>,
        plan: Plan,
    ) -> Result<Self, Error> {
        Self::start(Shared::new(one, seeds, plan))
    }

    fn start(shared: Shared) -> Result<Self, Error> {
        let shared = Arc::new(shared);
        let task = runtime()?.spawn(Arc::clone(&shared).watch()).abort_handle();
        Ok(Self { shared, task })
    }

    pub(super) fn map(&self) -> &ArcSwap<Map> {
        &self.shared.map
    }

    /// Describes a cluster of which no server is known.
    pub(super) fn health(&self) -> StoreHealth {
        let failure = self.shared.found.lock().failure.clone();
        let (since, error) = failure.unzip();
        StoreHealth {
            connected: false,
            degraded_since: since,
            last_error: error,
            server: None,
            mirror: None,
        }
    }

    /// Lets the map be as it is.
    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn new(one: Address, seeds: Vec<Endpoint>, plan: Plan) -> Self {
        Self {
            plan,
            one,
            seeds,
            map: ArcSwap::from_pointee(Map::unknown()),
            found: Mutex::default(),
        }
    }

    async fn watch(self: Arc<Self>) {
        loop {
            // What fails is noted, and tried again.
            let _ = self.refresh().await;
            sleep(BREATH).await;
            let health = self.map.load().health();
            let is_well = health.is_some_and(|worst| worst.degraded_since.is_none());
            let pause = if is_well { CALM } else { TROUBLED };
            let _ = timeout(pause, self.plan.bulletin.alarm()).await;
        }
    }

    /// Brings the map up to date.
    async fn refresh(&self) -> Result<(), Error> {
        let map = self.map.load_full();
        match self.ask(&map).await {
            Ok(slots) => {
                if !map.is_of(&slots) {
                    let shards = join_all(slots.primaries().map(|at| self.shard(&map, at)));
                    let shards = shards.await.into_iter().collect::<Result<_, _>>()?;
                    self.replace(&map, Map::of_cluster(&slots, shards));
                }
                *self.found.lock() = Found {
                    replicas: slots.replicas,
                    failure: None,
                };
                Ok(())
            }
            Err(error) => {
                let failure = &mut self.found.lock().failure;
                let (_, reason) =
                    failure.get_or_insert_with(|| (self.plan.clock.wall(), String::new()));
                *reason = error.to_string();
                Err(error)
            }
        }
    }

    /// Asks who has which slots: all primaries, of whose answers the most frequent counts; if none of
    /// them answers, a few at a time, who else was ever heard of.
    async fn ask(&self, map: &Map) -> Result<Slots, Error> {
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        let asked = map.shards().iter();
        let answers = join_all(asked.map(|shard| self.ask_primary(shard, &question))).await;
        let answers: Vec<Slots> = answers.into_iter().flatten().collect();
        let votes = |slots: &&Slots| {
            let same = |other: &&Slots| other.ranges == slots.ranges;
            answers.iter().filter(same).count()
        };
        if let Some(slots) = answers.iter().max_by_key(votes) {
            return Ok(slots.clone());
        }
        let mut failure = Error::new(ErrorKind::Unavailable, "the cluster has no servers");
        let replicas = self.found.lock().replicas.clone();
        let others = self.seeds.iter().cloned().chain(replicas);
        let answers = others.map(|endpoint| self.ask_other(endpoint, &question));
        let mut answers = stream::iter(answers).buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(slots) => return Ok(slots),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn ask_primary(&self, shard: &Shard, question: &Cmd) -> Option<Slots> {
        let mut commands = Pipeline::with_capacity(1);
        commands.add_command(question.clone());
        let deadline = self.plan.clock.now() + self.plan.connect_timeout;
        let mut exchange = shard.begin(Lane::Short, deadline).ok()?;
        let answer = exchange.send(&commands).await.ok()?.into_values();
        Slots::read(answer.first()?, shard.endpoint()?)
    }

    async fn ask_other(&self, endpoint: Endpoint, question: &Cmd) -> Result<Slots, Error> {
        let server = self.plan.server(self.one.with(endpoint.clone()));
        let answer = server.ask_once(question).await?;
        Slots::read(&answer, &endpoint).ok_or_else(|| {
            let message = format!("redis at {endpoint} knows of no cluster");
            Error::new(ErrorKind::Unavailable, message)
        })
    }

    /// Returns the server at an address: the one that is on the map, or a new one, connected if it
    /// can be.
    async fn shard(&self, map: &Map, at: &Endpoint) -> Result<Arc<Shard>, Error> {
        if let Some(known) = map.at(at) {
            return Ok(Arc::clone(known));
        }
        let address = self.one.with(at.clone());
        let shard = match Shard::open(address.clone(), &self.plan).await {
            Err(_) => Shard::open_lazily(address, &self.plan),
            opened => opened,
        };
        shard.map(Arc::new)
    }

    /// Goes by a new map from now on.
    fn replace(&self, old: &Map, new: Map) {
        let settle = {
            let has_changed = |shard: &&Arc<Shard>| !old.slots_of(shard).eq(new.slots_of(shard));
            let changed: Vec<_> = old.shards().iter().filter(has_changed).cloned().collect();
            let is_gone = |shard: &Arc<Shard>| new.slots_of(shard).next().is_none();
            let lost = changed.iter().any(is_gone);
            move || {
                // What a server told of slots that it has lost, or has again, it tells no more.
                let mirrors = changed.iter().filter_map(|shard| shard.mirror());
                mirrors.for_each(Mirror::forget_all);
                // Whoever takes the place of a primary may not know what that one was told last.
                if lost {
                    self.plan.bulletin.lost();
                }
            }
        };
        // Before, lest anybody goes by the new map and what was known under the old one; and again,
        // for what was learned by the old one in the meantime.
        settle();
        tracing::info!(
            primaries = new.shards().len(),
            "the cluster's slots have moved"
        );
        self.map.store(Arc::new(new));
        settle();
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cluster")
            .field(&self.shared.map.load())
            .finish()
    }
}
