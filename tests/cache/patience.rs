//! How long the handler is waited for, and what is fetched before anybody waits.

use std::time::Duration;

use http::StatusCode;
use tokio::task::yield_now;
use tokio::time::Instant;
use tower_response_cache::{Rule, Rules};

use crate::support::{Cache, Origin, everywhere, settle, status, ttl};

const SOFT: Duration = Duration::from_millis(300);
const HARD: Duration = Duration::from_secs(2);

/// Keeps a response for ten seconds, and a hundred more for when the handler fails.
fn impatient() -> Rule {
    ttl(10)
        .stale_if_error(Duration::from_secs(100))
        .soft_handler_timeout(SOFT)
        .handler_timeout(HARD)
}

#[tokio::test(start_paused = true)]
async fn a_slow_handler_is_not_waited_for_where_a_stale_answer_will_do() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(impatient()));
    cache.get("/a").await;
    cache.advance(20);
    let hold = origin.hold();
    let began = Instant::now();
    let (first, second) = tokio::join!(cache.get("/a"), cache.get("/a"));
    assert_eq!(began.elapsed(), SOFT);
    for answer in [first, second] {
        assert_eq!(answer.text(), "1");
        assert_eq!(
            answer.cache_status(),
            "fwd=stale; ttl=-10; detail=stale-if-error"
        );
    }
    drop(hold);
    settle().await;
    let hit = cache.get("/a").await;
    assert_eq!(
        (hit.text(), hit.cache_status()),
        ("2", "hit; ttl=10"),
        "the call went on"
    );
}

#[tokio::test(start_paused = true)]
async fn where_nothing_may_stand_in_a_slow_handler_is_waited_for() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(impatient()));
    let hold = origin.hold();
    let slow = async {
        tokio::time::sleep(SOFT * 2).await;
        drop(hold);
    };
    let (answer, ()) = tokio::join!(cache.get("/a"), slow);
    assert_eq!(answer.text(), "1");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_given_up() {
    let rule = || ttl(10).handler_timeout(HARD);
    for (rule, expected) in [
        (
            rule().stale_if_error(Duration::from_secs(100)),
            StatusCode::OK,
        ),
        (rule(), StatusCode::GATEWAY_TIMEOUT),
    ] {
        let origin = Origin::counting(&[]);
        let cache = Cache::new(&origin, everywhere(rule));
        cache.get("/a").await;
        cache.advance(20);
        origin.hang();
        let began = Instant::now();
        let answer = cache.get("/a").await;
        assert_eq!((answer.status, began.elapsed()), (expected, HARD));
        let began = Instant::now();
        let absent = cache.get("/b").await;
        assert_eq!(absent.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(began.elapsed(), HARD);
    }
}

#[tokio::test]
async fn a_limit_without_a_runtime_for_timers_is_none() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(impatient()));
    let answer = std::thread::spawn(move || {
        futures_util::FutureExt::now_or_never(cache.get("/a")).map(|answer| answer.status)
    });
    assert_eq!(answer.join().unwrap(), Some(StatusCode::OK));
}

#[tokio::test]
async fn what_is_asked_for_shortly_before_its_end_never_grows_stale() {
    let origin = Origin::counting(&[]);
    let rule = ttl(60).refresh_ahead(Duration::from_secs(40));
    let cache = Cache::new(&origin, everywhere(rule));
    for generation in 1..5 {
        for _ in 0..1_000 {
            assert!(cache.get("/a").await.cache_status().starts_with("hit") || generation == 1);
        }
        assert_eq!(origin.calls(), generation, "not before the window");
        cache.advance(59);
        while origin.calls() == generation {
            let answer = cache.get("/a").await;
            assert_eq!(answer.cache_status(), "hit; ttl=1");
            yield_now().await;
        }
        settle().await;
    }
    let stats = cache.handle().stats();
    assert_eq!(stats.routes[0].misses.values().sum::<u64>(), 1);
}

#[tokio::test]
async fn a_refresh_that_fails_is_not_tried_again_at_once() {
    let origin = Origin::counting(&[]);
    let rule = ttl(10).stale_while_revalidate(Duration::from_secs(1_000));
    let cache = Cache::new(&origin, everywhere(rule));
    cache.get("/a").await;
    cache.advance(20);
    origin.answer(|_| status(503, &[], "down"));
    for (calls, pause) in [(2, 1), (3, 2), (4, 4)] {
        for _ in 0..10 {
            assert_eq!(cache.get("/a").await.text(), "1");
            settle().await;
        }
        assert_eq!(origin.calls(), calls);
        cache.advance(pause);
    }
}

#[test]
fn limits_that_contradict_each_other_are_mistakes() {
    let rule = impatient().soft_handler_timeout(HARD);
    let error = Rules::builder().route("/a", rule).build().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("shorter than the handler_timeout"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_handler_brings_is_stored_though_nobody_could_wait_with_it() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(impatient()))
        .with(|layer| layer.collapse_wait(Duration::ZERO));
    cache.get("/a").await;
    cache.advance(20);
    let hold = origin.hold();
    assert_eq!(cache.get("/a").await.text(), "1");
    drop(hold);
    settle().await;
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=10");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn the_chance_to_refresh_ahead_is_drawn_once() {
    const KEYS: usize = 1_000;
    let origin = Origin::counting(&[]);
    let rule = ttl(60).refresh_ahead(Duration::from_secs(40));
    let cache = Cache::new(&origin, everywhere(rule));
    for key in 0..KEYS {
        cache.get(&format!("/{key}")).await;
    }
    cache.advance(40);
    for key in 0..KEYS {
        cache.get(&format!("/{key}")).await;
        settle().await;
    }
    // 135 of 1,000 on average, and 18 if it were drawn twice; both bounds are six deviations off.
    let refreshed = origin.calls() - KEYS;
    assert!((70..=200).contains(&refreshed), "{refreshed}");
}
