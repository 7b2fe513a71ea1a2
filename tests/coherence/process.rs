//! One process: a cache over shared Redis, and tasks that use it without rest.

use std::convert::Infallible;
use std::env;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::{
    CacheHandle, CacheLayer, Invalidated, MemoryStore, RedisStore, Rule, Rules, Tags, Target, Tier,
    TieredStore,
};

use crate::history::{Event, Read, Write};

/// The variable with what a process is told: the URLs of cache and origin, the seconds that it
/// lasts, and the file for what it saw.
pub(crate) const ORDERS: &str = "COHERENCE_ORDERS";

const KEYS: u64 = 12;
const TASKS: u64 = 4;
/// What is kept in memory and in Redis, in memory alone, and in Redis alone.
const PATTERNS: [&str; 3] = ["/things/{id}", "/local/{id}", "/shared/{id}"];

pub(crate) fn run() {
    // Without orders it is somebody who runs all that is ignored.
    let Ok(orders) = env::var(ORDERS) else { return };
    let words: Vec<_> = orders.splitn(4, ' ').collect();
    let [cache, origin, seconds, log] = words[..] else {
        panic!("{ORDERS}={orders}")
    };
    let time = Duration::from_secs(seconds.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let events = runtime.block_on(live(cache, origin, time));
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    std::fs::write(PathBuf::from(log), lines).unwrap();
}

async fn live(cache: &str, origin: &str, time: Duration) -> Vec<Event> {
    let origin = redis::Client::open(origin).unwrap();
    let origin = origin.get_multiplexed_async_connection().await.unwrap();
    let second = RedisStore::builder(cache).connect_lazily().unwrap();
    let store = TieredStore::new(MemoryStore::new(16 << 20), second);
    let layer = CacheLayer::new(store).rules(rules());
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let task = Task {
            layer: layer.clone(),
            handle: layer.handle(),
            origin: origin.clone(),
            random: u64::from(std::process::id()) * TASKS + number + 1,
            events: Vec::new(),
        };
        tasks.spawn(task.run(end));
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

fn rules() -> Rules {
    let rule = || Rule::ttl(Duration::from_secs(300)).tag("thing:{id}");
    let [both, local, shared] = PATTERNS;
    Rules::builder()
        .route(both, rule())
        .route(local, rule().tier(Tier::Memory))
        .route(shared, rule().tier(Tier::Shared))
        .build()
        .unwrap()
}

struct Task {
    layer: CacheLayer,
    handle: CacheHandle,
    origin: MultiplexedConnection,
    random: u64,
    events: Vec<Event>,
}

impl Task {
    async fn run(mut self, end: Instant) -> Vec<Event> {
        while Instant::now() < end {
            let key = self.below(KEYS);
            // Rarely enough that what is not heard of would be served for longer than a lease.
            match self.below(300) {
                0 => self.write(key).await,
                _ => self.read(key).await,
            }
            if self.below(8) == 0 {
                // Tasks of all processes share two cores, and Redis needs some of them.
                sleep(Duration::from_millis(1)).await;
            }
        }
        self.events
    }

    async fn read(&mut self, key: u64) {
        let delay = Duration::from_micros(self.below(3000));
        let origin = self.origin.clone();
        let service = self
            .layer
            .layer(service_fn(move |_: Request<Empty<Bytes>>| {
                answer(origin.clone(), key, delay)
            }));
        let request = Request::get(path(key)).body(Empty::new());
        let began = now();
        let response = service.oneshot(request.unwrap()).await.unwrap();
        let hit = response.headers()["cache-status"]
            .to_str()
            .unwrap()
            .contains("; hit");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let version = std::str::from_utf8(&body).unwrap().parse().unwrap();
        self.events.push(Event::Read(Read {
            key,
            version,
            began,
            hit,
        }));
    }

    async fn write(&mut self, key: u64) {
        let version = self.origin.incr(key, 1_u64).await.unwrap();
        let target = match self.below(10) {
            0 => Target::pattern(pattern(key)),
            1..4 => Target::uri(path(key)),
            4..7 if is_tagged(key) => Target::tag(format!("late:{key}")),
            _ => Target::tag(format!("thing:{key}")),
        };
        let applied = self.handle.invalidate(target).await.unwrap() == Invalidated::Applied;
        let acknowledged = now();
        self.events.push(Event::Write(Write {
            key,
            version,
            acknowledged,
            applied,
        }));
    }

    /// Returns a pseudo-random number.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }
}

/// The handler: reads the version, and takes its time to say it.
async fn answer(
    mut origin: MultiplexedConnection,
    key: u64,
    delay: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let version: Option<u64> = origin.get(key).await.unwrap();
    sleep(delay).await;
    let version = version.unwrap_or_default().to_string();
    let mut response = Response::new(Full::from(version));
    if is_tagged(key) {
        response
            .extensions_mut()
            .insert(Tags::new([format!("late:{key}")]));
    }
    Ok(response)
}

/// Returns the pattern of the rule for a key.
fn pattern(key: u64) -> &'static str {
    let [both, local, shared] = PATTERNS;
    match key % 3 {
        0 => both,
        1 => local,
        _ => shared,
    }
}

fn path(key: u64) -> String {
    pattern(key).replace("{id}", &key.to_string())
}

/// Whether the responses of a key carry a tag that only they name.
fn is_tagged(key: u64) -> bool {
    key.is_multiple_of(2)
}

/// The time in microseconds, by the clock that all processes share.
fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    u64::try_from(since.as_micros()).unwrap()
}
