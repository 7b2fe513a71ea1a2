//! How often a hit in memory allocates: the same in each run, so it is a test and no bench.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http_body_util::BodyExt;
use tower::Service;
use tower_response_cache::store::Store as _;
use tower_response_cache::{CacheLayer, MemoryStore, Rule, Rules};

#[test]
fn a_memory_hit_allocates_its_fields_and_little_else_whatever_the_body() {
    for size in [0, 1 << 10, 1 << 20] {
        let rules = Rules::builder()
            .route("/products/{id}", Rule::ttl(Duration::from_secs(60)))
            .build()
            .unwrap();
        let cache = CacheLayer::new(MemoryStore::new(64 << 20)).rules(rules);
        let bare = allocations(router(size));
        let hit = allocations(router(size).layer(cache));
        assert!(hit.count <= bare.count + 4, "{hit:?}, {bare:?}, {size}");
        assert!(hit.bytes <= bare.bytes + 4096, "{hit:?}, {bare:?}, {size}");
    }
}

#[test]
fn a_miss_takes_little_memory_beside_what_is_stored() {
    let rules = Rules::builder()
        .route("/products/{id}", Rule::ttl(Duration::from_secs(60)))
        .build()
        .unwrap();
    let cache = CacheLayer::new(MemoryStore::new(64 << 20)).rules(rules);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let mut router: Router = router(0).layer(cache).with_state(());
    let misses = ["/products/1", "/products/2"].map(|uri| ask(&mut router, uri));
    // Above all the futures of what is asked and stored, each at its largest.
    assert!(misses[1].bytes <= 32 << 10, "{misses:?}");
}

#[test]
fn fields_that_are_not_stored_take_no_memory() {
    for hint in [
        ("cache-control", "max-age=60, private=\"x-own\""),
        ("connection", "x-own"),
    ] {
        let rules = Rules::builder().route("/{id}", Rule::ttl(Duration::from_secs(60)));
        let store = MemoryStore::new(64 << 20);
        let cache = CacheLayer::new(store.clone()).rules(rules.build().unwrap());
        let handler = move || async move { ([hint, ("x-a", "a"), ("x-own", LONG)], "body") };
        let router = Router::new().route("/{id}", get(handler)).layer(cache);
        let mut router: Router = router.with_state(());
        ask(&mut router, "/1");
        let miss = ask(&mut router, "/2");
        assert_eq!(store.usage().responses, 2);
        assert!(miss.left < 8 << 10, "{miss:?}");
    }
}

const LONG: &str = {
    const BYTES: [u8; 12 << 10] = [b'x'; 12 << 10];
    match str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => panic!(),
    }
};

#[derive(Debug)]
struct Allocations {
    count: u64,
    bytes: u64,
    /// What has not been freed by the end.
    left: i64,
}

fn router(size: usize) -> Router {
    let body = Bytes::from(vec![b'x'; size]);
    let handler = move || {
        let body = body.clone();
        async move { body }
    };
    Router::new().route("/products/{id}", get(handler))
}

/// Counts the allocations of one answer, once everything is warm.
fn allocations(router: Router) -> Allocations {
    let mut router: Router = router.with_state(());
    ask(&mut router, "/products/42");
    ask(&mut router, "/products/42")
}

/// Counts the allocations of one answer.
fn ask(router: &mut Router, uri: &str) -> Allocations {
    let request = Request::get(uri)
        .header("host", "shop.example")
        .header("accept", "*/*")
        .body(Body::empty())
        .unwrap();
    let measured = allocation_counter::measure(|| {
        let response = router.call(request).now_or_never().unwrap().unwrap();
        response
            .into_body()
            .collect()
            .now_or_never()
            .unwrap()
            .unwrap();
    });
    Allocations {
        count: measured.count_total,
        bytes: measured.bytes_total,
        left: measured.bytes_current,
    }
}
