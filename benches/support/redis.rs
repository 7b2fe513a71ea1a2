//! Redis hits beside the raw `GET` of the same bytes.
//!
//! Both go to the same server, over the same kind of client, on the same runtime: a ratio says what
//! the cache adds to the cheapest way of getting at what it keeps in Redis.

#[expect(dead_code, reason = "tests also stop and restart their servers")]
#[path = "../../tests/support/redis_server.rs"]
pub(crate) mod redis_server;

use std::convert::Infallible;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, SamplingMode, Throughput};
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo};
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_response_cache::store::Store;
use tower_response_cache::{CacheLayer, RedisStore, ResponseBody};

use self::redis_server::RedisServer;
use crate::support::Ratios;

type Answer = Response<ResponseBody<Full<Bytes>>>;

/// What does a hit cost beyond the `GET` of the response alone?
pub(crate) fn hits(criterion: &mut Criterion, ratios: &mut Ratios) {
    if Command::new("redis-server").arg("-v").output().is_err() {
        ratios.note("Redis hits", "left out: no redis-server on the PATH");
        return;
    }
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("redis");
    group
        .throughput(Throughput::Elements(1))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(100)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    for (size, bytes, limits) in [
        ("1 KiB", 1 << 10, [(1, Some(1.3)), (64, Some(2.2))]),
        ("64 KiB", 64 << 10, [(1, None), (64, Some(1.25))]),
    ] {
        let server = RedisServer::start();
        let service = runtime.block_on(async {
            let store = RedisStore::connect(&server.url()).await;
            warm(store.expect("a store"), bytes).await
        });
        let connection = runtime.block_on(connect(server.url()));
        let key = runtime.block_on(only_entry(connection.clone()));
        let raw = {
            let connection = connection.clone();
            move || get(connection.clone(), Arc::clone(&key))
        };
        let request = request();
        let hit = move || ask(service.clone(), request.clone());

        for (tasks, limit) in limits {
            let mut pairs = Vec::new();
            group.bench_function(format!("hit {size}, {tasks} at once"), |bencher| {
                bencher.iter_custom(|rounds| {
                    let raw_first = pairs.len() % 2 == 0;
                    let pair = in_turn(&runtime, raw_first, tasks, rounds, &raw, &hit);
                    pairs.push(pair.map(|time| time.as_nanos() as f64 / rounds as f64));
                    let [_, hit] = pair;
                    hit
                });
            });
            if let Some(limit) = limit {
                let name = format!("Redis hit {size}, {tasks} at once / raw GET");
                ratios.of_pairs(&name, &pairs, limit);
            }
        }
        if size == "1 KiB" {
            runtime.block_on(count(connection, &hit, ratios));
        }
    }
    group.finish();
}

/// Takes the times for raw requests and for as many hits shortly after each other, so that a machine
/// whose speed drifts slows down both.
pub(crate) fn in_turn<R, H>(
    runtime: &Runtime,
    raw_first: bool,
    tasks: u32,
    rounds: u64,
    raw: &(impl Fn() -> R + Clone + Send + 'static),
    hit: &(impl Fn() -> H + Clone + Send + 'static),
) -> [Duration; 2]
where
    R: Future<Output = ()> + Send,
    H: Future<Output = ()> + Send,
{
    if raw_first {
        let raw = time(runtime, tasks, rounds, raw);
        [raw, time(runtime, tasks, rounds, hit)]
    } else {
        let hit = time(runtime, tasks, rounds, hit);
        [time(runtime, tasks, rounds, raw), hit]
    }
}

/// Takes the time for each request while so many tasks send one after the other.
fn time<T>(
    runtime: &Runtime,
    tasks: u32,
    rounds: u64,
    send: &(impl Fn() -> T + Clone + Send + 'static),
) -> Duration
where
    T: Future<Output = ()> + Send,
{
    let task = |_| {
        let send = send.clone();
        runtime.spawn(async move {
            for _ in 0..rounds {
                send().await;
            }
        })
    };
    let began = Instant::now();
    for ended in runtime.block_on(join_all((0..tasks).map(task))) {
        ended.expect("all are answered");
    }
    began.elapsed() / tasks
}

/// Counts what hits, one after the other, cost the server.
async fn count<T>(mut server: MultiplexedConnection, hit: &impl Fn() -> T, ratios: &mut Ratios)
where
    T: Future<Output = ()>,
{
    const HITS: u64 = 1000;
    let reset = redis::cmd("CONFIG").arg("RESETSTAT").take();
    reset.exec_async(&mut server).await.expect("it forgets");
    for _ in 0..HITS {
        hit().await;
    }
    let info = redis::cmd("INFO").arg("all").take();
    let info: String = info.query_async(&mut server).await.expect("it tells");

    let commands = info.lines().filter_map(|line| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((command, rest.split_once(',')?.0.parse::<u64>().ok()?))
    });
    let (mut reads, mut others) = (0, 0);
    for (command, calls) in commands {
        match command {
            "mget" => reads += calls,
            "config|resetstat" => {}
            _ => others += calls,
        }
    }
    // One for each request, and one for the question that is being answered.
    let trips: Option<u64> = info
        .lines()
        .find_map(|line| line.strip_prefix("total_reads_processed:")?.parse().ok());
    let trips = trips.expect("it counts its reads") - 1;
    ratios.count("`MGET`s of a Redis hit", reads.div_ceil(HITS), 1);
    ratios.count("other commands of 1,000 Redis hits", others, 0);
    ratios.count("round trips of a Redis hit", trips.div_ceil(HITS), 1);
}

/// Returns the layer over a plain service, with a response in the store.
pub(crate) async fn warm(
    store: impl Store,
    bytes: usize,
) -> impl Service<Request<Empty<Bytes>>, Response = Answer, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let body = Full::new(Bytes::from(vec![b'x'; bytes]));
    let origin = service_fn(move |_| {
        let response = Response::new(body.clone());
        async { Ok::<_, Infallible>(response) }
    });
    let service = CacheLayer::new(store).rules(crate::rules()).layer(origin);
    loop {
        let response = service.clone().oneshot(request()).await;
        let (head, body) = response.expect("infallible").into_parts();
        body.collect().await.expect("a body");
        let status = head.headers.get("cache-status").expect("it signs");
        if status.as_bytes().windows(4).any(|word| word == b" hit") {
            return service;
        }
        // Storing goes on after the answer.
        tokio::task::yield_now().await;
    }
}

pub(crate) fn request() -> Request<Empty<Bytes>> {
    crate::request().map(|_| Empty::new())
}

pub(crate) async fn ask<S>(service: S, request: Request<Empty<Bytes>>)
where
    S: Service<Request<Empty<Bytes>>, Response = Answer, Error = Infallible>,
{
    let response = service.oneshot(request).await.expect("infallible");
    response.into_body().collect().await.expect("a body");
}

pub(crate) async fn get(mut server: MultiplexedConnection, key: Arc<str>) {
    let get = redis::cmd("GET").arg(&*key).take();
    let _: Bytes = get.query_async(&mut server).await.expect("an entry");
}

/// Returns the name under which the one response is stored.
pub(crate) async fn only_entry(mut server: MultiplexedConnection) -> Arc<str> {
    let keys = redis::cmd("KEYS").arg("hc1:*:e:*").take();
    let keys: [String; 1] = keys.query_async(&mut server).await.expect("one entry");
    keys.concat().into()
}

pub(crate) async fn connect(url: String) -> MultiplexedConnection {
    let server = url.into_connection_info().expect("an address");
    let server = server.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = Client::open(server).expect("an address");
    let connection = client.get_multiplexed_async_connection().await;
    connection.expect("a connection")
}
