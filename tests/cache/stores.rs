//! A store that is down, slow or wrong fails no request, and no invalidation is forgotten.

use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use http::Method;
use tokio::time::timeout;
use tower::ServiceExt;
use tower_response_cache::{CacheLayer, ErrorKind, Invalidated, Scope, Target};

use crate::support::{
    Answer, Cache, Double, Fault, Operation, Origin, everywhere, get, request, response, settle,
    ttl,
};

const FAILURES: [Fault; 4] = [
    Fault::Fails(ErrorKind::Unavailable),
    Fault::Fails(ErrorKind::Timeout),
    Fault::Fails(ErrorKind::Refused),
    Fault::LosesAnswer,
];

fn over(store: &Double, origin: &Origin) -> Cache {
    let rule = ttl(60).stale_while_revalidate(Duration::from_secs(60));
    Cache::over(CacheLayer::new(store.clone()), origin, everywhere(rule))
}

#[tokio::test]
async fn a_store_that_waits_is_a_store() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    assert_eq!(cache.get("/a").await.cache_status(), "fwd=uri-miss; stored");
    settle().await;
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=60");
    cache.advance(61);
    assert_eq!(cache.get("/a").await.text(), "1");
    settle().await;
    assert_eq!(cache.get("/a").await.text(), "2");
    cache.method("PUT", "/a").await;
    let missed = cache.get("/a").await;
    assert_eq!(
        missed.cache_status(),
        "fwd=miss; stored; detail=invalidated"
    );
}

#[tokio::test]
async fn whatever_a_store_fails_at_the_handler_answers() {
    for operation in Operation::ALL {
        for fault in FAILURES {
            let (store, origin) = (Double::new(), Origin::counting(&[]));
            let cache = over(&store, &origin);
            cache.get("/a").await;
            settle().await;
            store.break_down(operation, fault);
            for (method, uri) in [("GET", "/a"), ("HEAD", "/b"), ("PUT", "/a"), ("GET", "/c")] {
                let answer = cache.method(method, uri).await;
                assert_eq!(answer.status, 200, "{operation:?} {fault:?} {method} {uri}");
                cache.advance(70);
                settle().await;
            }
            store.recover();
            cache.get("/d").await;
            settle().await;
            assert_eq!(cache.get("/d").await.cache_status(), "hit; ttl=60");
        }
    }
}

#[tokio::test]
async fn an_answer_says_that_the_store_failed() {
    let cases = [
        (ErrorKind::Unavailable, "store-unavailable"),
        (ErrorKind::Timeout, "store-timeout"),
        (ErrorKind::Refused, "store-error"),
    ];
    for (kind, reason) in cases {
        let (store, origin) = (Double::new(), Origin::counting(&[]));
        let cache = over(&store, &origin);
        store.break_down(Operation::Lookup, Fault::Fails(kind));
        let answer = cache.get("/a").await;
        assert_eq!(answer.cache_status(), format!("fwd=miss; detail={reason}"));
        assert_eq!(store.calls(Operation::Capture), 0, "no second wait");
        store.recover();
        store.break_down(Operation::Capture, Fault::Fails(kind));
        let answer = cache.get("/a").await;
        assert_eq!(answer.cache_status(), "fwd=uri-miss; detail=store-error");
        settle().await;
        assert_eq!(store.calls(Operation::Put), 0);
        let stats = cache.handle().stats();
        assert_eq!(stats.store.errors, 2);
        assert_eq!(stats.route("/{*path}").unwrap().refusals["store-error"], 2);
    }
}

#[tokio::test]
async fn nobody_waits_for_a_store_to_keep_or_drop_a_response() {
    let fields = [("cache-control", "max-age=60"), ("etag", "\"v\"")];
    let (store, origin) = (Double::new(), Origin::counting(&fields));
    let cache = over(&store, &origin).with(|layer| layer.collapse_wait(Duration::ZERO));
    store.break_down(Operation::Put, Fault::Hangs);
    store.break_down(Operation::Remove, Fault::Hangs);
    for calls in 1..4 {
        assert_eq!(cache.get("/a").await.text(), calls.to_string());
        settle().await;
    }
    assert_eq!(store.calls(Operation::Put), 3);
    assert!(
        !cache.handle().shutdown(Duration::from_millis(1)).await,
        "bounded"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_does_not_wait_for_what_its_refresh_waits_for() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    cache.get("/a").await;
    settle().await;
    cache.advance(61);
    store.break_down(Operation::Capture, Fault::Hangs);
    let answer = timeout(Duration::from_millis(1), cache.get("/a")).await;
    assert_eq!(answer.expect("at once").text(), "1");
    settle().await;
    assert_eq!(store.calls(Operation::Capture), 1);
}

#[tokio::test]
async fn a_new_variant_is_fetched_for_all_processes() {
    let fields = [("vary", "x"), ("etag", "\"v\"")];
    let (store, origin) = (Double::new(), Origin::counting(&fields));
    let cache = over(&store, &origin);
    cache.get("/a").await;
    settle().await;
    let claiming = store.clone();
    origin.answer(move |call| {
        assert_eq!(claiming.claims(), 1);
        response(&fields, call.number.to_string())
    });
    let answer = cache.get_with("/a", &[("x", "1")]).await;
    assert_eq!(answer.cache_status(), "fwd=vary-miss; stored");
}

#[tokio::test]
async fn with_a_failing_capture_the_client_still_gets_a_304_of_the_handlers() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    store.break_down(Operation::Capture, Fault::Fails(ErrorKind::Timeout));
    cache.get_with("/a", &[("if-none-match", "\"v\"")]).await;
    assert_eq!(
        origin.last().header("if-none-match"),
        "\"v\"",
        "nothing will be stored"
    );
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_that_the_store_does_not_take_is_queued_and_holds_here_at_once() {
    for fault in FAILURES {
        let (store, origin) = (Double::new(), Origin::counting(&[]));
        let cache = over(&store, &origin);
        for uri in ["/a", "/b"] {
            cache.get(uri).await;
        }
        settle().await;
        store.break_down(Operation::Invalidate, fault);
        let outcome = cache.handle().invalidate(Target::uri("/a")).await.unwrap();
        assert_eq!(outcome, Invalidated::Queued);
        let stats = cache.handle().stats().store;
        assert_eq!(
            (stats.invalidations_queued, stats.invalidations_pending),
            (1, 1)
        );
        for calls in 3..5 {
            assert_eq!(
                cache.get("/a").await.text(),
                calls.to_string(),
                "not the old answer"
            );
            settle().await;
        }
        assert_eq!(cache.get("/b").await.text(), "2");
        // The store is away for long, and told again and again.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let told = store.calls(Operation::Invalidate);
        assert!((200..260).contains(&told), "four times a second: {told}");
        assert_eq!(cache.handle().stats().store.invalidations_pending, 1);
        store.recover();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(cache.handle().stats().store.invalidations_pending, 0);
        cache.get("/a").await;
        settle().await;
        assert_eq!(
            cache.get("/a").await.cache_status(),
            "hit; ttl=60",
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn what_a_look_up_found_before_an_invalidation_was_delivered_is_refused_after_it() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    cache.get("/a").await;
    settle().await;
    store.break_down(Operation::Invalidate, Fault::Fails(ErrorKind::Unavailable));
    let _ = cache.handle().invalidate(Target::uri("/a")).await.unwrap();
    // The look-up waits twice: before it is done, and with what it found in its hands.
    let mut read = Box::pin(cache.get("/a"));
    for _ in 0..2 {
        let mut context = Context::from_waker(Waker::noop());
        assert!(read.as_mut().poll(&mut context).is_pending());
    }
    store.recover();
    let outcome = cache.handle().invalidate(Target::uri("/a")).await.unwrap();
    assert_eq!(outcome, Invalidated::Applied);
    assert_eq!(read.await.text(), "2");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_answered_though_its_invalidation_is_queued() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    cache.get("/a").await;
    settle().await;
    store.break_down(Operation::Invalidate, Fault::Fails(ErrorKind::Unavailable));
    assert_eq!(cache.method("PUT", "/a").await.text(), "2");
    assert_eq!(cache.get("/a").await.text(), "3");
    // Another process shares the store, and learns of it when the store does.
    let other = over(&store, &origin);
    settle().await;
    store.recover();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(other.get("/a").await.text(), "4");
}

#[tokio::test(start_paused = true)]
async fn everything_invalidated_while_the_store_is_away_is_one_thing_to_tell() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    cache.get("/a").await;
    settle().await;
    store.break_down(Operation::Invalidate, Fault::Fails(ErrorKind::Unavailable));
    let handle = cache.handle();
    for _ in 0..10 {
        let outcome = handle.invalidate(Target::everything()).await.unwrap();
        assert_eq!(outcome, Invalidated::Queued);
    }
    assert_eq!(handle.stats().store.invalidations_pending, 1);
    assert_eq!(cache.get("/a").await.text(), "2");
}

#[tokio::test(start_paused = true)]
async fn what_a_part_of_the_store_cannot_be_told_holds_nothing_else_up() {
    let lost: Vec<_> = (0..300)
        .map(|n: u32| Scope::tag("default", n.to_string().as_bytes()))
        .collect();
    for kind in [
        ErrorKind::Unavailable,
        ErrorKind::Refused,
        ErrorKind::Timeout,
    ] {
        let (store, origin) = (Double::new(), Origin::counting(&[]));
        let handle = over(&store, &origin).handle();
        store.break_down(Operation::Invalidate, Fault::Fails(kind));
        for n in 0..400 {
            let _ = handle.invalidate(Target::tag(n.to_string())).await.unwrap();
        }
        store.recover();
        lost.iter().for_each(|scope| store.lose(*scope, kind));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(handle.stats().store.invalidations_pending, 300, "{kind:?}");
        store.recover();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(handle.stats().store.invalidations_pending, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn very_many_invalidations_that_wait_become_one_of_everything() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    cache.get("/a").await;
    settle().await;
    store.break_down(Operation::Invalidate, Fault::Fails(ErrorKind::Unavailable));
    let handle = cache.handle();
    for n in 0..100_001 {
        let _ = handle
            .invalidate(Target::tag(format!("tag {n}")))
            .await
            .unwrap();
    }
    assert!(handle.stats().store.invalidations_pending < 10);
    assert_eq!(
        cache.get("/a").await.text(),
        "2",
        "more than asked for, never less"
    );
    store.recover();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(handle.stats().store.invalidations_pending, 0);
}

#[tokio::test]
async fn a_caller_that_does_not_wait_for_an_invalidation_has_it_all_the_same() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    cache.get("/a").await;
    settle().await;
    let handle = cache.handle();
    let mut invalidation = Box::pin(handle.invalidate(Target::uri("/a")));
    let mut context = Context::from_waker(Waker::noop());
    assert!(invalidation.as_mut().poll(&mut context).is_pending());
    assert_eq!(cache.get("/a").await.text(), "2", "from the call on");
    drop(invalidation);
    assert_eq!(cache.get("/a").await.text(), "3");
}

#[tokio::test]
async fn a_request_dropped_after_any_number_of_polls_leaves_nothing_behind() {
    let requests = [
        get("/a"),
        request(Method::HEAD, "/a", &[]),
        request(Method::PUT, "/a", &[]),
        request(Method::GET, "/a", &[("range", "bytes=0-0")]),
    ];
    for (request, age) in requests
        .iter()
        .flat_map(|request| [0, 70, 200].map(|age| (request, age)))
    {
        for polls in 0..30 {
            let fields = [("etag", "\"v\"")];
            let origin = Origin::new(move |call| response(&fields, call.number.to_string()));
            let cache = over(&Double::new(), &origin);
            cache.get("/a").await;
            settle().await;
            cache.advance(age);
            let mut exchange = Box::pin(cache.fetch(request.clone()));
            for _ in 0..polls {
                let mut context = Context::from_waker(Waker::noop());
                if exchange.as_mut().poll(&mut context).is_ready() {
                    break;
                }
            }
            drop(exchange);
            settle().await;
            let what = format!("{request:?}, {polls} polls, aged {age}");
            let answer = cache.get("/a").await;
            assert_eq!(answer.status, 200, "{what}");
            settle().await;
            let answer = cache.get("/a").await;
            assert!(
                answer.cache_status().starts_with("hit"),
                "{what}: {answer:?}"
            );
            assert!(
                cache.handle().shutdown(Duration::from_secs(1)).await,
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_with_damage_is_a_miss_like_any_failure() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    cache.get("/a").await;
    settle().await;
    store.break_down(Operation::Lookup, Fault::Fails(ErrorKind::Damaged));
    assert_eq!(
        cache.get("/a").await.cache_status(),
        "fwd=miss; detail=store-error"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_invalidated_within_a_minute_is_invalidated_again_after_a_failover() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    let handle = cache.handle();
    let applied = handle.invalidate(Target::tag("old")).await.unwrap();
    assert_eq!(applied, Invalidated::Applied);
    cache.advance(40);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _ = handle.invalidate(Target::tag("new")).await.unwrap();
    cache.method("PUT", "/a").await;
    cache.advance(30);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.calls(Operation::Invalidate), 3);
    assert_eq!(handle.health().invalidations_pending, 0);

    store.break_down(Operation::Invalidate, Fault::Fails(ErrorKind::Unavailable));
    store.fail_over();
    cache.get("/a").await;
    assert_eq!(
        handle.health().invalidations_pending,
        2,
        "the tag and the path, from the next look-up on"
    );
    settle().await;
    assert_eq!(
        cache.get("/a").await.text(),
        "3",
        "the old path may be back"
    );
    store.recover();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(handle.health().invalidations_pending, 0);

    cache.advance(60);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = store.calls(Operation::Invalidate);
    store.fail_over();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        store.calls(Operation::Invalidate),
        told,
        "no failover loses more than a minute"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_look_up_found_before_a_lost_invalidation_was_told_again_is_refused_after_it() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    let outcome = cache.handle().invalidate(Target::uri("/a")).await.unwrap();
    assert_eq!(outcome, Invalidated::Applied);
    cache.get("/a").await;
    settle().await;
    assert_eq!(cache.get("/a").await.text(), "1");
    let mut read = Box::pin(cache.get("/a"));
    let mut poll = || {
        let mut context = Context::from_waker(Waker::noop());
        read.as_mut().poll(&mut context).is_pending()
    };
    assert!(poll(), "the look-up has begun");
    store.fail_over();
    assert!(poll(), "it has found what the failover brought back");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.calls(Operation::Invalidate), 2, "told again");
    assert_eq!(cache.handle().health().invalidations_pending, 0);
    assert_eq!(read.await.text(), "2");
}

#[tokio::test(start_paused = true)]
async fn two_processes_in_a_row_are_waited_for_no_longer_than_one() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    for _ in 0..2 {
        store.claim_elsewhere(Duration::from_secs(2));
    }
    let began = tokio::time::Instant::now();
    let (answer, ()) = tokio::join!(cache.get("/a"), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cache.advance(2);
    });
    assert_eq!(answer.text(), "1");
    let took = began.elapsed();
    assert!((3.0..3.5).contains(&took.as_secs_f32()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_is_repeated_once_if_so_configured() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let layer = CacheLayer::new(store.clone()).repeat_invalidations(Some(Duration::from_secs(5)));
    let cache = Cache::over(layer, &origin, everywhere(ttl(60)));
    let _ = cache.handle().invalidate(Target::uri("/a")).await.unwrap();
    // A handler that reads a replica of the database that lags.
    cache.get("/a").await;
    settle().await;
    cache.advance(4);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(cache.get("/a").await.text(), "1");
    cache.advance(1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cache.get("/a").await.text(), "2");
    cache.advance(60);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(store.calls(Operation::Invalidate), 2);
}

#[tokio::test(start_paused = true)]
async fn a_barrier_waits_for_the_store_and_then_for_the_memory_of_others() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    store.break_down(Operation::Invalidate, Fault::Fails(ErrorKind::Unavailable));
    let handle = cache.handle();
    let _ = handle.invalidate(Target::uri("/a")).await.unwrap();
    let began = tokio::time::Instant::now();
    let barrier = timeout(Duration::from_secs(30), handle.barrier());
    assert!(barrier.await.is_err(), "the store is away");
    store.recover();
    handle.barrier().await;
    let took = began.elapsed();
    assert!((32.0..32.5).contains(&took.as_secs_f32()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_barrier_is_not_let_pass_by_who_invalidates_the_same_again() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    store.break_down(Operation::Invalidate, Fault::Fails(ErrorKind::Unavailable));
    let handle = cache.handle();
    let _ = handle.invalidate(Target::uri("/a")).await.unwrap();
    let barrier = timeout(Duration::from_secs(30), handle.barrier());
    let (passed, again) = tokio::join!(barrier, handle.invalidate(Target::uri("/a")));
    assert_eq!(again.unwrap(), Invalidated::Queued);
    assert!(passed.is_err(), "the store is away");
}

#[tokio::test(start_paused = true)]
async fn a_barrier_waits_for_what_the_store_has_just_lost() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    let handle = cache.handle();
    let told = handle.invalidate(Target::uri("/a")).await.unwrap();
    assert_eq!(told, Invalidated::Applied);
    store.fail_over();
    store.break_down(Operation::Invalidate, Fault::Fails(ErrorKind::Unavailable));
    let barrier = timeout(Duration::from_secs(30), handle.barrier());
    assert!(barrier.await.is_err(), "it does not know of it any more");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_dropped_is_not_kept_for_what_it_remembers() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    let _ = cache.handle().invalidate(Target::uri("/a")).await.unwrap();
    drop(cache);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!store.is_shared());
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_just_before_a_cache_is_dropped_is_told() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    let handle = cache.handle();
    let _ = handle.invalidate(Target::uri("/a")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.break_down(Operation::Invalidate, Fault::Fails(ErrorKind::Unavailable));
    let queued = handle.invalidate(Target::uri("/b")).await.unwrap();
    assert_eq!(queued, Invalidated::Queued);
    drop((cache, handle));
    store.recover();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.calls(Operation::Invalidate), 3);
    assert!(!store.is_shared());
}

#[tokio::test]
async fn nobody_joins_what_was_asked_for_before_an_invalidation_though_its_caller_leaves() {
    let (store, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&store, &origin);
    let ask = || {
        let asked = cache.service().oneshot(get("/a"));
        tokio::spawn(async { Answer::read(asked.await.unwrap()).await })
    };
    let hold = origin.hold();
    let before = ask();
    settle().await;
    store.break_down(Operation::Invalidate, Fault::Hangs);
    let handle = cache.handle();
    let mut invalidating = Box::pin(handle.invalidate(Target::uri("/a")));
    assert!((&mut invalidating).now_or_never().is_none());
    let during = ask();
    settle().await;
    drop(invalidating);
    let after = ask();
    settle().await;
    drop(hold);
    assert_eq!(before.await.unwrap().text(), "1");
    for asking in [during, after] {
        assert_ne!(asking.await.unwrap().text(), "1");
    }
}
