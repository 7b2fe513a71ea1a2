//! How long requests wait for a slow store, whatever of it is slow.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tower_response_cache::{CacheLayer, MemoryStore, Policy, Rules, TieredStore};

use crate::support::{
    Cache, Double, Fault, Operation, Origin, everywhere, request, response, settle, ttl,
};

/// The default.
const LIMIT: Duration = Duration::from_millis(150);
/// Timers are as exact as milliseconds, and here so is the clock that waits are measured with.
const SLACK: Duration = Duration::from_millis(8);

/// Moves a cache's clock along with the time of the timers.
struct Follower(AbortHandle);

impl Follower {
    fn of(cache: &Cache) -> Self {
        const STEP: Duration = Duration::from_millis(1);
        let clock = cache.clock.clone();
        let following = tokio::spawn(async move {
            loop {
                sleep(STEP).await;
                clock.advance(STEP);
            }
        });
        Self(following.abort_handle())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An origin that notes when it was called, last.
fn timed() -> (Origin, Arc<Mutex<Instant>>) {
    let called = Arc::new(Mutex::new(Instant::now()));
    let note = Arc::clone(&called);
    let origin = Origin::new(move |call| {
        *note.lock() = Instant::now();
        let fields = [
            ("cache-control", "max-age=60"),
            ("no-vary-search", "params=(\"utm\")"),
            ("content-location", call.path()),
        ];
        response(&fields, call.number.to_string())
    });
    (origin, called)
}

/// Sends a request for which the store has to be asked, and asked again where that can be.
async fn send(cache: &Cache, store: &Double, kind: &str) {
    match kind {
        "GET" => drop(cache.get("/a").await),
        // By what it has said before, and then as it stands.
        "search" => drop(cache.get("/known?id=2&utm=3").await),
        "claimed elsewhere" => {
            for _ in 0..3 {
                store.claim_elsewhere(Duration::ZERO);
            }
            drop(cache.get("/a").await);
        }
        "POST" => drop(cache.method("POST", "/a").await),
        "QUERY" => {
            let method = Method::from_bytes(b"QUERY").unwrap();
            drop(cache.fetch_by_content(request(method, "/a", &[])).await);
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn no_handler_is_called_later_than_a_request_may_wait() {
    let delays = [0, 60, 140].map(|millis| Fault::Takes(Duration::from_millis(millis)));
    let faults: Vec<Fault> = delays.into_iter().chain([Fault::Hangs]).collect();
    let slow = [Operation::Lookup, Operation::Capture, Operation::Claim];
    for number in 0..faults.len().pow(3) {
        let place = |digit: u32| faults[number / faults.len().pow(digit) % faults.len()];
        for kind in ["GET", "search", "claimed elsewhere", "POST", "QUERY"] {
            for tiered in [false, true] {
                let (store, (origin, called)) = (Double::new(), timed());
                let memory = MemoryStore::new(16 << 20);
                let layer = match tiered {
                    true => CacheLayer::new(TieredStore::new(memory, store.clone())),
                    false => CacheLayer::new(store.clone()),
                };
                let rules = Rules::builder().policy(Policy::guarded().store_post(true));
                let cache = Cache::over(layer, &origin, rules);
                cache.get("/known?id=1").await;
                settle().await;
                let follower = Follower::of(&cache);
                for (operation, digit) in slow.into_iter().zip(0..) {
                    store.break_down(operation, place(digit));
                }
                let (calls, began) = (origin.calls(), Instant::now());
                send(&cache, &store, kind).await;
                assert_eq!(origin.calls(), calls + 1);
                let waited = called.lock().saturating_duration_since(began);
                let faults = [0, 1, 2].map(place);
                assert!(
                    waited <= LIMIT + SLACK,
                    "{kind}, tiered: {tiered}, {faults:?}: {waited:?}"
                );
                drop(follower);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_captured_in_time_is_stored_and_nothing_else() {
    for (slow, status, stored) in [
        (Operation::Lookup, "fwd=miss; detail=store-timeout", 0),
        (Operation::Capture, "fwd=uri-miss; detail=store-error", 0),
        (Operation::Claim, "fwd=uri-miss; stored", 1),
    ] {
        let (store, origin) = (Double::new(), Origin::counting(&[]));
        let cache = Cache::over(CacheLayer::new(store.clone()), &origin, everywhere(ttl(60)));
        store.break_down(slow, Fault::Hangs);
        let began = Instant::now();
        let answer = cache.get("/a").await;
        assert_eq!(answer.cache_status(), status);
        assert_eq!(began.elapsed(), LIMIT);
        settle().await;
        assert_eq!(store.calls(Operation::Put), stored, "{slow:?}");
        assert!(cache.handle().stats().store.errors > 0, "{slow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_held_though_there_is_no_time_left_for_the_look_beside_it() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = Cache::over(CacheLayer::new(store.clone()), &origin, everywhere(ttl(60)));
    let _follower = Follower::of(&cache);
    // Twice that is more than there is time for.
    store.break_down(Operation::Lookup, Fault::Takes(Duration::from_millis(100)));
    let hold = origin.hold();
    let asking = async {
        let answer = cache.get("/a").await;
        assert_eq!(answer.cache_status(), "fwd=uri-miss; stored");
    };
    let watching = async {
        sleep(2 * LIMIT).await;
        assert_eq!((origin.calls(), store.calls(Operation::Lookup)), (1, 2));
        assert_eq!(store.claims(), 1);
        drop(hold);
    };
    tokio::join!(asking, watching);
    settle().await;
    assert_eq!(store.claims(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_as_long_as_it_is_said_to_be() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = Cache::over(CacheLayer::new(store.clone()), &origin, everywhere(ttl(60)));
    store.break_down(Operation::Lookup, Fault::Hangs);
    for millis in [0, 20, 700] {
        let limit = Duration::from_millis(millis);
        let layer = cache.layer.clone().store_wait(limit);
        let cache = Cache::over(layer, &origin, everywhere(ttl(60)));
        let began = Instant::now();
        let answer = cache.get("/a").await;
        assert_eq!(answer.cache_status(), "fwd=miss; detail=store-timeout");
        assert_eq!(began.elapsed(), limit);
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_write_waits_for_a_while_and_what_it_invalidates_is_gone() {
    for (limit, setting) in [(1000, None), (300, Some(Duration::from_millis(300)))] {
        let (store, origin) = (Double::new(), Origin::counting(&[]));
        let layer = CacheLayer::new(store.clone());
        let layer = match setting {
            Some(longest) => layer.invalidation_wait(longest),
            None => layer,
        };
        let cache = Cache::over(layer, &origin, everywhere(ttl(60)));
        cache.get("/a").await;
        settle().await;
        store.break_down(Operation::Invalidate, Fault::Hangs);
        let began = Instant::now();
        cache.method("PUT", "/a").await;
        assert_eq!(began.elapsed(), Duration::from_millis(limit));
        assert!(cache.handle().health().invalidations_pending > 0);
        assert_eq!(cache.get("/a").await.text(), "3");
        store.recover();
    }
}
