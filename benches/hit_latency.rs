//! What a hit costs, as ratios against a baseline of the same run.
//!
//! `cargo bench --bench hit_latency` prints criterion's figures and, at the end, the ratios that
//! matter. It needs `redis-server` on the PATH for the Redis groups and leaves them out without.
//! Ratios mean something on an idle machine only: but for Redis, each half is measured after the
//! other.

#[path = "support/redis.rs"]
mod redis;
#[path = "support/shop.rs"]
mod shop;
#[expect(dead_code, reason = "other benches need more of it")]
mod support;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::ready;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tower::layer::layer_fn;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_response_cache::{CacheLayer, Clock, MemoryStore, StoredResponse};

use shop::{request, rules};
use support::Ratios;

const KIB: usize = 1 << 10;
const SIZES: [(&str, usize); 3] = [("1 KiB", KIB), ("64 KiB", 64 * KIB), ("1 MiB", KIB * KIB)];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut ratios = Ratios::default();
    memory(&mut criterion, &mut ratios);
    misses(&mut criterion, &mut ratios);
    parts(&mut criterion);
    redis::hits(&mut criterion, &mut ratios);
    criterion.final_summary();
    ratios.print();
}

/// Is a hit in memory about as cheap as a handler that returns a constant?
fn memory(criterion: &mut Criterion, ratios: &mut Ratios) {
    let mut group = criterion.benchmark_group("memory");
    for (name, size) in SIZES {
        group.throughput(Throughput::Elements(1));
        let bare = router(size);
        serve(
            &mut group,
            &format!("bare handler {name}"),
            made(bare.clone()),
            request(),
        );
        let cached = bare.layer(layer());
        warm(&cached);
        serve(&mut group, &format!("hit {name}"), made(cached), request());
    }
    let constant = constant_layer(&router(KIB).layer(layer()));
    serve(
        &mut group,
        "constant layer 1 KiB",
        made(constant),
        request(),
    );
    serve(
        &mut group,
        "map of fresh answers 1 KiB",
        made(map_layer(&router(KIB).layer(layer()))),
        request(),
    );
    let around = layer().layer(made(router(KIB)));
    // What `axum::serve` takes.
    let around = ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(Body::new))
        .service(around);
    warm(&Router::new().fallback_service(around.clone()));
    serve(&mut group, "hit around the router 1 KiB", around, request());
    let cached = router(KIB).layer(layer());
    let etag = warm(&cached).expect("a rule's response has an entity-tag");
    let mut conditional = request();
    conditional
        .headers_mut()
        .insert("if-none-match", etag.parse().expect("a tag"));
    serve(&mut group, "304", made(cached), conditional);
    group.finish();

    ratios.compare(
        "memory hit 1 KiB / bare handler",
        "memory/hit 1 KiB",
        "memory/bare handler 1 KiB",
        1.25,
    );
    ratios.compare(
        "a layer that only answers with a hit's fields / bare handler",
        "memory/constant layer 1 KiB",
        "memory/bare handler 1 KiB",
        1.25,
    );
    ratios.compare(
        "a map of fresh answers by URI / bare handler",
        "memory/map of fresh answers 1 KiB",
        "memory/bare handler 1 KiB",
        1.25,
    );
    ratios.compare(
        "memory hit 1 KiB around the router / bare handler",
        "memory/hit around the router 1 KiB",
        "memory/bare handler 1 KiB",
        1.25,
    );
    ratios.compare(
        "memory hit 1 MiB / hit 1 KiB",
        "memory/hit 1 MiB",
        "memory/hit 1 KiB",
        1.1,
    );
    ratios.compare(
        "304 / bare handler",
        "memory/304",
        "memory/bare handler 1 KiB",
        1.25,
    );
}

/// What does the cache add to a handler whose answer it stores?
fn misses(criterion: &mut Criterion, ratios: &mut Ratios) {
    let mut group = criterion.benchmark_group("miss");
    let numbered = || {
        let mut next = 0_u64;
        move || {
            next += 1;
            let uri = format!("http://shop.example/products/{next}");
            Request::get(uri)
                .header("accept", "*/*")
                .body(Body::empty())
                .expect("a request")
        }
    };
    serve_each(
        &mut group,
        "bare handler 1 KiB",
        made(router(KIB)),
        numbered(),
    );
    serve_each(
        &mut group,
        "stored 1 KiB",
        made(router(KIB).layer(layer())),
        numbered(),
    );
    group.finish();
    ratios.difference(
        "miss 1 KiB with the memory store, beyond the bare handler",
        "miss/stored 1 KiB",
        "miss/bare handler 1 KiB",
        Duration::from_micros(10),
    );
}

/// What do the parts cost alone?
fn parts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parts");
    let clock = Clock::system();
    let request = Request::get("http://shop.example/products/42")
        .body(())
        .expect("a request");
    let response = http::Response::builder()
        .header("content-type", "application/json")
        .header("cache-control", "max-age=60")
        .header("etag", "\"57f21cd664d3bc0d499bf992ad3ca2f2\"")
        .header("vary", "accept-encoding")
        .header("x-request-id", "0f1e2d3c")
        .body(Bytes::from(vec![b'x'; KIB]))
        .expect("a response");
    let stored = StoredResponse::sample(&request, response, &clock);
    let entry = Bytes::from(stored.encode(&clock));
    group.bench_function("encode 1 KiB", |bencher| {
        bencher.iter(|| stored.encode(&clock));
    });
    group.bench_function("decode 1 KiB", |bencher| {
        bencher.iter(|| StoredResponse::decode(&entry, stored.key(), &clock).expect("an entry"));
    });
    group.bench_function("fingerprint of a key", |bencher| {
        let key = stored.key().as_bytes();
        bencher.iter(|| blake3::hash(std::hint::black_box(key)));
    });
    group.finish();
}

fn router(size: usize) -> Router {
    let body = Bytes::from(vec![b'x'; size]);
    let handler = move || {
        let body = body.clone();
        async move { body }
    };
    Router::new().route("/products/{id}", get(handler))
}

/// The floor: a layer that does nothing but answer with the fields and the body of a hit.
fn constant_layer(cached: &Router) -> Router {
    warm(cached);
    let hit = cached.clone().oneshot(request()).now_or_never();
    let (head, body) = hit.expect("ready").expect("infallible").into_parts();
    let body = body.collect().now_or_never().expect("ready");
    let (fields, body) = (Arc::new(head.headers), body.expect("a body").to_bytes());
    router(KIB).layer(layer_fn(move |_| {
        let (fields, body) = (Arc::clone(&fields), body.clone());
        service_fn(move |_: Request<Body>| {
            let mut response = Response::new(Full::new(body.clone()));
            *response.headers_mut() = HeaderMap::clone(&fields);
            ready(Ok::<_, Infallible>(response))
        })
    }))
}

/// The least that any cache does: find the answer by its URI, see that it is fresh, say how old it is.
fn map_layer(cached: &Router) -> Router {
    warm(cached);
    let hit = cached.clone().oneshot(request()).now_or_never();
    let (head, body) = hit.expect("ready").expect("infallible").into_parts();
    let body = body.collect().now_or_never().expect("ready");
    let body = body.expect("a body").to_bytes();
    let answers = HashMap::from([(
        request().uri().clone(),
        (head.headers, body, Instant::now()),
    )]);
    let answers = Arc::new(RwLock::new(answers));
    router(KIB).layer(layer_fn(move |_| {
        let answers = Arc::clone(&answers);
        service_fn(move |request: Request<Body>| {
            let answers = answers.read().expect("no panic");
            let (fields, body, stored) = answers.get(request.uri()).expect("an answer");
            let age = stored.elapsed();
            assert!(age < Duration::from_secs(3600));
            let mut response = Response::new(Full::new(body.clone()));
            *response.headers_mut() = fields.clone();
            response
                .headers_mut()
                .insert(header::AGE, age.as_secs().into());
            ready(Ok::<_, Infallible>(response))
        })
    }))
}

fn layer() -> CacheLayer {
    CacheLayer::new(MemoryStore::new(256 << 20)).rules(rules())
}

/// Fills the cache and returns the entity-tag of what is stored.
fn warm(router: &Router) -> Option<String> {
    let response = router
        .clone()
        .oneshot(request())
        .now_or_never()?
        .expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
    let etag = response
        .headers()
        .get("etag")
        .map(|etag| etag.to_str().expect("ASCII").to_owned());
    response
        .into_body()
        .collect()
        .now_or_never()?
        .expect("a body")
        .to_bytes();
    etag
}

/// Does as `axum::serve` does, so that routes are made once and not for each request.
fn made(router: Router) -> Router {
    router.with_state(())
}

fn serve<S, B>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    service: S,
    request: Request<Body>,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Error: Debug>,
{
    let (head, _) = request.into_parts();
    serve_each(group, name, service, || {
        Request::from_parts(head.clone(), Body::empty())
    });
}

/// Answers are ready when they are asked for, bodies too: no runtime stands between.
fn serve_each<S, B>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut service: S,
    mut request: impl FnMut() -> Request<Body>,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Error: Debug>,
{
    group.bench_function(name, |bencher| {
        bencher.iter_batched(
            &mut request,
            |request| {
                let response = service.call(request).now_or_never().expect("ready");
                response
                    .expect("infallible")
                    .into_body()
                    .collect()
                    .now_or_never()
                    .expect("ready")
            },
            // As few as a server has at a time: hundreds that wait would push out of the processor's
            // caches what they are to be answered from.
            BatchSize::NumIterations(32),
        );
    });
}
