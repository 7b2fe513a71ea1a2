//! Methods other than GET whose responses are stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use tower::ServiceExt;
use tower_response_cache::{CacheLayer, Policy, Rule, Rules, RulesBuilder, Target};

use crate::support::{
    Answer, Cache, Call, Double, Origin, request, response, settle, status, stream,
};

fn letter() -> RulesBuilder {
    Rules::builder().policy(Policy::rfc9111())
}

/// A list that each POST adds to, and whose answer is the new list.
fn list() -> Origin {
    let length = Arc::new(AtomicUsize::new(0));
    Origin::new(move |call: &Call| {
        if call.head.method == Method::POST {
            length.fetch_add(1, Ordering::SeqCst);
        }
        let length = length.load(Ordering::SeqCst).to_string();
        let fields = [
            ("cache-control", "max-age=60"),
            ("content-location", "/list"),
        ];
        response(&fields, length)
    })
}

#[tokio::test]
async fn an_answer_to_post_that_represents_its_target_serves_later_gets() {
    // ME1
    let cache = Cache::new(&list(), letter());
    assert_eq!(cache.get("/list").await.text(), "0");
    let posted = cache.method("POST", "/list").await;
    assert_eq!(posted.text(), "1");
    assert_eq!(posted.cache_status(), "fwd=method; stored");
    let answer = cache.get("/list").await;
    assert_eq!((answer.text(), answer.cache_status()), ("1", "hit; ttl=60"));
    assert_eq!(
        cache.method("HEAD", "/list").await.cache_status(),
        "hit; ttl=60"
    );
    assert_eq!(
        cache.method("POST", "/list").await.text(),
        "2",
        "never another POST"
    );
    assert_eq!(cache.get("/list").await.text(), "2");
    assert_eq!(cache.origin.calls(), 3);
}

#[tokio::test]
async fn an_answer_to_post_that_does_not_say_so_serves_none() {
    type Field = (&'static str, &'static str);
    const FRESH: Field = ("cache-control", "max-age=60");
    const NAMED: Field = ("content-location", "/list");
    let cases: [(u16, &'static [Field]); 9] = [
        (200, &[FRESH]),
        (200, &[FRESH, ("content-location", "/list?page=1")]),
        (200, &[FRESH, ("content-location", "//other.example/list")]),
        (200, &[FRESH, NAMED, ("content-location", "/other")]),
        (200, &[NAMED]),
        (
            200,
            &[NAMED, ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
        ),
        (200, &[NAMED, ("cache-control", "max-age=60, no-store")]),
        (303, &[FRESH, NAMED]),
        (404, &[FRESH, NAMED]),
    ];
    for (code, fields) in cases {
        let cache = Cache::new(
            &Origin::new(move |_| status(code, fields, "posted")),
            letter(),
        );
        let posted = cache.method("POST", "/list").await;
        assert!(
            !posted.cache_status().contains("stored"),
            "{code} {fields:?}"
        );
        cache.origin.answer(|_| response(&[], "read"));
        assert_eq!(cache.get("/list").await.text(), "read", "{code} {fields:?}");
    }
}

#[tokio::test]
async fn guarded_and_bypassed_posts_are_not_stored() {
    for rules in [Rules::builder(), letter().route("/list", Rule::bypass())] {
        let cache = Cache::new(&list(), rules);
        assert_eq!(
            cache.method("POST", "/list").await.cache_status(),
            "fwd=method"
        );
        assert_eq!(cache.get("/list").await.text(), "1");
        assert_eq!(cache.origin.calls(), 2);
    }
}

#[tokio::test]
async fn an_answer_to_post_varies_and_is_personal_like_one_to_get() {
    let fields = [
        ("cache-control", "max-age=60"),
        ("content-location", "/list"),
        ("vary", "accept-language"),
    ];
    let cache = Cache::new(&Origin::counting(&fields), letter());
    let post = |name, value| cache.fetch(request(Method::POST, "/list", &[(name, value)]));
    post("accept-language", "de").await;
    let german = cache.get_with("/list", &[("accept-language", "de")]).await;
    assert_eq!(german.text(), "1");
    let english = cache.get_with("/list", &[("accept-language", "en")]).await;
    assert_eq!(english.text(), "2");

    let posted = post("authorization", "Basic eDp5").await;
    assert_eq!(posted.cache_status(), "fwd=method; detail=authorization");
    assert!(cache.get("/list").await.cache_status().starts_with("fwd"));
}

#[tokio::test]
async fn an_answer_to_post_overtaken_by_another_invalidation_serves_none() {
    let cache = Cache::new(&list(), letter());
    let hold = cache.origin.hold();
    let service = cache.service();
    let slow = tokio::spawn(service.oneshot(request(Method::POST, "/list", &[])));
    settle().await;
    assert_eq!(cache.origin.made(), 1, "the slow one has read its data");
    let _ = cache
        .handle()
        .invalidate(Target::uri("/list"))
        .await
        .unwrap();
    drop(hold);
    let posted = Answer::read(slow.await.unwrap().unwrap()).await;
    assert_eq!((posted.text(), posted.cache_status()), ("1", "fwd=method"));
    assert_eq!(
        cache.get("/list").await.cache_status(),
        "fwd=uri-miss; stored"
    );
}

#[tokio::test]
async fn of_two_posts_at_a_time_neither_answer_outlives_the_other() {
    let cache = Cache::new(&list(), letter());
    for first in [0, 1] {
        let hold = cache.origin.hold();
        let mut posts = Vec::new();
        for _ in 0..2 {
            let service = cache.service();
            posts.push(tokio::spawn(service.oneshot(request(
                Method::POST,
                "/list",
                &[],
            ))));
            settle().await;
        }
        drop(hold);
        posts.rotate_left(first);
        for post in posts {
            Answer::read(post.await.unwrap().unwrap()).await;
        }
        let newest = (2 * first + 2).to_string();
        assert_eq!(cache.get("/list").await.text(), newest);
    }
}

#[tokio::test]
async fn a_store_that_cannot_renew_stores_no_answer_to_post() {
    let layer = CacheLayer::new(Double::new());
    let cache = Cache::over(layer, &list(), letter());
    cache.get("/list").await;
    settle().await;
    assert_eq!(
        cache.method("POST", "/list").await.cache_status(),
        "fwd=method"
    );
    settle().await;
    assert_eq!(cache.get("/list").await.text(), "1");
    assert_eq!(cache.origin.calls(), 3);
}

#[tokio::test]
async fn a_streamed_answer_to_post_is_stored_when_it_has_been_read() {
    let fields = [
        ("cache-control", "max-age=60"),
        ("content-location", "/list"),
    ];
    let cache = Cache::new(
        &Origin::new(move |_| {
            let frame = http_body::Frame::data("streamed".into());
            response(&fields, "").map(|_| stream([Ok(frame)]))
        }),
        letter(),
    );
    let posted = cache
        .send(request(Method::POST, "/list", &[]))
        .await
        .unwrap();
    drop(posted);
    assert!(
        cache.get("/list").await.cache_status().starts_with("fwd"),
        "it was not read"
    );
    cache.method("POST", "/list").await;
    assert_eq!(cache.get("/list").await.cache_status(), "hit; ttl=60");
}

#[tokio::test]
async fn the_answer_to_a_post_is_the_clients_whatever_it_holds() {
    let fields = [
        ("cache-control", "max-age=60"),
        ("content-location", "/a"),
        ("etag", "\"v\""),
    ];
    let origin = Origin::new(move |_| crate::support::status(200, &fields, "made"));
    let rules =
        tower_response_cache::Rules::builder().policy(tower_response_cache::Policy::rfc9111());
    let cache = Cache::new(&origin, rules);
    for condition in [
        ("if-none-match", "*"),
        ("if-none-match", "\"v\""),
        ("range", "bytes=0-0"),
    ] {
        let post = request(Method::POST, "/a", &[condition]);
        let answer = cache.fetch(post).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "made"),
            "{condition:?}"
        );
    }
}
