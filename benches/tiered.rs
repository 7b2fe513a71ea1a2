//! What memory over Redis costs: a hit in it beside one in memory alone, and a hit below it beside the
//! raw `GET` of the same bytes.
//!
//! `cargo bench --bench tiered --all-features` prints the ratios at the end. It needs `redis-server`
//! on the PATH. Ratios mean something on an idle machine only; the two sides of each are measured in
//! turn.

#[expect(dead_code, reason = "other benches need more of it")]
#[path = "support/redis.rs"]
mod redis;
#[path = "support/shop.rs"]
mod shop;
#[expect(dead_code, reason = "other benches need more of it")]
mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use http::Response;
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tower_response_cache::store::{Outcome, Store, Wanted};
use tower_response_cache::{
    Clock, MemoryStore, Namespace, RedisStore, Scope, StoredResponse, TieredStore,
};

use redis::redis_server::RedisServer;
use redis::{ask, connect, get, in_turn, only_entry, warm};
use shop::{request, rules};
use support::Ratios;

const KIB: usize = 1 << 10;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut ratios = Ratios::default();
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("tiered");
    group
        .throughput(Throughput::Elements(1))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(60)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    memory(&runtime, &mut group, &mut ratios);
    below(&runtime, &mut group, &mut ratios);
    group.finish();
    criterion.final_summary();
    ratios.print();
}

/// Is a hit in memory as cheap with Redis below it?
fn memory(runtime: &Runtime, group: &mut BenchmarkGroup<'_, WallTime>, ratios: &mut Ratios) {
    let server = RedisServer::start();
    let plain = runtime.block_on(warm(MemoryStore::new(64 << 20), KIB));
    let tiered = runtime.block_on(async {
        let redis = RedisStore::connect(&server.url()).await.expect("a store");
        warm(TieredStore::new(MemoryStore::new(64 << 20), redis), KIB).await
    });
    let request = redis::request();
    let plain = {
        let request = request.clone();
        move || ask(plain.clone(), request.clone())
    };
    let tiered = move || ask(tiered.clone(), request.clone());
    let name = "tiered memory hit 1 KiB / memory hit";
    compare(runtime, group, ratios, (name, 1, 1.25), &plain, &tiered);
}

/// What does a hit in Redis cost beyond the `GET`, when no epoch has to be asked for?
fn below(runtime: &Runtime, group: &mut BenchmarkGroup<'_, WallTime>, ratios: &mut Ratios) {
    let server = RedisServer::start();
    let store = runtime
        .block_on(RedisStore::connect(&server.url()))
        .expect("a store");
    let service = runtime.block_on(warm(store.clone(), KIB));
    let mirroring = runtime.spawn(keep_mirrored(store));
    let connection = runtime.block_on(connect(server.url()));
    let key = runtime.block_on(only_entry(connection.clone()));
    let raw = move || get(connection.clone(), Arc::clone(&key));
    let request = redis::request();
    let hit = move || ask(service.clone(), request.clone());
    let name = "Redis hit 1 KiB with mirrored epochs, 64 at once / raw GET";
    compare(runtime, group, ratios, (name, 64, 1.8), &raw, &hit);
    mirroring.abort();
}

/// Confirms the epochs of the one response again and again, as a store above would.
async fn keep_mirrored(store: RedisStore) {
    let (namespace, clock) = (Namespace::default(), Clock::system());
    let request = request();
    let key = StoredResponse::sample(&request, Response::new(Bytes::new()), &clock);
    let wanted = Wanted {
        namespace: &namespace,
        key: key.key(),
        fields: request.headers(),
        tier: None,
        clock: &clock,
    };
    let path = [Scope::path(namespace.as_str(), b"/products/42")];
    let found = store.lookup(wanted, &path).await.expect("an answer");
    let Outcome::Response(response) = found.outcome else {
        panic!("it is stored: {found:?}");
    };
    loop {
        let _ = store.confirm(&namespace, response.stamp()).await;
        sleep(Duration::from_millis(500)).await;
    }
}

fn compare<B, T>(
    runtime: &Runtime,
    group: &mut BenchmarkGroup<'_, WallTime>,
    ratios: &mut Ratios,
    (name, tasks, limit): (&str, u32, f64),
    baseline: &(impl Fn() -> B + Clone + Send + 'static),
    subject: &(impl Fn() -> T + Clone + Send + 'static),
) where
    B: Future<Output = ()> + Send,
    T: Future<Output = ()> + Send,
{
    let mut pairs = Vec::new();
    group.bench_function(name.replace('/', "over"), |bencher| {
        bencher.iter_custom(|rounds| {
            let first = pairs.len() % 2 == 0;
            let pair = in_turn(runtime, first, tasks, rounds, baseline, subject);
            pairs.push(pair.map(|time| time.as_nanos() as f64 / rounds as f64));
            let [_, subject] = pair;
            subject
        });
    });
    ratios.of_pairs(name, &pairs, limit);
}
