//! What Redis costs when it is away, and what invalidations cost when much or many depend on them.
//!
//! `cargo bench --bench weather --all-features` prints the figures at the end. It needs
//! `redis-server` on the PATH, about 200 MB of memory, and a minute. Times mean something on an idle
//! machine only; the two sides of each comparison are measured in turn.

#[expect(dead_code, reason = "other benches need more of it")]
#[path = "support/redis.rs"]
mod redis;
#[path = "support/shop.rs"]
mod shop;
#[expect(dead_code, reason = "other benches need more of it")]
mod support;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::store::{Fill, Kept, Store};
use tower_response_cache::{
    CacheHandle, CacheLayer, Clock, ErrorKind, Invalidated, MemoryStore, Namespace, RedisStore,
    Scope, StoredResponse, Target, TieredStore,
};

use redis::redis_server::RedisServer;
use redis::{ask, in_turn};
use shop::{request, rules};
use support::Ratios;

const KIB: usize = 1 << 10;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut ratios = Ratios::default();
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("weather");
    group
        .throughput(Throughput::Elements(1))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(40)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    away(&runtime, &mut group, &mut ratios);
    group.finish();
    runtime.block_on(first_failures(&mut ratios));
    runtime.block_on(invalidating_many(&mut ratios));
    runtime.block_on(queueing_behind_many(&mut ratios));
    runtime.block_on(last_old_answers(&mut ratios));
    runtime.block_on(telling_many(&mut ratios));
    criterion.final_summary();
    ratios.print();
}

/// How much longer does a miss take while Redis is away?
fn away(runtime: &Runtime, group: &mut BenchmarkGroup<'_, WallTime>, ratios: &mut Ratios) {
    let memory = || MemoryStore::new(64 << 20);
    let baseline = misses(CacheLayer::new(memory()));
    for (name, frozen, tiered) in [
        ("Redis killed", false, false),
        ("Redis frozen, breaker open", true, false),
        ("memory over Redis killed", false, true),
    ] {
        let mut server = RedisServer::start();
        let redis = runtime
            .block_on(RedisStore::connect(&server.url()))
            .expect("a store");
        match frozen {
            true => server.stop(),
            false => server.kill(),
        }
        runtime.block_on(known_to_be_away(&redis));
        let subject = misses(match tiered {
            true => CacheLayer::new(TieredStore::new(memory(), redis)),
            false => CacheLayer::new(redis),
        });
        let mut pairs = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let first = pairs.len() % 2 == 0;
                let pair = in_turn(runtime, first, 1, rounds, &baseline, &subject);
                pairs.push(pair.map(|time| time.as_nanos() as f64 / rounds as f64));
                let [_, subject] = pair;
                subject
            });
        });
        let name = format!("added to a miss, {name}");
        ratios.added_by_pairs(&name, &pairs, Duration::from_micros(20));
    }
}

/// How long does the slowest request wait while it is found out that Redis does not answer?
async fn first_failures(ratios: &mut Ratios) {
    const REQUESTS: usize = 40;
    let server = RedisServer::start();
    let redis = RedisStore::connect(&server.url()).await.expect("a store");
    let miss = misses(CacheLayer::new(redis));
    server.stop();
    let mut slowest = Duration::ZERO;
    for _ in 0..REQUESTS {
        let began = Instant::now();
        miss().await;
        slowest = slowest.max(began.elapsed());
    }
    let name = "the slowest of the first requests, Redis frozen";
    let pair = [[0.0, slowest.as_nanos() as f64]];
    ratios.added_by_pairs(name, &pair, Duration::from_millis(150));
}

/// Returns what sends requests through a layer, each for something that is not stored.
fn misses(layer: CacheLayer) -> impl Fn() -> Miss + Clone + Send + 'static {
    let next = Arc::new(AtomicU64::new(0));
    let body = Full::new(Bytes::from(vec![b'x'; KIB]));
    let origin = service_fn(move |_: Request<Empty<Bytes>>| {
        let response = Response::new(body.clone());
        async { Ok::<_, Infallible>(response) }
    });
    let service = layer.rules(rules()).layer(origin);
    move || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        Box::pin(ask(service.clone(), product(number)))
    }
}

type Miss = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn known_to_be_away(store: &RedisStore) {
    loop {
        match store.check().await {
            Err(error) if error.kind() == ErrorKind::Unavailable => return,
            _ => sleep(Duration::from_millis(1)).await,
        }
    }
}

fn product(number: u64) -> Request<Empty<Bytes>> {
    let mut product = request().map(|_| Empty::new());
    *product.uri_mut() = format!("/products/{number}").parse().expect("a URI");
    product
}

/// Does an invalidation take longer, the more it reaches?
async fn invalidating_many(ratios: &mut Ratios) {
    const RESPONSES: u64 = 100_000;
    const TAGS: usize = 20;
    let server = RedisServer::start();
    let redis = RedisStore::connect(&server.url()).await.expect("a store");
    let many: Vec<String> = (0..TAGS).map(|n| format!("many {n}")).collect();
    let fill = async |number: u64, tags: &[String]| {
        let (namespace, clock) = (Namespace::default(), Clock::system());
        let path = format!("/products/{number}");
        let request = product(number);
        let response = Response::new(Bytes::from_static(b"x"));
        let tags = tags
            .iter()
            .map(|tag| Scope::tag(namespace.as_str(), tag.as_bytes()));
        let path = Scope::path(namespace.as_str(), path.as_bytes());
        let scopes: Vec<_> = tags.chain([path]).collect();
        let kept = redis.put(Fill {
            captured: redis.capture(&namespace, &scopes).await.expect("epochs"),
            response: Arc::new(StoredResponse::sample(&request, response, &clock)),
            late: Default::default(),
            retain: Duration::from_secs(3600),
            tier: None,
            namespace,
            clock,
        });
        assert_eq!(kept.await.expect("it is stored"), Kept::Stored);
    };
    let worker = async |first| {
        for number in (first..RESPONSES).step_by(64) {
            fill(number, &many).await;
        }
    };
    join_all((0..64).map(worker)).await;
    let single: Vec<String> = (0..TAGS).map(|n| format!("single {n}")).collect();
    fill(RESPONSES, &single).await;

    let tiered = TieredStore::new(MemoryStore::new(64 << 20), redis.clone());
    let handle = CacheLayer::new(tiered).handle();
    invalidate(&handle, "nothing").await;
    let mut pairs = Vec::new();
    for (single, many) in single.iter().zip(&many) {
        let baseline = invalidate(&handle, single).await;
        pairs.push([baseline, invalidate(&handle, many).await]);
    }
    let name = "invalidating a tag of 100,000 responses / of one";
    // It has to stay under a millisecond, too, which the times beside the ratio show.
    ratios.of_pairs(name, &pairs, 1.2);
}

async fn invalidate(handle: &CacheHandle, tag: &str) -> f64 {
    let began = Instant::now();
    let outcome = handle.invalidate(Target::tag(tag)).await;
    let took = began.elapsed();
    assert_eq!(outcome.expect("a sound target"), Invalidated::Applied);
    took.as_nanos() as f64
}

/// Does an invalidation that has to be queued take longer, the more are queued, while requests look at
/// them?
async fn queueing_behind_many(ratios: &mut Ratios) {
    const QUEUED: [usize; 2] = [10, 60_000];
    const ROUNDS: usize = 50;
    const TIMES: u32 = 200;
    let mut server = RedisServer::start();
    let mut caches = Vec::new();
    for _ in QUEUED {
        let redis = RedisStore::connect(&server.url()).await.expect("a store");
        caches.push((CacheLayer::new(redis.clone()).rules(rules()), redis));
    }
    server.kill();
    let queue = async |handle: &CacheHandle, tag: usize| {
        let outcome = handle.invalidate(Target::tag(tag.to_string())).await;
        assert_eq!(outcome.expect("a sound target"), Invalidated::Queued);
    };
    for ((layer, redis), count) in caches.iter().zip(QUEUED) {
        known_to_be_away(redis).await;
        for tag in 0..count {
            queue(&layer.handle(), tag).await;
        }
    }
    let origin = service_fn(|_: Request<Empty<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"x"))))
    });
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let mut pair = [0.0; 2];
        for ((layer, _), time) in caches.iter().zip(&mut pair) {
            let service = layer.layer(origin);
            let reading = tokio::spawn(async move {
                loop {
                    ask(service.clone(), product(1)).await;
                    tokio::task::yield_now().await;
                }
            });
            let (handle, began) = (layer.handle(), Instant::now());
            for _ in 0..TIMES {
                queue(&handle, 0).await;
            }
            *time = began.elapsed().as_nanos() as f64 / f64::from(TIMES);
            reading.abort();
        }
        pairs.push(pair);
    }
    let name = "queueing an invalidation behind 60,000 / behind ten";
    ratios.of_pairs(name, &pairs, 1.5);
}

/// For how long does another process go on answering from its memory?
async fn last_old_answers(ratios: &mut Ratios) {
    const ROUNDS: u64 = 1000;
    let server = RedisServer::start();
    let connect = async || {
        let redis = RedisStore::connect(&server.url()).await.expect("a store");
        CacheLayer::new(TieredStore::new(MemoryStore::new(64 << 20), redis)).rules(rules())
    };
    let (here, there) = (connect().await.handle(), connect().await);
    let version = Arc::new(AtomicU64::new(0));
    let origin = {
        let version = Arc::clone(&version);
        service_fn(move |_: Request<Empty<Bytes>>| {
            let version = version.load(Ordering::SeqCst).to_string();
            async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(version)))) }
        })
    };
    let service = there.layer(origin);
    let read = async || {
        let began = Instant::now();
        let response = service
            .clone()
            .oneshot(product(1))
            .await
            .expect("infallible");
        let hit = response.headers()["cache-status"]
            .as_bytes()
            .ends_with(b"detail=memory");
        let body = response.into_body().collect().await.expect("a body");
        let text = String::from_utf8(body.to_bytes().into()).expect("a number");
        (began, hit, text.parse::<u64>().expect("a number"))
    };
    let mut delays = Vec::new();
    for round in 1..=ROUNDS {
        // Until it comes from memory.
        while !matches!(read().await, (_, true, _)) {
            tokio::task::yield_now().await;
        }
        version.store(round, Ordering::SeqCst);
        let here = here.clone();
        let invalidating = tokio::spawn(async move {
            let outcome = here.invalidate(Target::uri("/products/1")).await;
            (outcome.expect("a sound target"), Instant::now())
        });
        let mut last = Instant::now();
        loop {
            let (began, _, version) = read().await;
            if version == round {
                break;
            }
            last = began;
            tokio::task::yield_now().await;
        }
        let (outcome, returned) = invalidating.await.expect("it ends");
        assert_eq!(outcome, Invalidated::Applied);
        delays.push(last.saturating_duration_since(returned));
    }
    delays.sort_unstable();
    let at = |percent: usize| delays[delays.len() * percent / 100];
    let value = format!("median {:?}, 99 % {:?}", at(50), at(99));
    ratios.note(
        "last old answer elsewhere after an invalidation returned",
        &value,
    );
}

/// What does it cost the server to tell a hundred processes?
async fn telling_many(ratios: &mut Ratios) {
    const PROCESSES: usize = 100;
    const ROUNDS: usize = 50;
    let server = RedisServer::start();
    let connect = |_| async { RedisStore::connect(&server.url()).await.expect("a store") };
    let processes = join_all((0..PROCESSES).map(connect)).await;
    let namespace = Namespace::default();
    let [held, unheld] =
        ["held", "unheld"].map(|tag| [Scope::tag(namespace.as_str(), tag.as_bytes())]);
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let stamp = processes[0]
            .capture(&namespace, &held)
            .await
            .expect("an epoch")
            .stamp;
        processes[0]
            .capture(&namespace, &unheld)
            .await
            .expect("an epoch");
        let hold = async |process: &RedisStore| {
            while !process.vouches_for(&stamp) {
                let _ = process.confirm(&namespace, &stamp).await;
            }
        };
        join_all(processes.iter().map(hold)).await;
        let mut pair = [0.0; 2];
        for (scope, time) in [&unheld, &held].into_iter().zip(&mut pair) {
            let before = processor_time(&server);
            processes[0]
                .invalidate(&namespace, scope)
                .await
                .expect("it is done");
            // What has to be told is told behind the reply.
            sleep(Duration::from_millis(5)).await;
            *time = processor_time(&server) - before;
        }
        pairs.push(pair);
    }
    let name = "server's processor time to tell 100 processes of an invalidation";
    ratios.added_by_pairs(name, &pairs, Duration::from_micros(500));
}

/// Returns what the server has used so far, in nanoseconds.
fn processor_time(server: &RedisServer) -> f64 {
    let text = server.command(&["INFO", "cpu"]);
    let of_main_thread = |line: &str| {
        let (name, seconds) = line.split_once(':')?;
        let is_of = ["used_cpu_sys_main_thread", "used_cpu_user_main_thread"].contains(&name);
        seconds.trim().parse::<f64>().ok().filter(|_| is_of)
    };
    text.lines().filter_map(of_main_thread).sum::<f64>() * 1e9
}
